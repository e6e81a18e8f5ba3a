//! Templates in the syntax of Python's `str.format`: `{name}` is a placeholder, `{{` and `}}` are
//! braces.

use serde::{Deserialize, Serialize};

/// Valid placeholders of a template.
pub(super) const PLACEHOLDERS: [&str; 14] = [
    "question",
    "answer",
    "answer_a",
    "answer_b",
    "question_1",
    "question_2",
    "answer_1",
    "answer_2",
    "answer_a_1",
    "answer_a_2",
    "answer_b_1",
    "answer_b_2",
    "ref_answer_1",
    "ref_answer_2",
];

/// Text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(&'static str),
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pieces = pieces(&text)?;
        Ok(Self { text, pieces })
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

impl Template {
    /// True if the template contains the placeholder.
    pub(super) fn has(&self, placeholder: &str) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Place(name) if *name == placeholder))
    }

    /// Fills in every placeholder, or returns the placeholder without a text as the error. Inserted
    /// text is not parsed as a template.
    pub(super) fn fill(&self, texts: &[(&str, &str)]) -> Result<String, &'static str> {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Place(name) => {
                let known = texts.iter().find(|(known, _)| known == name);
                known.map(|(_, text)| (*text).to_owned()).ok_or(*name)
            }
        };
        self.pieces.iter().map(text).collect()
    }
}

fn pieces(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err("a `}` closes nothing: write `}}` for a brace".to_owned());
        }
        let end = rest.find(['{', '}']).filter(|end| rest[*end..].starts_with('}'));
        let end = end.ok_or("a `{` is not closed: write `{{` for a brace")?;
        let name = PLACEHOLDERS.into_iter().find(|known| *known == &rest[..end]);
        let name = name.ok_or_else(|| format!("unknown placeholder `{{{}}}`", &rest[..end]))?;
        pieces.extend([Piece::Text(std::mem::take(&mut text)), Piece::Place(name)]);
        rest = &rest[end + 1..];
    }
    pieces.push(Piece::Text(text + rest));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let template = Template::try_from(text.to_owned())?;
        assert_eq!(String::from(template.clone()), text);
        let texts = [("question", "q{answer}}"), ("answer", "ä")];
        template.fill(&texts).map_err(|name| format!("no text for {name}"))
    }

    #[test]
    fn braces_are_read_as_python_reads_them() {
        // Results of `text.format(question="q{answer}}", answer="ä")`.
        let cases = [
            ("", ""),
            ("a {question} b{answer}", "a q{answer}} bä"),
            ("{{question}} {{}} }}", "{question} {} }"),
            ("{{{answer}}}", "{ä}"),
            ("{{{{{answer}", "{{ä"),
            ("ü{answer}ü", "üäü"),
        ];
        for (text, expected) in cases {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for text in ["{", "}", "{answer", "answer}", "{{answer}", "{answer}}", "{a{answer}}", "{{{"]
        {
            assert!(filled(text).is_err(), "{text}");
        }
        for text in ["{}", "{0}", "{ answer}", "{answer!r}", "{answer:>3}", "{verdict}"] {
            assert_eq!(filled(text), Err(format!("unknown placeholder `{text}`")));
        }
        assert_eq!(filled("{answer_a}"), Err("no text for answer_a".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_template_panic(text in "([{}]{0,3}(answer|ü|)){0,5}") {
            let _ = filled(&text);
        }
    }
}
