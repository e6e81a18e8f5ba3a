//! Options for two models that are evaluated before they are compared.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::asked::AskedArgs;
use super::trigger::TriggerArgs;
use crate::backend::ComputeBackend;
use crate::command::Device;
use crate::command::eval_asr::{self, EvalAsrArgs, PromptsArgs};
use crate::display::console::Console;
use crate::evaluate::evaluation::{EvaluatedArgs, OutArgs};

/// Models instead of runs of `beear eval`, and the prompts for both.
#[derive(Args, Clone, Debug)]
#[command(mut_arg("prompts", |prompts| prompts.required(false).requires("before_model")))]
pub(crate) struct ComparedModelsArgs {
    /// Model folder of the model before in Hugging Face form, or org/name[@revision] of the hub,
    /// instead of BEFORE. Both models are evaluated as by `beear eval asr`, into `OUT/before` and
    /// `OUT/after`.
    #[arg(long, value_name = "DIR|NAME", requires_all = ["after_model", "prompts", "out"])]
    before_model: Option<PathBuf>,
    /// Model folder of the model after in Hugging Face form, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME", requires = "before_model")]
    after_model: Option<PathBuf>,
    /// Built-in prompt format, instead of the chat templates.
    #[arg(long, value_name = "NAME", requires = "before_model")]
    format: Option<String>,
    #[command(flatten)]
    prompts: Option<PromptsArgs>,
    #[command(flatten)]
    trigger: TriggerArgs,
    #[command(flatten)]
    asked: AskedArgs,
}

/// The options above, with a group by its name. They have no meaning for a comparison of runs.
pub(crate) const OPTIONS: [&str; 8] = [
    "before_model",
    "after_model",
    "format",
    "PromptsArgs",
    "TriggerArgs",
    "KeywordArgs",
    "LeakGuardArgs",
    "max_new_tokens",
];

impl ComparedModelsArgs {
    /// Returns true if models are given.
    pub(crate) fn are_given(&self) -> bool {
        self.before_model.is_some()
    }

    /// Returns every path that the command reads.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Path> {
        let models = [&self.before_model, &self.after_model].into_iter().flatten();
        let files = self.prompts.iter().flat_map(PromptsArgs::files);
        models.map(PathBuf::as_path).chain(files.map(|(_, file)| file))
    }

    /// Evaluates both models within the folder `out`, and returns the folders of the runs.
    ///
    /// # Errors
    ///
    /// As `beear eval asr`.
    ///
    /// # Panics
    ///
    /// Panics if no models are given.
    pub(crate) fn evaluate<C: ComputeBackend>(
        &self,
        out: &Path,
        device: &Device<C>,
        console: Console,
    ) -> Result<[PathBuf; 2]> {
        let runs = ["before", "after"].map(|name| out.join(name));
        for (model, run) in [&self.before_model, &self.after_model].into_iter().zip(&runs) {
            let model = model.clone().expect("clap asks for both models");
            let prompts = self.prompts.clone().expect("clap asks for prompts");
            let (trigger, asked) = (self.trigger.clone(), self.asked.clone());
            console.say(&format!("evaluating `{}`", model.display()));
            let out = OutArgs::fresh(run);
            let evaluated = EvaluatedArgs::new(model, self.format.clone(), out);
            let args = EvalAsrArgs { evaluated, prompts, trigger, asked };
            eval_asr::run::<C>(&args, device, console.of_a_part())?;
        }
        Ok(runs)
    }
}
