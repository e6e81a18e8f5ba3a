//! `beear validate`: compares a model with its suspect by the bounds of a recipe.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_core::{Assessment, ValidationMetrics, Validator, Verdict};
use beear_eval::table::markdown;
use beear_models::CausalLm;
use burn::module::AutodiffModule;
use clap::Args;
use serde_json::json;

use super::{Device, Inference, Train};
use crate::backend::ComputeBackend;
use crate::defence::anchors;
use crate::defence::bounds_text::{readings, those};
use crate::defence::text_validator::TextValidator;
use crate::display::console::Console;
use crate::model::Model;
use crate::model::hub::Needed;
use crate::model::loaded::Loaded;
use crate::options::anchor_files::AnchorFiles;
use crate::options::recipe_options::RecipeOptions;
use crate::recipe::{ANY_SIZE, Recipe};
use crate::user_error::UserError;

/// Checks a model against its suspect by the bounds of a recipe, on the rows that `defend` would
/// hold out.
///
/// Nothing is trained. The two models are loaded one after the other and compared row by row. Exit
/// code 7 if a bound is broken, or undecided where the recipe rejects that.
#[derive(Args, Clone, Debug)]
pub(crate) struct ValidateArgs {
    /// Model folder of the suspect in Hugging Face form, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    suspect: PathBuf,
    /// Model folder of the model to check, in Hugging Face form, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    #[command(flatten)]
    rows: AnchorFiles,
    #[command(flatten)]
    recipe: RecipeOptions,
}

pub(crate) fn run<C: ComputeBackend>(
    args: &ValidateArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let recipe = args.recipe.read()?;
    if !recipe.watches() {
        return Err(UserError::arguments(
            "held_out = 0: no row is left to validate on",
            "set `held_out`",
        )
        .into());
    }
    let bounds = *recipe.method(ANY_SIZE)?.bounds();
    let files = (args.rows.safety.as_path(), args.rows.performance.as_path());
    let (suspect, mut validator) =
        suspect::<C>((&args.suspect, files), &recipe, (device, console))?;
    let model = Model::find(&args.model, Needed::Everything, console)?;
    let checkpoint = model.open()?;
    if checkpoint.config.vocab_size != validator.vocab_size() {
        let what = "the two models have different vocabularies";
        return Err(UserError::input(what, "name a model that was made from the suspect").into());
    }
    console.say("validating the model");
    let model: CausalLm<Inference<C>> = checkpoint.load(device)?;
    let metrics = validator.validate(&model)?;
    let assessment = Assessment::new(&suspect, &metrics, &bounds);
    let within_bounds = assessment.is_within(bounds.undecided);
    let facts = json!({
        "suspect": suspect.summary(),
        "validation": assessment,
        "verdict": assessment.verdict(),
        "within_bounds": within_bounds,
    });
    console.result(&table(&assessment), &facts)?;
    if within_bounds {
        return Ok(());
    }
    let broken = those(&assessment, Verdict::Broken);
    let reasons = if broken.is_empty() { those(&assessment, Verdict::Undecided) } else { broken };
    let what = format!("the model is out of bounds: {}", reasons.join("; "));
    Err(UserError::out_of_bounds(what, "change the model, or `method.bounds` of the recipe").into())
}

/// Returns the suspect's held-out rows, and the validator that measured them. The suspect's weights
/// are freed when this function returns.
fn suspect<C: ComputeBackend>(
    (suspect, files): (&Path, (&Path, &Path)),
    recipe: &Recipe,
    (device, console): (&Device<C>, Console),
) -> Result<(ValidationMetrics, TextValidator<Inference<C>>)> {
    let suspect = Model::find(suspect, Needed::Everything, console)?;
    let loaded = Loaded::<Train<C>>::read(&suspect, recipe.prompt_format.as_deref(), device)?;
    let mut validator = anchors::build(files, &loaded, recipe, (device, console))?.validator;
    console.say("validating the suspect");
    let metrics = validator.validate(&loaded.model.valid())?;
    Validator::<_, CausalLm<_>>::check_suspect(&validator, &metrics)?;
    Ok((metrics, validator))
}

fn table(assessment: &Assessment) -> String {
    let head = ["held-out rows", "suspect", "model", "difference", "bound", "rows", "verdict"];
    let lines = readings(assessment).map(|reading| {
        let check = reading.check;
        vec![
            reading.long.to_owned(),
            format!("{:.3}", check.before),
            format!("{:.3}", check.after),
            reading.change(),
            format!("{:.3}", check.bound),
            check.n_rows.to_string(),
            reading.verdict(),
        ]
    });
    let head = head.map(str::to_owned).to_vec();
    markdown(std::iter::once(head).chain(lines).collect())
}
