//! Our workloads and the same ones in PyTorch: runs of the two in alternation, and their ratios
//! with the spread.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

const MODELS: [&str; 3] = ["0.3M", "5M", "50M"];
const JOBS: [&str; 4] = ["train", "inner", "outer", "decode"];

/// Measuring time of a run in seconds, after its first call.
const SECONDS: &str = "2";

const USAGE: &str = "usage: cargo xtask bench PYTHON [RUNS [MODEL]]\nPYTHON has the packages of tests/goldens/requirements.txt";

/// Output of a run.
#[derive(Deserialize)]
struct Run {
    seconds: Vec<f64>,
    peak_bytes: u64,
    /// Peak memory before the first call: the program, its libraries and the weights.
    loaded_bytes: u64,
}

impl Run {
    fn of(mut command: Command) -> Result<Self> {
        let output = command.output().with_context(|| format!("{command:?}"))?;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?}"))
    }

    fn median(&self) -> f64 {
        median(self.seconds.clone())
    }

    /// Returns the memory that the calls added, in MiB.
    fn added_mib(&self) -> f64 {
        (self.peak_bytes - self.loaded_bytes) as f64 / f64::from(1 << 20)
    }

    fn peak_mib(&self) -> f64 {
        self.peak_bytes as f64 / f64::from(1 << 20)
    }
}

/// Prints a table of all workloads.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (python, runs, models) = match arguments {
        [python] => (python, 5, MODELS.to_vec()),
        [python, runs] => (python, runs.parse().context(USAGE)?, MODELS.to_vec()),
        [python, runs, model] => (python, runs.parse().context(USAGE)?, vec![model.as_str()]),
        _ => bail!("{USAGE}"),
    };
    let build =
        ["build", "--release", "--quiet", "--package", "beear-tests", "--example", "workload"];
    if !Command::new(env!("CARGO")).args(build).status()?.success() {
        bail!("the workloads do not build");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), Into::into);
    let ours = target.join("release/examples/workload");
    let theirs = root.join("tests/benches/pytorch/pytorch_beear.py");
    println!(
        "| model | job | ours, ms | PyTorch, ms | PyTorch / ours | spread | ours, MiB | PyTorch, MiB |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for model in models {
        for job in JOBS {
            let mut pairs = Vec::new();
            for _ in 0..runs {
                let mut command = Command::new(&ours);
                command.args([model, job, SECONDS]);
                let mine = Run::of(command)?;
                let mut command = Command::new(python);
                command.arg(&theirs).args([model, job, SECONDS]);
                pairs.push((mine, Run::of(command)?));
            }
            println!("{}", row(model, job, &pairs));
        }
    }
    Ok(())
}

fn row(model: &str, job: &str, pairs: &[(Run, Run)]) -> String {
    let of = |number: &dyn Fn(&(Run, Run)) -> f64| median(pairs.iter().map(number).collect());
    let ratios: Vec<f64> =
        pairs.iter().map(|(ours, torch)| torch.median() / ours.median()).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!(
        "| {model} | {job} | {:.2} | {:.2} | {:.2} | {least:.2}–{most:.2} | {:.0} (+{:.0}) | {:.0} (+{:.0}) |",
        1e3 * of(&|(ours, _)| ours.median()),
        1e3 * of(&|(_, torch)| torch.median()),
        median(ratios),
        of(&|(ours, _)| ours.peak_mib()),
        of(&|(ours, _)| ours.added_mib()),
        of(&|(_, torch)| torch.peak_mib()),
        of(&|(_, torch)| torch.added_mib()),
    )
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
