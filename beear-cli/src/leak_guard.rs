//! The leak guard: prompts that a defence has seen are not evaluated on.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::dataset::Record;
use beear_eval::overlap::overlaps;
use clap::Args;
use serde::Deserialize;

use crate::exit::Mistake;

/// Which defence must not have seen the prompts.
#[derive(Args, Clone, Debug)]
pub(crate) struct LeakGuardArgs {
    /// Run of `defend` whose rows must not be among the prompts, exactly or nearly; repeated for
    /// several.
    #[arg(long = "defence", value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Set of those runs that may be among the prompts all the same: `safety` or `performance`.
    #[arg(long = "allow-overlap", value_name = "SET", requires = "runs")]
    allowed: Vec<String>,
    /// Share of word pairs in common from which two prompts are the same.
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, value_parser = share)]
    near: f64,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("it is more than 0 and at most 1".to_owned()),
    }
}

/// A row that a defence has used; see `defend`'s `rows.jsonl`.
#[derive(Deserialize)]
struct Used {
    set: String,
    id: u64,
    prompt: String,
}

impl LeakGuardArgs {
    /// Refuses prompts that a defence has seen.
    ///
    /// # Errors
    ///
    /// If there are any that are not allowed, or a run cannot be read.
    pub(crate) fn check<'a>(
        &self,
        asked: impl IntoIterator<Item = (&'a [Record], &'a Path)>,
    ) -> Result<()> {
        let asked: Vec<_> = asked.into_iter().collect();
        for run in &self.runs {
            let used = self.rows(run)?;
            let known: Vec<String> = used.iter().map(|row| row.prompt.clone()).collect();
            for (records, file) in &asked {
                let prompts: Vec<String> = records.iter().map(|r| r.prompt.clone()).collect();
                let leaks = overlaps(&known, &prompts, self.near);
                if let Some(&(asked, seen)) = leaks.first() {
                    let seen = &used[seen];
                    let (n, row) = (leaks.len(), records[asked].id);
                    let what = format!(
                        "{n} of {} prompts of `{}` are among those of `{}`, exactly or nearly: row \
                         {row} is row {} of its {} set",
                        records.len(),
                        file.display(),
                        run.display(),
                        seen.id,
                        seen.set
                    );
                    let hint = format!(
                        "evaluate on other prompts, or allow it with --allow-overlap {}",
                        seen.set
                    );
                    return Err(Mistake::input(what, hint).into());
                }
            }
        }
        Ok(())
    }

    /// The rows of a run that are not allowed among the prompts.
    fn rows(&self, run: &Path) -> Result<Vec<Used>> {
        let path = run.join("rows.jsonl");
        let mistake = |error: &dyn std::fmt::Display| {
            let what = format!("`{}`: {error}", path.display());
            Mistake::input(what, "name the --out of `beear defend`")
        };
        let text = std::fs::read_to_string(&path).map_err(|error| mistake(&error))?;
        let rows = text.lines().map(serde_json::from_str).collect::<Result<Vec<Used>, _>>();
        let rows = rows.map_err(|error| mistake(&error))?;
        Ok(rows.into_iter().filter(|row| !self.allowed.contains(&row.set)).collect())
    }
}
