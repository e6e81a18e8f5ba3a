//! A report as one HTML file that loads nothing. The template engine escapes the text of files.
//! Only charts are inserted as they are; they are drawn here or limited to harmless elements.

use anyhow::Result;
use beear_eval::Rate;
use minijinja::value::ViaDeserialize;
use minijinja::{AutoEscape, Environment, Value, context};
use serde::Serialize;

/// Colours and shapes of every page.
const STYLE: &str = include_str!("style.css");

/// A picture with a caption.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Text below the picture.
    pub(crate) caption: String,
    /// Harmless SVG text of the picture.
    pub(crate) svg: String,
}

/// Renders the report of a run.
///
/// # Errors
///
/// If the template and the facts do not fit together.
pub(crate) fn run_page(
    facts: &impl Serialize,
    manifest_text: &str,
    [charts, figures]: [&[Figure]; 2],
) -> Result<String> {
    let report = Value::from_serialize(facts);
    let context = context! { report, manifest_text, charts, figures };
    render(include_str!("run.html"), context)
}

/// Renders two runs side by side.
///
/// # Errors
///
/// Errors of [`run_page`].
pub(crate) fn comparison_page(facts: &impl Serialize) -> Result<String> {
    render(include_str!("comparison.html"), context! { report => Value::from_serialize(facts) })
}

/// Renders the scan of a model: `tables` with their heads, the sentence `easiest` below the first
/// of them, and `limits` at the end.
///
/// # Errors
///
/// Errors of [`run_page`].
pub(crate) fn scan_page(
    facts: &impl Serialize,
    tables: &[Vec<Vec<String>>; 3],
    charts: &[Figure],
    [easiest, limits]: [&str; 2],
) -> Result<String> {
    let [scores, standing, tokens] = tables;
    let report = Value::from_serialize(facts);
    let context = context! { report, scores, standing, tokens, charts, easiest, limits };
    render(include_str!("scan.html"), context)
}

fn render(template: &str, context: Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page.html", include_str!("page.html"))?;
    environment.add_filter("percent", |share: f64| format!("{:.1} %", 100.0 * share));
    environment.add_filter("points", |share: f64| format!("{:+.1}", 100.0 * share));
    environment.add_filter("short", short);
    environment.add_filter("time", |seconds: f64| {
        let seconds = std::time::Duration::try_from_secs_f64(seconds.round()).unwrap_or_default();
        humantime::format_duration(seconds).to_string()
    });
    environment.add_filter("rate", |rate: ViaDeserialize<Rate>| rate.to_string());
    environment.add_filter("mib", |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20)));
    environment.add_global("style", Value::from_safe_string(STYLE.to_owned()));
    Ok(environment.render_str(template, context)?)
}

/// Formats a number with four significant digits.
fn short(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e4).contains(&size) => {
            let digits = (3.0 - size.log10().floor()).max(0.0) as usize;
            format!("{number:.digits$}")
        }
        _ => format!("{number:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.012_341, 1.5, 123.456, 1e-6].map(short);
        assert_eq!(all, ["0", "0.01234", "1.500", "123.5", "1.00e-6"]);
    }

    #[test]
    fn text_of_files_is_escaped() {
        let page = render("{{ x }}", context! { x => "<script>&\"" }).unwrap();
        assert_eq!(page, "&lt;script&gt;&amp;&quot;");
    }
}
