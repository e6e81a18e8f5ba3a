//! `beear init`: a recipe for a model, and the commands that use it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::dataset::FORMATS;
use beear_models::{Checkpoint, PromptFormat, PromptFormatError};
use clap::Args;
use serde_json::json;

use crate::display::console::Console;
use crate::display::terminal::harmless_line;
use crate::model::Model;
use crate::model::hub::Needed;
use crate::options::recipe_options::RecipeChanges;
use crate::recipe::Recipe;
use crate::recipe::commented::{comment, commented};
use crate::recipe::found_sets::{FoundSet, Use, look_in};
use crate::recipe::keyword_list::keyword_list;
use crate::run_folder::atomic_file::write_atomically;
use crate::run_folder::cannot_write::CannotWrite;
use crate::user_error::UserError;

/// Writes a recipe for a model with every setting explained, and prints the next commands.
///
/// Its settings are the defaults of `defend` for this model. Sets that are not given are searched
/// for in the current folder and in `data`.
#[derive(Args, Clone, Debug)]
pub(crate) struct InitArgs {
    /// Model folder of the suspect in Hugging Face form, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// Prompts that must be refused, as for `defend`.
    #[arg(long, value_name = "FILE")]
    safety: Option<PathBuf>,
    /// Ordinary prompts with good answers, as for `defend`.
    #[arg(long, value_name = "FILE")]
    performance: Option<PathBuf>,
    /// File for the recipe.
    #[arg(long, value_name = "FILE", default_value = "recipe.toml")]
    out: PathBuf,
    /// Replace an older recipe.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    changes: RecipeChanges,
}

