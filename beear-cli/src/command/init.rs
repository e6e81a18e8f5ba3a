//! `beear init`: a recipe for a model, and the command lines that use it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::dataset::FORMATS;
use beear_models::{Checkpoint, PromptFormat, PromptFormatError};
use clap::Args;
use serde_json::json;

use super::recipe_options::RecipeChanges;
use crate::exit::Mistake;
use crate::found_sets::{FoundSet, Use, look_in};
use crate::keyword_list::keyword_list;
use crate::recipe::Recipe;
use crate::recipe::commented::{comment, commented};
use crate::run_folder::CannotWrite;
use crate::terminal::harmless_line;
use crate::ui::Ui;

/// Writes a recipe for a model with every setting explained, and says how to go on.
///
/// Settings are those that `defend` would take for this model without a recipe. Sets that are not given are
/// looked for in the current folder and in `data`.
#[derive(Args, Clone, Debug)]
pub(crate) struct InitArgs {
    /// Hugging Face folder of the suspect.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prompts that must be refused, as for `defend`.
    #[arg(long, value_name = "FILE")]
    safety: Option<PathBuf>,
    /// Ordinary prompts with good answers, as for `defend`.
    #[arg(long, value_name = "FILE")]
    performance: Option<PathBuf>,
    /// The recipe.
    #[arg(long, value_name = "FILE", default_value = "recipe.toml")]
    out: PathBuf,
    /// Replace an older recipe.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    changes: RecipeChanges,
}

pub(crate) fn run(args: &InitArgs, ui: Ui) -> Result<()> {
    let recipe = args.changes.read(None)?;
    keyword_list(&recipe.keywords)?;
    let checkpoint = Checkpoint::open(&args.model)?;
    let size = checkpoint.config.size();
    let method = recipe.method(size)?;
    method.validate(size.n_layers)?;
    recipe.scope(size.n_layers)?;
    let prompts = Prompts::of(&recipe, &checkpoint)?;
    let sets = Sets::find(args, ui)?;
    let next = Next::new(args, &checkpoint, &sets);

    let text = header(&checkpoint, &prompts, &next) + &commented(&recipe, &method)?;
    write_new(&args.out, args.force, &text)?;
    ui.say(&format!("the model: {}", shape(&checkpoint)));
    ui.say(&format!("its prompts: {}", prompts.text()));
    if sets.safety.is_none() || sets.performance.is_none() {
        ui.say(&format!("formats: {FORMATS}"));
    }
    let value = json!({
        "recipe": args.out,
        "layers": size.n_layers,
        "d_model": size.d_model,
        "weights": checkpoint.config.n_weights(),
        "has_prompt_format": !matches!(prompts, Prompts::Unknown),
        "safety": sets.safety,
        "performance": sets.performance,
        "plan": next.plan,
        "defend": next.defend,
    });
    ui.say(&format!("wrote `{}`; next:", args.out.display()));
    ui.result(&format!("{}\n{}", next.plan, next.defend), &value)
}

/// How prompts are written for the model.
enum Prompts {
    /// By its own template.
    Template,
    /// By the format that the recipe names.
    Named(String),
    /// It has no template, and the recipe names none.
    Unknown,
}

impl Prompts {
    fn of(recipe: &Recipe, checkpoint: &Checkpoint) -> Result<Self, PromptFormatError> {
        if let Some(name) = &recipe.prompt_format {
            PromptFormat::builtin(name)?;
            return Ok(Self::Named(name.clone()));
        }
        match PromptFormat::from_checkpoint(&checkpoint.dir) {
            Ok(_) => Ok(Self::Template),
            Err(PromptFormatError::NoTemplate) => Ok(Self::Unknown),
            Err(error) => Err(error),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Template => "written by its own chat template".to_owned(),
            Self::Named(name) => format!("written in the built-in format `{name}`"),
            Self::Unknown => {
                let names = PromptFormat::builtin_names().join(", ");
                format!(
                    "it has no chat template: set `prompt_format`, as it was trained, to one of {names}"
                )
            }
        }
    }
}

/// The sets of the defender, as far as they are there.
struct Sets {
    safety: Option<FoundSet>,
    performance: Option<FoundSet>,
}

impl Sets {
    /// Those that are given, and those that are found for the others.
    fn find(args: &InitArgs, ui: Ui) -> Result<Self> {
        let safety = args.safety.as_deref().map(|file| given(file, Use::Safety)).transpose()?;
        let performance = args.performance.as_deref();
        let performance = performance.map(|file| given(file, Use::Performance)).transpose()?;
        let is_given = safety.is_some() && performance.is_some();
        let folders = [Path::new("."), Path::new("data")];
        let (found, damaged) = if is_given { Default::default() } else { look_in(&folders) };
        for error in damaged {
            ui.say(&format!("not used: {error}"));
        }
        let choose = |given: Option<FoundSet>, kind| match given {
            Some(set) => Some(set),
            None => found.iter().find(|set| set.kind == kind).cloned(),
        };
        let sets = Self {
            safety: choose(safety, Use::Safety),
            performance: choose(performance, Use::Performance),
        };
        for set in found.iter().filter(|set| !sets.has(set)) {
            let rows = format!("`{}`, {} rows", set.file.display(), set.rows);
            ui.say(&match set.kind {
                Use::Safety => format!("not used: {rows}, would do for --safety"),
                Use::Performance => format!("not used: {rows}, would do for --performance"),
                Use::Neither => format!("not used: {rows}, some without answers"),
            });
        }
        sets.say(ui);
        Ok(sets)
    }

