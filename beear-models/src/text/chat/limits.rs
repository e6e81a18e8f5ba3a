//! Limits of the template engine: a chat template is code from a checkpoint. Instructions and
//! output are limited, and so are functions whose result is as large as an argument requests.
//!
//! These limits turn most attacks into an error that names the line of the template. They bound
//! neither time nor memory: one instruction may sort 99 999 numbers, and a repeatedly doubled
//! string need not be output. Time and memory are bounded by the process that renders, which an
//! implementation of [`TextEngine`](crate::TextEngine) may start.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Rest, StringInput, Value};
use minijinja::{Environment, Error, ErrorKind, State, filters, functions};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Maximum number of instructions of a template.
const FUEL: u64 = 1_000_000;

/// Maximum number of bytes that a template may output.
const MAX_OUTPUT: usize = 16 << 20;

/// Maximum count argument of functions that repeat or generate values.
const MAX_COUNT: usize = 100_000;

/// Maximum number of digits of a number in a format.
const MAX_DIGITS: usize = 4;

/// Sets the limits, and Python's methods within them.
pub(super) fn set(environment: &mut Environment) {
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.add_function("range", range);
    environment.add_filter(
        "batch",
        |state: &State, value: Value, count: usize, filler: Option<Value>| {
            filters::batch(state, value, within(count)?, filler)
        },
    );
    environment.add_filter(
        "slice",
        |state: &State, value: Value, count: usize, filler: Option<Value>| {
            filters::slice(state, value, within(count)?, filler)
        },
    );
    environment.add_filter("indent", indent);
    environment.add_filter("format", |state: &State, format: &Value, values: Rest<Value>| {
        check_format(format.as_str().unwrap_or_default())?;
        filters::format(state, format, values)
    });
    environment.add_filter(
        "replace",
        |state: &State, text: StringInput<'_>, from: StringInput<'_>, to: StringInput<'_>| {
            check_replacement(text.as_str(), to.as_str())?;
            filters::replace(state, text, from, to)
        },
    );
}

/// Writer that returns an error beyond the maximum output of a template.
#[derive(Default)]
pub(super) struct Limited(pub(super) Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("more than {MAX_OUTPUT} bytes of output")));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn too_much() -> Error {
    Error::new(ErrorKind::InvalidOperation, "the template asks for too much of something")
}

fn within(count: usize) -> Result<usize, Error> {
    if count <= MAX_COUNT { Ok(count) } else { Err(too_much()) }
}

fn range(lower: isize, upper: Option<isize>, step: Option<isize>) -> Result<Value, Error> {
    for number in [Some(lower), upper, step].into_iter().flatten() {
        within(number.unsigned_abs())?;
    }
    functions::range(lower, upper, step)
}

fn indent(
    text: StringInput<'_>,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<Value, Error> {
    let widths = [width, named.peek::<Option<usize>>("width").ok().flatten()];
    let n_lines = text.as_str().lines().count();
    for width in widths.into_iter().flatten() {
        within(width.saturating_mul(n_lines))?;
    }
    filters::indent(text, width, first, blank, named)
}

/// Checks a format string in either of Python's format syntaxes; wide fields are an error.
fn check_format(format: &str) -> Result<(), Error> {
    let mut numbers = format.split(|c: char| !c.is_ascii_digit());
    if numbers.any(|number| number.len() > MAX_DIGITS) { Err(too_much()) } else { Ok(()) }
}

/// Checks that the result of a replacement fits into the maximum output.
fn check_replacement(text: &str, to: &str) -> Result<(), Error> {
    let longest = (text.len() + 1).saturating_mul(to.len());
    if longest <= MAX_OUTPUT { Ok(()) } else { Err(too_much()) }
}

/// Calls a method of Python.
fn method(state: &State, value: &Value, name: &str, values: &[Value]) -> Result<Value, Error> {
    let argument = |at: usize| values.get(at).and_then(Value::as_str);
    match (name, value.as_str()) {
        // The engine would search for an empty string forever.
        ("count", Some(text)) if argument(0) == Some("") => {
            return Ok(Value::from(text.chars().count() + 1));
        }
        ("format", Some(format)) => check_format(format)?,
        ("replace", Some(text)) => check_replacement(text, argument(1).unwrap_or_default())?,
        _ => {}
    }
    unknown_method_callback(state, value, name, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> Result<String, Error> {
        let mut environment = Environment::new();
        set(&mut environment);
        let mut output = Limited::default();
        environment.template_from_str(template)?.render_captured_to((), &mut output)?;
        Ok(String::from_utf8(output.0).unwrap())
    }

    #[test]
    fn what_asks_for_too_much_is_refused_at_once() {
        for template in [
            "{{ range(-9223372036854775807 - 1, 9, -1) }}",
            "{{ [1] | batch(1000000000000000000) }}",
            "{{ [1] | slice(1000000000000000000) }}",
            "{{ 'a' | indent(1000000000000000000) }}",
            "{{ 'a' | indent(width=1000000000000000000) }}",
            "{{ '%99999999d' | format(1) }}",
            "{{ '{:.99999f}'.format(1.5) }}",
            "{{ ('a' * 5000) | replace('', 'a' * 5000) }}",
            "{{ ('a' * 5000).replace('', 'a' * 5000) }}",
            "{{ 'a' * 20000000 }}",
        ] {
            assert!(rendered(template).is_err(), "{template}");
        }
    }

    #[test]
    fn what_asks_for_little_is_done_as_in_python() {
        for (template, expected) in [
            ("{{ range(4, 0, -2) | list }}", "[4, 2]"),
            ("{{ [1, 2, 3] | batch(2) | list }}", "[[1, 2], [3]]"),
            ("{{ [1, 2, 3] | slice(2) | list }}", "[[1, 2], [3]]"),
            ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
            ("{{ 'a' | indent(width=1, first=true) }}", " a"),
            ("{{ '%03d %s' | format(7, 'x') }}", "007 x"),
            ("{{ '{:>3} {}'.format(7, 'x') }}", "  7 x"),
            ("{{ 'aba' | replace('a', 'cc') }}", "ccbcc"),
            ("{{ 'aba'.replace('a', 'cc', 1) }}", "ccba"),
            ("{{ 'aba'.count('a') }} {{ 'aba'.count('') }}", "2 4"),
        ] {
            assert_eq!(rendered(template).unwrap(), expected, "{template}");
        }
    }
}
