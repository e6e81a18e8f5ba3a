//! Tables of forbidden prompts: `AdvBench`, `HarmBench` and `StrongREJECT`.

use csv::StringRecord;

use super::Record;

/// Column indices of a table.
struct Columns {
    prompt: usize,
    /// Answer that an attacker wants.
    unwanted: Option<usize>,
    /// Text that the prompt refers to.
    context: Option<usize>,
    /// Name of the row.
    behaviour: Option<usize>,
}

impl Columns {
    /// Returns the columns of a supported table; None if the header is unknown.
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

/// Parses the rows of a CSV file; None if its header is unknown.
///
/// # Errors
///
/// Returns the number of a malformed row, from 1, and its problem.
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
