//! `beear scan`: how near a model is to misbehaviour, without any trigger.

use std::path::PathBuf;

use anyhow::Result;
use beear_core::analysis::scan::ImplantConfig;
use beear_core::{Decoder, SafetyExample};
use burn::tensor::backend::Backend;
use clap::Args;

use super::{Device, Train};
use crate::backend::{ComputeBackend, width};
use crate::defence::anchors::fitted_and_held_out;
use crate::display::console::Console;
use crate::lab::model_scan::{ScanSettings, Subject};
use crate::lab::scan_calibration::Calibration;
use crate::lab::scan_report::{ScanReport, ScanSubject};
use crate::memory::anchor_memory::safety_row;
use crate::memory::plan::{Scan, SetShape};
use crate::memory::room::{MemoryArgs, Room};
use crate::model::Model;
use crate::model::hub::Needed;
use crate::model::loaded::Loaded;
use crate::options::scan_options::ScanOptions;
use crate::run_folder::RunFolder;
use crate::run_folder::hash::sha256_of_inputs;
use crate::user_error::UserError;

/// Searches for the smallest change that makes a model misbehave, without any trigger.
///
/// Two searches fit to one half of the prompts and are measured on the other half. The first finds,
/// layer by layer, the minimal norm of a perturbation of the hidden states. The second finds tokens
/// that have the same effect when written before or after the prompt. With a clean reference, it
/// searches for tokens that move the model and not the reference: those are often the trigger. No
/// score is a verdict; `--calibration` shows how clean and backdoored models of known state score.
/// `OUT/report.html` has the curves, `OUT/scan.json` every number.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScanArgs {
    /// Model folder to scan, in Hugging Face form, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// Clean model of the same shape and tokens, such as the base of the fine-tuning.
    #[arg(long, value_name = "DIR|NAME")]
    reference: Option<PathBuf>,
    /// Forbidden prompts with their unwanted answers, as for `defend`.
    #[arg(long, value_name = "FILE")]
    safety: PathBuf,
    /// `models.jsonl` of a `calibrate` run to compare the scores with; repeated for several.
    #[arg(long, value_name = "FILE")]
    calibration: Vec<PathBuf>,
    #[command(flatten)]
    options: ScanOptions,
    /// Built-in prompt format, instead of the chat template.
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Folder for the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an older run in that folder.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run<C: ComputeBackend>(
    args: &ScanArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let find = |name: &PathBuf| Model::find(name, Needed::Everything, console);
    let (model, reference) = (find(&args.model)?, args.reference.as_ref().map(find).transpose()?);
    let folders = model.folders().chain(reference.iter().flat_map(Model::folders));
    let named = args.calibration.iter().map(|file| ("--calibration", file.as_path()));
    let files: Vec<_> = [("--safety", args.safety.as_path())].into_iter().chain(named).collect();
    let inputs: Vec<_> = folders.chain(files.iter().map(|(_, file)| *file)).collect();
    let mut folder = RunFolder::reserve(&args.out, args.force, &inputs)?;
    let read = |model: &Model| Loaded::<Train<C>>::read(model, args.format.as_deref(), device);
    let (loaded, reference) = (read(&model)?, reference.as_ref().map(read).transpose()?);
    if let Some(reference) = &reference {
        comparable(&loaded, reference)?;
    }
    let settings = args.options.settings(loaded.model.size())?;
    let calibration = Calibration::read_all(&args.calibration)?.scanned(&settings)?;
    let limit = loaded.checkpoint.config.max_seq_length;
    let sets = fitted_and_held_out(&args.safety, (&loaded.text, limit), settings.n_prompts)?;
    room_for_tokens(&sets, &settings, limit)?;
    let scan = Scan {
        config: &loaded.checkpoint.config,
        set: SetShape::longest(sets.iter().flatten().map(safety_row)),
        settings: &settings,
        n_models: 1 + usize::from(reference.is_some()),
        width: width::<C>(),
    };
    let room = args.memory.room_beside::<C>(scan.standing(), device)?;
    let rows_at_once = rows_at_once(scan, room, console)?;
    let subject = Subject {
        model: &loaded.model,
        reference: reference.as_ref().map(|reference| &reference.model),
        text: &loaded.text,
        sets,
        rows_at_once,
    };
    let bar = console.bar("scanning", settings.n_parts());
    let found = subject.scan(&settings, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let name = |path: &PathBuf| path.display().to_string();
    let subject = ScanSubject {
        model: name(&args.model),
        reference: args.reference.as_ref().map(name),
        sha256: sha256_of_inputs(Some(&model), &files)?,
    };
    let report = ScanReport::new(subject, settings, found, &calibration);
    folder.start()?;
    folder.write("scan.json", serde_json::to_string_pretty(&report)? + "\n")?;
    folder.write("scan.md", report.text())?;
    folder.has_result()?;
    folder.write("report.html", report.page()?)?;
    console.result(&report.text(), &report)
}

/// Returns the number of a batch's rows that go through a model at a time.
fn rows_at_once(scan: Scan<'_>, room: Room, console: Console) -> Result<usize, UserError> {
    let plan = scan.plan(room.bytes);
    room.check_row(plan.phase.bytes.saturating_sub(scan.standing()), console)?;
    Ok(plan.rows)
}

/// Refuses a reference with other hidden states or tokens.
fn comparable<B: Backend>(model: &Loaded<B>, reference: &Loaded<B>) -> Result<()> {
    let refuse = |what: &str| {
        let hint = "the best reference is the model that the fine-tuning began with";
        Err(UserError::input(format!("the reference has {what} than the model"), hint).into())
    };
    if model.model.size() != reference.model.size() {
        refuse("another number of layers, or another width,")
    } else if model.text.vocabulary()?.tokens != reference.text.vocabulary()?.tokens {
        refuse("other tokens")
    } else {
        Ok(())
    }
}

/// Refuses rows that become too long for the model with the searched tokens.
fn room_for_tokens(
    sets: &[Vec<SafetyExample>; 2],
    settings: &ScanSettings,
    limit: usize,
) -> Result<(), UserError> {
    let ImplantConfig { n_tokens, target_tokens, .. } = settings.implant;
    let length =
        |row: &SafetyExample| row.prompt.len() + n_tokens + row.unwanted.len().min(target_tokens);
    match sets.iter().flatten().find(|row| length(row) > limit) {
        Some(row) => {
            let what = format!("row {} leaves no room for {n_tokens} more tokens", row.id);
            Err(UserError::input(what, "leave the row out, or say --tokens 0"))
        }
        None => Ok(()),
    }
}
