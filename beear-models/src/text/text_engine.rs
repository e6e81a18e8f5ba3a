//! The port of all text work of a model: templates and tokenizers come from its folder, and the folder may come from an
//! attacker.
//!
//! A template is code, and a `tokenizer.json` decides by its normaliser, its patterns and its merges how much time and
//! memory a text takes. [`InProcess`] does the work where it is called and bounds neither: use it for folders that you
//! trust. Whoever reads folders of strangers implements [`TextEngine`] over a process that can be killed, which runs
//! [`InProcess::serve`]; the command `beear` does.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::chat::{Message, TemplateSource};
use crate::text::large_stack;
use crate::text::prompt_encoder::PromptEncoder;
use crate::text::prompt_format::{EncodedChat, EncodedPrompt, PromptFormat, PromptFormatError};
use crate::text::text_stage::TextStage;
use crate::text::tokenizer::TextTokenizer;

/// One piece of text work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextTask {
    /// Encode a request, up to where the answer begins.
    Prompt {
        /// The user's words.
        prompt: String,
        /// The system prompt, if there is one.
        system: Option<String>,
    },
    /// Encode a conversation, up to where the next answer begins.
    Chat(Vec<Message>),
    /// Encode an answer with its end of sequence.
    Answer(String),
    /// Turn ids into text, special tokens left out.
    Decode(Vec<u32>),
    /// List the tokens.
    Vocabulary,
}

/// The result of a [`TextTask`] of the same kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextOutput {
    /// An encoded request.
    Prompt(EncodedPrompt),
    /// An encoded conversation.
    Chat(EncodedChat),
    /// The ids of an answer.
    Answer(Vec<u32>),
    /// Decoded text.
    Text(String),
    /// The tokens.
    Vocabulary(Vocabulary),
}

/// All tokens of a tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// The token of each id; `None` for an id without a token.
    pub tokens: Vec<Option<String>>,
    /// See [`TextTokenizer::text_ids`].
    pub text_ids: Vec<u32>,
}

/// Why a task has no output.
#[derive(Debug, Error)]
pub enum TextEngineError {
    /// The template or the tokenizer refused the text.
    #[error(transparent)]
    Format(#[from] PromptFormatError),
    /// A task took longer than it may.
    #[error("{stage} takes more than {seconds} s for one text")]
    Deadline {
        /// What took the time.
        stage: TextStage,
        /// The limit.
        seconds: f64,
    },
    /// The tasks took more memory than they may.
    #[error("{stage} takes more than {mebibytes} MiB of memory")]
    Memory {
        /// What took the memory.
        stage: TextStage,
        /// The limit.
        mebibytes: u64,
    },
    /// The process that does the work has died.
    #[error("{stage} ends the process that reads it: {how}")]
    Died {
        /// What the process was at.
        stage: TextStage,
        /// Its end.
        how: String,
    },
    /// The process that does the work cannot be started.
    #[error("no process can be started for the tokenizer and the chat template: {reason}")]
    NotStarted {
        /// What is in the way.
        reason: String,
    },
}

impl TextEngineError {
    /// What to do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Format(error) => return error.hint(),
            Self::Deadline { .. } | Self::Memory { .. } => {
                "do not use this model unless you trust it: then raise the limit"
            }
            Self::Died { .. } => "do not use this model",
            Self::NotStarted { .. } => return None,
        })
    }
}

/// Tasks of which one failed.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct TaskFailed {
    /// The index of the task.
    pub task: usize,
    /// Why it failed.
    pub error: TextEngineError,
}

/// Does the text work of one model.
pub trait TextEngine: fmt::Debug + Send + Sync {
    /// Ids that end an answer.
    fn stop_ids(&self) -> &[u32];

    /// The id that stands for text that has no token; byte-level tokenizers have none.
    fn unknown_id(&self) -> Option<u32>;

    /// Number of token ids, added tokens included.
    fn vocab_size(&self) -> usize;

    /// Does `tasks` and returns an output for each, of the same kind and in the same order.
    ///
    /// # Errors
    ///
    /// [`TaskFailed`], of the first task that has no output.
    fn run(&self, tasks: &[TextTask]) -> Result<Vec<TextOutput>, TaskFailed>;
}

/// The engine that works where it is called, within the limits of the template engine: instructions and output of a
/// template. Time and memory are not limited.
#[derive(Clone, Debug)]
pub struct InProcess {
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// The prompt format.
    pub format: PromptFormat,
}

impl InProcess {
    /// Stack that the work runs on, in bytes. Only what is used of it takes memory.
    pub const STACK_BYTES: u64 = large_stack::STACK as u64;

