//! Chat templates, rendered as in `transformers`.

mod limits;

use std::io::{self, Write};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};

use limits::Limited;

/// Message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Role, `system`, `user` or `assistant`.
    pub role: String,
    /// Text of the message.
    pub content: String,
}

impl Message {
    /// Creates a message of the user.
    #[must_use]
    pub fn user(content: &str) -> Self {
        Self { role: "user".to_owned(), content: content.to_owned() }
    }

    /// Creates an answer of the assistant.
    #[must_use]
    pub fn assistant(content: &str) -> Self {
        Self { role: "assistant".to_owned(), content: content.to_owned() }
    }

    /// Creates a system prompt.
    #[must_use]
    pub fn system(content: &str) -> Self {
        Self { role: "system".to_owned(), content: content.to_owned() }
    }
}

/// Chat template in the syntax of the template engine.
pub(crate) struct TemplateSource(String);

impl TemplateSource {
    pub(crate) fn new(template: &str) -> Self {
        Self(neutralise_generation_tags(template))
    }
}

/// Renderer of one chat template, which is compiled once.
pub(crate) struct Renderer<'t> {
    /// Engine with the compiled template, or the error of the template.
    environment: Result<Environment<'t>, String>,
}

/// Name of the template in the engine.
const NAME: &str = "<string>";

impl<'t> Renderer<'t> {
    pub(crate) fn new(TemplateSource(template): &'t TemplateSource) -> Self {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        limits::set(&mut environment);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format));
        environment.add_filter("tojson", to_json);
        // Python's answers: a string is a sequence, and none cannot be iterated over.
        environment.add_test("iterable", |value: Value| is_iterable(&value));
        environment.add_test("sequence", |value: Value| is_iterable(&value));
        let added = environment.add_template(NAME, template);
        Self { environment: added.map(|()| environment).map_err(|error| error.to_string()) }
    }

    /// Renders `messages`, and the start of the assistant's answer if `is_prompt`.
    ///
    /// # Errors
    ///
    /// Returns an error if the template refuses the messages, is malformed, or exceeds its limits.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        [bos, eos]: [&str; 2],
        is_prompt: bool,
    ) -> Result<String, String> {
        let context = minijinja::context! {
            messages, bos_token => bos, eos_token => eos, add_generation_prompt => is_prompt,
            tools => (), documents => (),
        };
        let mut output = Limited::default();
        let template = self.environment.as_ref()?.get_template(NAME);
        let rendered =
            template.and_then(|t| t.render_captured_to(context, &mut output).map(|_| ()));
        rendered.map_err(|error| error.to_string())?;
        String::from_utf8(output.0).map_err(|error| format!("output is not text: {error}"))
    }
}

fn is_iterable(value: &Value) -> bool {
    use ValueKind::{Bytes, Iterable, Map, Seq, String};
    matches!(value.kind(), Bytes | Iterable | Map | Seq | String)
}

/// Formats one fixed day like `strftime`: 26 July 2024, midnight, because a prompt that changes
/// every day would not be reproducible. Llama's templates use the same day without a clock.
fn strftime(format: &str) -> Result<String, Error> {
    let mut text = String::with_capacity(format.len());
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        text.push_str(match chars.next() {
            Some('d') => "26",
            Some('b') => "Jul",
            Some('B') => "July",
            Some('m') => "07",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('a') => "Fri",
            Some('A') => "Friday",
            Some('j') => "208",
            Some('H' | 'M' | 'S') => "00",
            Some('F') => "2024-07-26",
            Some('T') => "00:00:00",
            Some('%') => "%",
            _ => {
                let message = format!("strftime_now does not know the format {format}");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        });
    }
    Ok(text)
}

/// Formats JSON like Python, without escapes for HTML, optionally indented.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let mut json = Vec::new();
    let written = match options.get::<Option<usize>>("indent")? {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, Spaced)),
    };
    let failed = |e: String| Error::new(ErrorKind::BadSerialization, e);
    written.map_err(|e| failed(e.to_string()))?;
    String::from_utf8(json).map_err(|e| failed(e.to_string()))
}

/// Formatter with Python's default separators, `, ` and `: `.
struct Spaced;

