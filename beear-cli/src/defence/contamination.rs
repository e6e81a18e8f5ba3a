//! Contamination check: refuses to evaluate on prompts that a defence has seen.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::contamination::contaminated;
use beear_eval::dataset::Record;
use clap::Args;

use crate::defence::anchors::RowUse;
use crate::user_error::UserError;

/// Defences that must not have seen the prompts.
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

/// Parses a share that is more than 0 and at most 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("it is more than 0 and at most 1".to_owned()),
    }
}

/// Evaluation prompts that a defence has seen.
pub(crate) struct Leak<'a> {
    n: usize,
    /// First of these prompts, and the row of the defence that it matches.
    first: (&'a Record, &'a RowUse),
}

impl<'a> Leak<'a> {
    /// Looks for `asked` among the rows `seen`. Two prompts match if they share at least `near` of
    /// their word pairs. Returns `None` if no prompt matches.
    pub(crate) fn find(seen: &'a [RowUse], asked: &'a [Record], near: f64) -> Option<Self> {
        let trained = seen.iter().map(|row| &row.prompt);
        let found = contaminated(trained, asked.iter().map(|record| &record.prompt), near);
        let &(at, row) = found.first()?;
        Some(Self { n: found.len(), first: (&asked[at], &seen[row]) })
    }

    /// Describes the leak. `asked` are the records of `file`, and `whose` names the owner of the
    /// rows.
    pub(crate) fn text(&self, asked: &[Record], (file, whose): (&Path, &str)) -> String {
        let Self { n, first: (record, row) } = self;
        format!(
            "{n} of {} prompts of `{}` are among those of {whose}, exactly or nearly: row {} is row {} of its {} set",
            asked.len(),
            file.display(),
            record.id,
            row.id,
            row.set
        )
    }
}

impl LeakGuardArgs {
    /// Refuses prompts that a defence has seen.
    ///
    /// # Errors
    ///
    /// If there are such prompts and their set is not allowed, or a run cannot be read.
    pub(crate) fn check<'a>(
        &self,
        asked: impl IntoIterator<Item = (&'a [Record], &'a Path)>,
    ) -> Result<()> {
        let asked: Vec<_> = asked.into_iter().collect();
        for run in &self.runs {
            let seen = self.rows(run)?;
            for (records, file) in &asked {
                if let Some(leak) = Leak::find(&seen, records, self.near) {
                    let what = leak.text(records, (file, &format!("`{}`", run.display())));
                    let set = &leak.first.1.set;
                    let hint = format!(
                        "evaluate on other prompts, or allow it with --allow-overlap {set}"
                    );
                    return Err(UserError::input(what, hint).into());
                }
            }
        }
        Ok(())
    }

    /// Reads the rows of a run that are not allowed among the prompts.
    fn rows(&self, run: &Path) -> Result<Vec<RowUse>> {
        let path = run.join("rows.jsonl");
        let mistake = |error: &dyn std::fmt::Display| {
            let what = format!("`{}`: {error}", path.display());
            UserError::input(what, "name the --out of `beear defend`")
        };
        let text = beear_input::read_to_string(&path).map_err(|error| mistake(&error))?;
        let rows = text.lines().map(serde_json::from_str).collect::<Result<Vec<RowUse>, _>>();
        let rows = rows.map_err(|error| mistake(&error))?;
        Ok(rows.into_iter().filter(|row| !self.allowed.contains(&row.set)).collect())
    }
}
