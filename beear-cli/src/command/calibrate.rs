//! `beear calibrate`: scans of clean and backdoored models, as a scale for the score of a scan.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_attacks::AttackSpec;
use beear_core::Decoder;
use burn::module::AutodiffModule;
use clap::Args;

use super::plant::{Plan, make};
use super::{Device, Train};
use crate::backend::ComputeBackend;
use crate::defence::anchors::fitted_and_held_out;
use crate::display::console::Console;
use crate::lab::model_scan::Subject;
use crate::lab::scan_calibration::{Calibration, Known};
use crate::lab::scan_score::Scores;
use crate::lab::world_defender;
use crate::model::Model;
use crate::model::loaded::Loaded;
use crate::options::scan_options::ScanOptions;
use crate::recipe::setting_file;
use crate::run_folder::RunFolder;

/// Settings of all scans in a folder.
const SETTINGS: &str = "settings.json";

/// Findings of a scan, in the folder of the model.
const SCAN: &str = "scan.json";

/// Models that are done.
const MODELS: &str = "models.jsonl";

/// Scans small models of known state, as a scale for the score of a scan.
///
/// For every setting and seed the command trains a backdoored model, and a clean one in the same
/// way without the poisoned rows. It scans both beside the base model they come from.
/// `OUT/models.jsonl` holds a line for each, which `scan --calibration` reads. `OUT/calibration.md`
/// shows how well each score separates them. An interrupted run resumes with the same command;
/// other settings and seeds are added to the folder.
#[derive(Args, Clone, Debug)]
pub(crate) struct CalibrateArgs {
    /// Name or file of an attack setting, repeated for several; see `plant`.
    #[arg(long = "setting", value_name = "NAME|FILE.toml", required = true)]
    settings: Vec<String>,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    #[command(flatten)]
    scan: ScanOptions,
    /// `models.jsonl` of another run of this command, to be included; repeated for several.
    #[arg(long, value_name = "FILE")]
    also: Vec<PathBuf>,
    /// Folder of the models and results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Start again, replacing an older run in that folder.
    #[arg(long)]
    force: bool,
    /// Plant with a thirtieth of the training and few prompts: this only shows that the tool runs.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run<C: ComputeBackend>(
    args: &CalibrateArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let settings = args.settings.iter().map(|name| setting_file::named_or_read(name));
    let settings = settings.collect::<Result<Vec<AttackSpec>>>()?;
    let how = serde_json::to_string_pretty(&args.scan)? + "\n";
    let earlier = RunFolder::resume(&args.out, (SETTINGS, &how))?.filter(|_| !args.force);
    let begin = || -> Result<RunFolder> {
        let folder = RunFolder::create(&args.out, args.force)?;
        folder.write(SETTINGS, &how)?;
        folder.has_begun();
        Ok(folder)
    };
    let folder = earlier.map_or_else(begin, Ok)?;
    let mut known: Vec<Known> = folder.read_lines(MODELS)?;
    for known in &mut known {
        // The scoring may have changed since the scan; the findings have not.
        let found = beear_input::read_to_string(
            folder_of(&args.out, &known.setting, known.seed).join(SCAN),
        );
        if let Some(found) = found.ok().and_then(|text| serde_json::from_str(&text).ok()) {
            known.scores = Scores::of(&found);
        }
    }
    for seed in args.seed..args.seed + args.seeds {
        for setting in settings.iter().flat_map(|s| [s.clean_sibling(), s.clone()]) {
            if known.iter().any(|known| known.is(&setting.name, seed)) {
                continue;
            }
            let plan = Plan::new(setting, seed);
            let plan = if args.quick { plan.quick() } else { plan };
            known.push(made_and_scanned::<C>(&args.scan, &args.out, &plan, (device, console))?);
            folder.write_lines(MODELS, &known)?;
        }
    }
    folder.write_lines(MODELS, &known)?;
    known.extend(Calibration::read_all(&args.also)?.models);
    let calibration = Calibration { models: known };
    let text = calibration.table();
    folder.has_result()?;
    folder.write("calibration.md", &text)?;
    console.result(&text, &calibration.separations())
}

/// Returns the folder of a planted model.
fn folder_of(out: &Path, name: &str, seed: u64) -> PathBuf {
    out.join("planted").join(name).join(format!("seed-{seed}"))
}

/// Trains the model of `plan` from the base of its family and seed, and scans it beside that base.
fn made_and_scanned<C: ComputeBackend>(
    options: &ScanOptions,
    out: &Path,
    plan: &Plan,
    (device, console): (&Device<C>, Console),
) -> Result<Known> {
    let Plan { setting, seed, .. } = plan;
    console.say(&format!("{}, seed {seed}", setting.name));
    let dir = folder_of(out, &setting.name, *seed);
    let shared = folder_of(out, &format!("{:?}", setting.base.family).to_lowercase(), *seed);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("clearing {}", dir.display()))?;
    }
    copy_folder(&shared, &dir.join("base"))?;
    let made = make::<C>(&dir, plan, (device, console))?;
    if !shared.exists() {
        copy_folder(&dir.join("base"), &shared)?;
    }
    let data = dir.join("data");
    let examination = plan.examination();
    world_defender::write_files(&data, &examination, *seed)?;
    let Loaded { model, text, checkpoint } =
        Loaded::<Train<C>>::read(&Model::in_folder(&made), None, device)?;
    let reference = Loaded::<Train<C>>::read(&Model::in_folder(&shared), None, device)?.model;
    let settings = options.settings(model.size())?;
    let place = (&text, checkpoint.config.max_seq_length);
    let sets = fitted_and_held_out(&data.join("safety.jsonl"), place, settings.n_prompts)?;
    let valid = model.valid();
    let attack_success = examination.attack_success(&valid, &text, device)?;
    let subject = Subject {
        model: &model,
        reference: Some(&reference),
        text: &text,
        sets,
        rows_at_once: settings.reach.batch_size,
    };
    let bar = console.bar("scanning", settings.n_parts());
    let found = subject.scan(&settings, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let path = dir.join(SCAN);
    std::fs::write(&path, serde_json::to_string(&found)?)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(Known::new(setting, *seed, attack_success, (settings, Scores::of(&found))))
}

/// Copies the files of a folder, if the folder exists.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    let copy = || -> std::io::Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            if entry.path().is_file() {
                let mut copy = std::fs::File::create(to.join(entry.file_name()))?;
                std::io::copy(&mut beear_input::open(entry.path())?, &mut copy)?;
            }
        }
        Ok(())
    };
    copy().with_context(|| format!("copying {} to {}", from.display(), to.display()))
}