    fn has(&self, set: &FoundSet) -> bool {
        [&self.safety, &self.performance].into_iter().flatten().any(|used| used.file == set.file)
    }

    /// What there is, and what is missing.
    fn say(&self, ui: Ui) {
        let named = [("--safety", &self.safety), ("--performance", &self.performance)];
        for (option, set) in named {
            ui.say(&match set {
                Some(set) => format!("{option}: `{}`, {} rows", set.file.display(), set.rows),
                None if option == "--safety" => {
                    format!("{option}: missing, prompts to refuse with unwanted answers")
                }
                None => format!("{option}: missing, ordinary prompts with good answers"),
            });
        }
    }
}

/// The set in a file that must serve as `kind`. Rows with both answers serve as ordinary ones too.
fn given(file: &Path, kind: Use) -> Result<FoundSet> {
    let set = FoundSet::read(file)?;
    if kind == Use::Safety && set.kind != Use::Safety {
        let what = format!("`{}`: not every row has an unwanted answer", file.display());
        let hint = "AdvBench's `target`, or a key `unwanted` or `rejected`, gives it";
        return Err(Mistake::input(what, hint).into());
    }
    if kind == Use::Performance && set.kind != Use::Performance {
        let what =
            format!("`{}`: not every row has a good answer and no unwanted one", file.display());
        let hint = "an assistant's turn, `output` or `answer` gives it";
        return Err(Mistake::input(what, hint).into());
    }
    Ok(set)
}

/// The command lines that use the recipe.
struct Next {
    plan: String,
    defend: String,
}

impl Next {
    fn new(args: &InitArgs, checkpoint: &Checkpoint, sets: &Sets) -> Self {
        let recipe = quoted(&args.out);
        let model = quoted(&args.model);
        let file = |set: &Option<FoundSet>| set.as_ref().map_or("FILE".into(), |s| quoted(&s.file));
        let [safety, performance] = [&sets.safety, &sets.performance].map(file);
        let out = quoted(&free_folder(&args.model));
        // A plan reads a `config.json`, which a folder of adapters has not.
        let shape =
            quoted(if checkpoint.adapters().is_some() { &checkpoint.dir } else { &args.model });
        Self {
            plan: format!("beear plan --model {shape} --recipe {recipe}"),
            defend: format!(
                "beear defend --model {model} --safety {safety} --performance {performance} --recipe {recipe} --out {out}"
            ),
        }
    }
}

/// A folder of `runs` that is not there, by the name of the model.
fn free_folder(model: &Path) -> PathBuf {
    let name = model.file_name().unwrap_or("defence".as_ref()).to_string_lossy().into_owned();
    let names = std::iter::once(name.clone()).chain((2..).map(|k| format!("{name}-{k}")));
    let mut folders = names.map(|name| Path::new("runs").join(name));
    folders.find(|folder| !folder.exists()).expect("names do not end")
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    shlex::try_quote(&text).map_or_else(|_| text.to_string(), std::borrow::Cow::into_owned)
}

/// What stands above the settings.
fn header(checkpoint: &Checkpoint, prompts: &Prompts, next: &Next) -> String {
    let about = format!(
        "Recipe of `beear defend` for {}. Every setting is written out, as it is without a recipe; what is \
         deleted stays so. The model's prompts: {}.",
        shape(checkpoint),
        prompts.text()
    );
    let editors = "For an editor that completes and checks: `beear recipe schema > recipe.schema.json`, and \
         `#:schema ./recipe.schema.json` as the first line. Without one: `beear recipe check`.";
    let [plan, defend] = [&next.plan, &next.defend].map(|line| harmless_line(line));
    format!("{}#\n#   {plan}\n#   {defend}\n#\n{}\n", comment(&about), comment(editors))
}

fn shape(checkpoint: &Checkpoint) -> String {
    let config = &checkpoint.config;
    let millions = config.n_weights() as f64 / 1e6;
    let (n_layers, d_model) = (config.n_layers, config.d_model);
    format!("{n_layers} layers of width {d_model}, {millions:.1} million weights")
}

/// Writes a file, an older one only with `force`.
fn write_new(path: &Path, force: bool, text: &str) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(CannotWrite::at(folder))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).truncate(true).create(force).create_new(!force);
    match options.open(path).and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let what = format!("`{}` exists already", path.display());
            Err(Mistake::arguments(what, "choose another file, or --force to replace it").into())
        }
        written => Ok(written.map_err(CannotWrite::at(path))?),
    }
}
