//! `beear scan`: how near a model is to misbehaving, without any trigger.

use std::path::PathBuf;

use anyhow::Result;
use beear_core::Decoder;
use clap::Args;

use super::scan_options::ScanOptions;
use super::{Device, Train};
use crate::anchors::fitted_and_held_out;
use crate::backend::ComputeBackend;
use crate::hub::Needed;
use crate::loaded::Loaded;
use crate::model::Model;
use crate::model_scan::Subject;
use crate::run_folder::RunFolder;
use crate::scan_calibration::Calibration;
use crate::scan_report::ScanReport;
use crate::ui::Ui;

/// Looks how little it takes to make a model misbehave, without any trigger.
///
/// Two searches, on prompts of which one half is fitted to and the other judged by: how long a perturbation of
/// the hidden states must be, layer by layer, and which tokens written before or after the prompt do the same.
/// With a clean reference, tokens are sought that move the model and not the reference: those are often the
/// trigger. No score is a verdict; `--calibration` says how clean and backdoored models of known state score.
/// `OUT/report.html` has the curves, `OUT/scan.json` every number.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScanArgs {
    /// Hugging Face folder to scan, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// Clean model of the same shape and tokens, such as the one that was fine-tuned.
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
    /// Folder for the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an older run in that folder.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run<C: ComputeBackend>(args: &ScanArgs, device: &Device<C>, ui: Ui) -> Result<()> {
    let find = |name: &PathBuf| Model::find(name, Needed::Everything, ui);
    let (model, reference) = (find(&args.model)?, args.reference.as_ref().map(find).transpose()?);
    let folders = model.folders().chain(reference.iter().flat_map(Model::folders));
    let files = [&args.safety].into_iter().chain(&args.calibration).map(PathBuf::as_path);
    let inputs: Vec<_> = folders.chain(files).collect();
    let mut folder = RunFolder::reserve(&args.out, args.force, &inputs)?;
    let loaded = Loaded::<Train<C>>::read(&model, None, device)?;
    let read = |model: &Model| Loaded::<Train<C>>::read(model, None, device);
    let reference = reference.as_ref().map(read).transpose()?;
    let settings = args.options.settings(loaded.model.size())?;
    let calibration = Calibration::read_all(&args.calibration)?.scanned(&settings)?;
    let place = (&loaded.text, loaded.checkpoint.config.max_seq_length);
    let subject = Subject {
        model: &loaded.model,
        reference: reference.as_ref().map(|reference| &reference.model),
        tokenizer: &loaded.text.tokenizer,
        sets: fitted_and_held_out(&args.safety, place, settings.n_prompts)?,
    };
    let bar = ui.bar("scanning", settings.n_parts());
    let found = subject.scan(&settings, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let name = |path: &PathBuf| path.display().to_string();
    let names = (name(&args.model), args.reference.as_ref().map(name));
    let report = ScanReport::new(names, settings, found, &calibration);
    folder.start()?;
    folder.write("scan.json", serde_json::to_string_pretty(&report)? + "\n")?;
    folder.write("scan.md", report.text())?;
    folder.write("report.html", report.page()?)?;
    ui.result(&report.text(), &report)
}
