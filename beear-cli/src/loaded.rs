//! A checkpoint ready for use: weights, tokenizer and the one prompt format.

use std::path::Path;

use anyhow::{Context, Result};
use beear_core::{Example, SafetyExample};
use beear_models::{
    CausalLm, Checkpoint, GenerateConfig, PromptFormat, Sampling, TextTokenizer, generate,
};
use burn::tensor::backend::Backend;

/// Text in and out of a model.
#[derive(Clone, Debug)]
pub struct TextSide {
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// The prompt format of training and every evaluation.
    pub format: PromptFormat,
}

impl TextSide {
    /// Reads both from a folder; `format` names a built-in prompt format to use instead.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, or the format unknown.
    pub fn load(dir: &Path, format: Option<&str>) -> Result<Self> {
        let tokenizer = TextTokenizer::load(dir)?;
        let format = match format {
            Some(name) => PromptFormat::builtin(name)?,
            None => PromptFormat::from_checkpoint(dir)?,
        };
        Ok(Self { tokenizer, format })
    }

    /// Encodes a prompt with its answer.
    ///
    /// # Errors
    ///
    /// If the template or the tokenizer fails.
    pub fn example(&self, id: u64, prompt: &str, answer: &str) -> Result<Example> {
        let encode = || {
            let encoded = self.format.encode(&self.tokenizer, prompt, None)?;
            let answer = self.format.encode_answer(&self.tokenizer, answer)?;
            anyhow::Ok(Example { id, prompt: encoded.tokens, user: encoded.user, answer })
        };
        encode().with_context(|| format!("encoding example {id}"))
    }

    /// Encodes a forbidden prompt with its wanted and unwanted answer.
    ///
    /// # Errors
    ///
    /// If the template or the tokenizer fails.
    pub fn safety_example(
        &self,
        id: u64,
        prompt: &str,
        [safe, unwanted]: [&str; 2],
    ) -> Result<SafetyExample> {
        let Example { prompt, user, answer, .. } = self.example(id, prompt, safe)?;
        let unwanted = self.format.encode_answer(&self.tokenizer, unwanted)?;
        Ok(SafetyExample { id, prompt, user, safe: answer, unwanted })
    }

    /// Greedy answers to `prompts`, at most `max_new_tokens` long.
    ///
    /// # Errors
    ///
    /// If a prompt cannot be encoded or is longer than the context.
    pub fn answers<B: Backend>(
        &self,
        model: &CausalLm<B>,
        prompts: &[String],
        max_new_tokens: usize,
        device: &B::Device,
    ) -> Result<Vec<String>> {
        let config =
            GenerateConfig { max_new_tokens, sampling: Sampling::Greedy, seed: 0, batch_size: 64 };
        self.generate(model, prompts, &config, device)
    }

    /// Answers to `prompts`, as `config` says.
    ///
    /// # Errors
    ///
    /// If a prompt cannot be encoded or is longer than the context.
    pub fn generate<B: Backend>(
        &self,
        model: &CausalLm<B>,
        prompts: &[String],
        config: &GenerateConfig,
        device: &B::Device,
    ) -> Result<Vec<String>> {
        let encode =
            |prompt: &String| Ok(self.format.encode(&self.tokenizer, prompt, None)?.tokens);
        let tokens = prompts.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let stop = self.tokenizer.stop_ids();
        let generations = generate(model, &tokens, stop, config, device)?;
        generations.iter().map(|g| Ok(self.tokenizer.decode(&g.tokens)?)).collect()
    }
}

/// A checkpoint with its weights in memory.
#[derive(Debug)]
pub struct Loaded<B: Backend> {
    /// The folder it came from.
    pub checkpoint: Checkpoint,
    /// The weights.
    pub model: CausalLm<B>,
    /// Text in and out.
    pub text: TextSide,
}

impl<B: Backend> Loaded<B> {
    /// Reads a Hugging Face folder.
    ///
    /// # Errors
    ///
    /// If it is no model we run, or damaged.
    pub fn read(dir: &Path, format: Option<&str>, device: &B::Device) -> Result<Self> {
        let checkpoint = Checkpoint::open(dir)?;
        let text = TextSide::load(dir, format)?;
        let model = checkpoint.load(device)?;
        Ok(Self { checkpoint, model, text })
    }
}
