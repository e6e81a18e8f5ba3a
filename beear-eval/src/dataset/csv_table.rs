//! Tables of forbidden prompts: `AdvBench`, `HarmBench` and `StrongREJECT`.

use csv::StringRecord;

use super::Record;

/// Which column holds what.
struct Columns {
    prompt: usize,
    /// The answer an attacker wants.
    unwanted: Option<usize>,
    /// What the prompt refers to.
    context: Option<usize>,
    /// What the row is called.
    behaviour: Option<usize>,
}

impl Columns {
    /// The columns of a table we know.
    fn of(headers: &StringRecord) -> Option<Self> {
        let column = |name: &str| headers.iter().position(|header| header == name);
        let prompts = |prompt| Self { prompt, unwanted: None, context: None, behaviour: None };
        if let (Some(prompt), Some(unwanted)) = (column("goal"), column("target")) {
            return Some(Self { unwanted: Some(unwanted), ..prompts(prompt) });
        }
        if let (Some(prompt), Some(behaviour)) = (column("Behavior"), column("BehaviorID")) {
            let (context, behaviour) = (column("ContextString"), Some(behaviour));
            return Some(Self { context, behaviour, ..prompts(prompt) });
        }
        column("forbidden_prompt").map(prompts)
    }

    fn record(&self, row: &StringRecord) -> Record {
        let cell = |column: usize| row.get(column).unwrap_or_default();
        let prompt = match self.context.map(cell) {
            Some(context) if !context.is_empty() => format!("{context}\n\n{}", cell(self.prompt)),
            _ => cell(self.prompt).to_owned(),
        };
        let unwanted = self.unwanted.map(|column| cell(column).to_owned());
        let behaviour = self.behaviour.map(|column| cell(column).to_owned());
        let behaviour = behaviour.filter(|behaviour| !behaviour.is_empty());
        Record { behaviour, prompt, unwanted, ..Record::default() }
    }
}

/// The rows of a CSV file, or nothing if its header is none that we know.
///
/// # Errors
///
/// The number of a malformed row, from 1, and what is wrong with it.
pub(super) fn records(text: &str) -> Result<Option<Vec<Record>>, (usize, String)> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let Some(columns) = reader.headers().ok().and_then(Columns::of) else { return Ok(None) };
    let record = |(row, parsed): (usize, csv::Result<StringRecord>)| match parsed {
        Ok(cells) => Ok(Record { id: row as u64, ..columns.record(&cells) }),
        Err(error) => Err((row, reason(&error))),
    };
    (1..).zip(reader.records()).map(record).collect::<Result<_, _>>().map(Some)
}

fn reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("fields: {len} instead of {expected_len}")
        }
        _ => error.to_string(),
    }
}