    /// Does every task that `tasks` yields and hands the outputs to `reply`, in the same order, until either ends.
    /// `begins` hears of each stage of a task before its beginning.
    ///
    /// # Errors
    ///
    /// That the template engine panics.
    pub fn serve(
        &self,
        tasks: impl Iterator<Item = TextTask> + Send,
        begins: &(dyn Fn(TextStage) + Sync),
        mut reply: impl FnMut(Result<TextOutput, PromptFormatError>) -> bool + Send,
    ) -> Result<(), PromptFormatError> {
        let work = || {
            let source = TemplateSource::new(self.format.text());
            let begin = |stage| begins(stage);
            let mut encoder = PromptEncoder::new((&self.format, &source), &self.tokenizer, &begin);
            for task in tasks {
                begins(TextStage::Tokenizer);
                if !reply(self.output(&mut encoder, task)) {
                    break;
                }
            }
        };
        large_stack::run(work).ok_or_else(PromptFormatError::engine_broken)
    }

    fn output(
        &self,
        encoder: &mut PromptEncoder<'_>,
        task: TextTask,
    ) -> Result<TextOutput, PromptFormatError> {
        Ok(match task {
            TextTask::Prompt { prompt, system } => {
                TextOutput::Prompt(encoder.prompt(&prompt, system.as_deref())?)
            }
            TextTask::Chat(messages) => TextOutput::Chat(encoder.chat(&messages)?),
            TextTask::Answer(answer) => TextOutput::Answer(encoder.answer(&answer)?),
            TextTask::Decode(ids) => TextOutput::Text(self.tokenizer.decode(&ids)?),
            TextTask::Vocabulary => TextOutput::Vocabulary(Vocabulary {
                tokens: (0..self.vocab_size() as u32).map(|id| self.tokenizer.token(id)).collect(),
                text_ids: self.tokenizer.text_ids(),
            }),
        })
    }
}

impl TextEngine for InProcess {
    fn stop_ids(&self) -> &[u32] {
        self.tokenizer.stop_ids()
    }

    fn unknown_id(&self) -> Option<u32> {
        self.tokenizer.unknown_id()
    }

    fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    fn run(&self, tasks: &[TextTask]) -> Result<Vec<TextOutput>, TaskFailed> {
        let (mut outputs, mut failed) = (Vec::with_capacity(tasks.len()), None);
        let reply = |output| match output {
            Ok(output) => {
                outputs.push(output);
                true
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        };
        let served = self.serve(tasks.iter().cloned(), &|_| (), reply);
        match failed.or(served.err()) {
            Some(error) => Err(TaskFailed { task: outputs.len(), error: error.into() }),
            None => Ok(outputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::tokenizer::testing::folder;

    fn engine(template: &str) -> InProcess {
        let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
        let dir = folder(&["<unk>", "<s>", "</s>", "a", "b"], &["<s>", "</s>"], &config);
        let tokenizer = TextTokenizer::load(dir.path()).unwrap();
        InProcess { tokenizer, format: PromptFormat::ChatTemplate(template.to_owned()) }
    }

    #[test]
    fn each_task_has_the_output_of_its_kind() {
        let engine = engine("{{ messages[-1].content }} b");
        let prompt = TextTask::Prompt { prompt: "a".to_owned(), system: None };
        let tasks = [
            prompt,
            TextTask::Chat(vec![Message::user("a a")]),
            TextTask::Answer("b".to_owned()),
            TextTask::Decode(vec![1, 3, 4]),
            TextTask::Vocabulary,
        ];
        let outputs = engine.run(&tasks).unwrap();
        let (text, tokens) = ("a b".to_owned(), vec![1, 3, 4]);
        let tokens_of_words = ["<unk>", "<s>", "</s>", "a", "b"].map(|w| Some(w.to_owned()));
        let expected = [
            TextOutput::Prompt(EncodedPrompt { text, tokens, user: (1, 2) }),
            TextOutput::Chat(EncodedChat { text: "a a b".to_owned(), tokens: vec![1, 3, 3, 4] }),
            TextOutput::Answer(vec![4, 2]),
            TextOutput::Text("a b".to_owned()),
            TextOutput::Vocabulary(Vocabulary {
                tokens: tokens_of_words.to_vec(),
                text_ids: vec![0, 3, 4],
            }),
        ];
        assert_eq!(outputs, expected);
        assert_eq!((engine.stop_ids(), engine.vocab_size()), ([2].as_slice(), 5));
    }

    #[test]
    fn the_first_task_that_fails_is_named() {
        let refuses =
            "{% if messages[0].content == 'b' %}{{ raise_exception('no b') }}{% endif %}a";
        let chat = |words: &str| TextTask::Chat(vec![Message::user(words)]);
        let failed = engine(refuses).run(&[chat("a"), chat("b"), chat("a")]).unwrap_err();
        assert_eq!(failed.task, 1);
        assert!(failed.to_string().contains("no b"), "{failed}");
    }

    #[test]
    fn stages_are_told_before_they_begin() {
        use TextStage::{Template, Tokenizer};

        let stages = std::sync::Mutex::new(Vec::new());
        let begins = |stage| stages.lock().unwrap().push(stage);
        let tasks = [TextTask::Chat(vec![Message::user("a")]), TextTask::Decode(vec![3])];
        engine("a").serve(tasks.into_iter(), &begins, |_| true).unwrap();
        let Ok(stages) = stages.into_inner() else { unreachable!("nothing panics") };
        assert_eq!(stages, [Tokenizer, Template, Tokenizer, Tokenizer]);
    }
}
