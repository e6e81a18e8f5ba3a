//! Chat templates, rendered as `transformers` renders them.

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// A turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of the user.
    #[must_use]
    pub fn user(content: &str) -> Self {
        Self { role: "user".to_owned(), content: content.to_owned() }
    }
}

/// Instructions a template may take: a template is code from a checkpoint.
const FUEL: u64 = 1_000_000;

/// Renders `template` up to where the assistant's answer begins.
pub(crate) fn render(
    template: &str,
    messages: &[Message],
    [bos, eos]: [&str; 2],
) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter("tojson", |value: Value| -> Result<String, Error> {
        serde_json::to_string(&value)
            .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
    });
    let template = strip_generation_tags(template);
    let context = minijinja::context! {
        messages, bos_token => bos, eos_token => eos, add_generation_prompt => true,
    };
    environment.render_str(&template, context)
}

/// `{% generation %}` marks the assistant's part for training; it renders nothing.
fn strip_generation_tags(template: &str) -> String {
    let mut kept = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let end = start + length + 2;
        let inside = rest[start + 2..end - 2].trim_matches(|c: char| c == '-' || c.is_whitespace());
        let keep = if matches!(inside, "generation" | "endgeneration") { start } else { end };
        kept.push_str(&rest[..keep]);
        rest = &rest[end..];
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> Result<String, Error> {
        render(template, &[Message::user("hi <b>")], ["<s>", "</s>"])
    }

    #[test]
    fn python_methods_and_generation_tags_are_understood() {
        let template = "{{ bos_token }}{% for m in messages %}{% generation %}\
            {{ m['content'].strip().upper() }}{%- endgeneration %}{% endfor %}";
        assert_eq!(rendered(template).unwrap(), "<s>HI <B>");
    }

    #[test]
    fn json_is_not_escaped_for_html() {
        assert_eq!(rendered("{{ messages[0].content | tojson }}").unwrap(), "\"hi <b>\"");
    }

    #[test]
    fn a_template_may_refuse() {
        let error = rendered("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(error.to_string().contains("roles must alternate"));
    }

    #[test]
    fn a_template_that_does_not_end_runs_out_of_fuel() {
        let template =
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert_eq!(rendered(template).unwrap_err().kind(), ErrorKind::OutOfFuel);
    }
}