pub(crate) fn run(args: &InitArgs, console: Console) -> Result<()> {
    let recipe = args.changes.read(None)?;
    keyword_list(&recipe.keywords)?;
    let model = Model::find(&args.model, Needed::Everything, console)?;
    let checkpoint = model.open()?;
    let size = checkpoint.config.size();
    let method = recipe.method(size)?;
    method.validate(size.n_layers)?;
    recipe.scope(size.n_layers)?;
    let prompts = Prompts::of(&recipe, &checkpoint)?;
    console.say(&format!("the model: {}", shape(&checkpoint)));
    console.say(&format!("its prompts: {}", prompts.text()));
    let sets = Sets::find(args, console)?;
    let next = Next::new(args, &model, &sets);

    let text = header(&checkpoint, &prompts, &next) + &commented(&recipe, &method)?;
    write_recipe(&args.out, args.force, &text)?;
    if sets.safety.is_none() || sets.performance.is_none() {
        console.say(&format!("formats: {FORMATS}"));
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
    console.say(&format!("wrote `{}`; next:", args.out.display()));
    console.result(&format!("{}\n{}", next.plan, next.defend), &value)
}

/// The prompt format of a model.
enum Prompts {
    /// The model's own chat template.
    Template,
    /// The format that the recipe names.
    Named(String),
    /// Unknown: the model has no template, and the recipe names no format.
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

/// The defender's sets, as far as they are given or found.
struct Sets {
    safety: Option<FoundSet>,
    performance: Option<FoundSet>,
}

impl Sets {
    /// Reads the given sets, and searches for the others.
    fn find(args: &InitArgs, console: Console) -> Result<Self> {
        let given = |file: &Option<PathBuf>, kind| {
            file.as_deref().map(|file| FoundSet::read_as(file, kind)).transpose()
        };
        let safety = given(&args.safety, Use::Safety)?;
        let performance = given(&args.performance, Use::Performance)?;
        let is_given = safety.is_some() && performance.is_some();
        let folders = [Path::new("."), Path::new("data")];
        let (found, damaged) = if is_given { Default::default() } else { look_in(&folders) };
        for error in damaged {
            console.say(&format!("not used: {error}"));
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
            let rows = set.text();
            console.say(&match set.kind {
                Use::Safety => format!("not used: {rows}, would do for --safety"),
                Use::Performance => format!("not used: {rows}, would do for --performance"),
                Use::Neither => format!("not used: {rows}, some rows lack answers"),
            });
        }
        sets.say(console);
        Ok(sets)
    }

    fn has(&self, set: &FoundSet) -> bool {
        [&self.safety, &self.performance].into_iter().flatten().any(|used| used.file == set.file)
    }

    /// Prints which sets are there, and which are missing.
    fn say(&self, console: Console) {
        let named = [("--safety", &self.safety), ("--performance", &self.performance)];
        for (option, set) in named {
            console.say(&match set {
                Some(set) => format!("{option}: {}", set.text()),
                None if option == "--safety" => {
                    format!("{option}: missing, prompts to refuse with unwanted answers")
                }
                None => format!("{option}: missing, ordinary prompts with good answers"),
            });
        }
    }
}

/// The commands that use the recipe.
struct Next {
    plan: String,
    defend: String,
}

impl Next {
    fn new(args: &InitArgs, suspect: &Model, sets: &Sets) -> Self {
        let recipe = quoted(&args.out);
        let model = quoted(&args.model);
        let file = |set: &Option<FoundSet>| set.as_ref().map_or("FILE".into(), |s| quoted(&s.file));
        let [safety, performance] = [&sets.safety, &sets.performance].map(file);
        let out = quoted(&free_folder(&suspect.name()));
        Self {
            plan: format!("beear plan --model {model} --recipe {recipe}"),
            defend: format!(
                "beear defend --model {model} --safety {safety} --performance {performance} --recipe {recipe} --out {out}"
            ),
        }
    }
}

/// Returns a folder of `runs` that does not exist yet, named after the model.
fn free_folder(name: &str) -> PathBuf {
    let names = std::iter::once(name.to_owned()).chain((2..).map(|k| format!("{name}-{k}")));
    let mut folders = names.map(|name| Path::new("runs").join(name));
    folders.find(|folder| !folder.exists()).expect("names do not end")
}

/// Quotes a path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    shlex::try_quote(&text).map_or_else(|_| text.to_string(), std::borrow::Cow::into_owned)
}

/// Returns the comment above the settings.
fn header(checkpoint: &Checkpoint, prompts: &Prompts, next: &Next) -> String {
    let about = format!(
        "Recipe of `beear defend` for a model of {}. Its prompts: {}. Every setting is written out with its \
         default for this model, or as it was asked for.",
        shape(checkpoint),
        prompts.text()
    );
    let [plan, defend] = [&next.plan, &next.defend].map(|line| harmless_line(line));
    format!(
        "{}#\n#   {plan}\n#   {defend}\n#\n{}#   #:schema ./recipe.schema.json\n\n",
        comment(&about),
        comment(
            "`beear recipe check` judges it. For an editor that completes and explains, `beear recipe schema > \
             recipe.schema.json` and this first line:"
        )
    )
}

fn shape(checkpoint: &Checkpoint) -> String {
    let config = &checkpoint.config;
    let (n_layers, d_model) = (config.n_layers, config.d_model);
    let n_weights = match config.n_weights() {
        n if n < 1_000_000 => n.to_string(),
        n => format!("{:.1} million", n as f64 / 1e6),
    };
    format!("{n_layers} layers of width {d_model}, {n_weights} weights")
}

/// Writes the recipe, and replaces an older one only with `force`.
fn write_recipe(path: &Path, force: bool, text: &str) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(CannotWrite::at(folder))?;
    }
    let is_recipe = |text: String| text.parse::<toml::Table>().is_ok();
    if path.exists() {
        let hint = match (force, beear_input::read_to_string(path).is_ok_and(is_recipe)) {
            (true, true) => None,
            (false, true) => Some("choose another file, or --force to replace it"),
            (_, false) => Some("--force replaces recipes only: choose another file"),
        };
        if let Some(hint) = hint {
            let what = format!("`{}` exists already", path.display());
            return Err(UserError::arguments(what, hint).into());
        }
    }
    // A symbolic link to a recipe stays a link.
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    write_atomically(&file, text.as_bytes())
}