impl Spaced {
    fn separate<W: ?Sized + Write>(writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
}

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        Self::separate(w, first)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        Self::separate(w, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

/// Replaces `{% generation %}`, which marks the assistant's part for training and renders nothing,
/// with a block that always renders, so that its effect on the surrounding white space remains.
fn neutralise_generation_tags(template: &str) -> String {
    let mut kept = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let end = start + length + 2;
        let inside = rest.get(start + 2..end - 2).unwrap_or_default();
        let word = inside.trim_matches(|c: char| "+-".contains(c) || c.is_whitespace());
        let block = match word {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        match block {
            Some(block) => {
                kept.push_str(&rest[..start + 2]);
                kept.push_str(&inside.replacen(word, block, 1));
                kept.push_str("%}");
            }
            None => kept.push_str(&rest[..end]),
        }
        rest = &rest[end..];
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutated::near;
    use crate::text::large_stack;

    fn rendered(template: &str) -> Result<String, String> {
        let source = TemplateSource::new(template);
        let render =
            || Renderer::new(&source).render(&[Message::user("hi <b>")], ["<s>", "</s>"], true);
        large_stack::run(render).unwrap_or_else(|| Err("the engine panics".to_owned()))
    }

    #[test]
    fn tests_of_jinja_answer_as_in_python() {
        for (test, expected) in [
            ("none is iterable", "no"),
            ("none is sequence", "no"),
            ("'text' is sequence", "yes"),
            ("'text' is iterable", "yes"),
            ("messages is sequence", "yes"),
            ("messages[0] is mapping", "yes"),
            ("7 is iterable", "no"),
            ("tools is iterable and tools | length > 0", "no"),
        ] {
            let template = format!("{{{{ 'yes' if {test} else 'no' }}}}");
            assert_eq!(rendered(&template).unwrap(), expected, "{test}");
        }
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
        assert!(error.contains("roles must alternate"), "{error}");
    }

    #[test]
    fn a_template_that_does_not_end_runs_out_of_fuel() {
        let template =
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(rendered(template).unwrap_err().contains("fuel"));
    }

    #[test]
    fn generation_tags_trim_as_other_tags_do() {
        let tagged = "a\n  {% generation %}\nb\n  {%- endgeneration %}\nc";
        let plain = "a\n  {% if 1 %}\nb\n  {%- endif %}\nc";
        assert_eq!(rendered(tagged).unwrap(), rendered(plain).unwrap());
        assert_eq!(rendered(tagged).unwrap(), "a\nbc");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let template = "{{ {'a': [1, 2], 'b': none} | tojson }}";
        assert_eq!(rendered(template).unwrap(), r#"{"a": [1, 2], "b": null}"#);
        assert_eq!(rendered("{{ [1] | tojson(indent=2) }}").unwrap(), "[\n  1\n]");
    }

    #[test]
    fn the_date_is_always_the_same_day() {
        let template = "{{ strftime_now('%d %b %Y') if strftime_now is defined else 'none' }}";
        assert_eq!(rendered(template).unwrap(), "26 Jul 2024");
        assert!(rendered("{{ strftime_now('%Q') }}").is_err());
    }

    #[test]
    fn a_template_sees_that_there_are_no_tools() {
        assert_eq!(rendered("{{ tools is none }} {{ tools is defined }}").unwrap(), "True True");
    }

    #[test]
    fn a_template_that_writes_without_end_is_stopped() {
        let template = "{% for a in range(99) %}{{ 'x' * 1000000 }}{% endfor %}";
        assert!(rendered(template).is_err());
    }

    #[test]
    fn a_template_that_calls_itself_without_end_is_stopped() {
        for template in [
            "{% macro again(n) %}{{ again(n) }}{% endmacro %}{{ again(1) }}",
            "{% for m in [[[]]] recursive %}{{ loop([m]) }}{% endfor %}",
        ] {
            assert!(rendered(template).is_err(), "{template}");
        }
    }

    #[test]
    fn a_list_may_be_as_deep_as_the_fuel_lasts() {
        let template = "{% set ns = namespace(a=[]) %}{% for i in range(99999) %}\
            {% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}";
        assert_eq!(rendered(template).unwrap().len(), 2 * 100_000);
    }

    #[test]
    fn what_the_engine_cannot_do_is_an_error() {
        // The engine splits field names in the middle of a multi-byte character.
        assert!(rendered("{{ '{é}'.format(1) }}").is_err());
    }

    #[test]
    fn a_role_that_is_not_there_is_an_error_not_a_panic() {
        assert!(rendered("{{ messages[0].content.nothing() }}").is_err());
        assert!(rendered("{% if %}").is_err());
    }

    /// Constructs from the templates of published models, and some calls that no published template
    /// makes.
    const TEMPLATES: [&str; 4] = [
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}{% endif %}\
         {% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
         {{ raise_exception('roles') }}{% endif %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}\
         {% generation %}{{ message.content ~ eos_token }}{% endgeneration %}{% endfor %}",
        "{%- set ns = namespace(found=false, rows=[1]) -%}{%- macro shown(value, n=2) -%}{{ value | tojson(indent=n) }}\
         {%- endmacro -%}{%- for m in messages[1:] | reverse if loop.first or not ns.found -%}\
         {%- set ns.rows = ns.rows + [m.role | upper] -%}{{ shown(ns.rows) }}{%- break -%}{%- endfor -%}",
        "{{ strftime_now('%d %b %Y') }}{{ '%05.2f|%s' | format(1.5, 'x') }}{{ '{:>4}{}'.format(3, 'y') }}\
         {{ 'a,b'.split(',') | join('-') }}{{ range(0, 9, 2) | list | batch(2) | slice(2) | map('string') }}",
        "{{ 'aba'.replace('a', 'b') | replace('b', 'c') | indent(3) }}{{ 'aba'.count('a') }}{{ 'x' * 3 }}\
         {{ {'a': [1, 2.5, none]} | items | list | length }}{{ 'a'.title().find('A') }}{% call(x) range(2) %}{% endcall %}",
    ];

    proptest::proptest! {
        #[test]
        fn no_template_makes_the_renderer_panic(template in near(&TEMPLATES)) {
            let _ = rendered(&template);
        }

        #[test]
        fn no_tag_makes_the_renderer_panic(
            parts in proptest::collection::vec("\\{%-?|-?%\\}|generation|end|\\{\\{|\\}\\}|[ aé\\n]", 0..12)
        ) {
            let _ = rendered(&parts.concat());
        }
    }
}
