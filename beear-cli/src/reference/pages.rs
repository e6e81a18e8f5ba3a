//! Test that the commands, options and settings named on the pages exist in the program.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use serde_json::Value;

use super::takes_value;
use crate::Cli;
use crate::recipe::schema::schema;

/// Prefix of a command that cargo runs instead of an installed one.
const BY_CARGO: &str = "cargo run --release -- ";

fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages = pages.chain([root.join("README.md"), root.join("CONTRIBUTING.md")]);
    pages.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Returns the command lines in the code blocks of a page, with continued lines joined.
fn command_lines(page: &str) -> Vec<String> {
    let joined = page.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| {
        let code = line.strip_prefix("    ")?.trim_start_matches("$ ").trim();
        let by_cargo = code.strip_prefix(BY_CARGO).map(|rest| format!("beear {rest}"));
        by_cargo.or_else(|| code.starts_with("beear ").then(|| code.to_owned()))
    });
    lines.collect()
}

/// Returns the texts between back-ticks that begin like a command of the program.
fn quoted_commands(page: &str) -> Vec<String> {
    let prose = page.lines().filter(|line| !line.starts_with("    ")).collect::<Vec<_>>();
    let prose = prose.join("\n");
    let quoted = prose.split('`').skip(1).step_by(2);
    let commands = quoted.filter_map(|text| {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let by_cargo = text.strip_prefix(BY_CARGO).map(|rest| format!("beear {rest}"));
        by_cargo.or_else(|| text.starts_with("beear ").then_some(text))
    });
    commands.collect()
}

/// Returns the first command or option of a command line that the program does not know.
fn unknown_word(root: &Command, line: &str) -> Option<String> {
    let mut command = root;
    let words = shlex::split(line)?;
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next().unwrap_or_default();
            let mut arguments = command.get_arguments().chain(root.get_arguments());
            match arguments.find(|argument| argument.get_long() == Some(name)) {
                Some(argument) if takes_value(argument) && !option.contains('=') => {
                    words.next();
                }
                Some(_) => {}
                None if ["", "help", "version"].contains(&name) => {}
                None => return Some(word.clone()),
            }
        } else if command.has_subcommands() {
            // A placeholder, as in `beear COMMAND --help`, stands for any command.
            let is_placeholder = word.chars().all(|c| c.is_ascii_uppercase());
            if is_placeholder || ["…", "...", "[OPTIONS]"].contains(&word.as_str()) {
                return None;
            }
            match command.find_subcommand(word) {
                Some(below) => command = below,
                None => return Some(word.clone()),
            }
        }
    }
    None
}

#[test]
fn every_command_and_option_of_the_pages_is_one_of_the_program() {
    let mut root = Cli::command();
    root.build();
    let mut n_commands = 0;
    let mut wrong = Vec::new();
    for (path, page) in pages() {
        for line in command_lines(&page).into_iter().chain(quoted_commands(&page)) {
            n_commands += 1;
            if let Some(word) = unknown_word(&root, &line) {
                wrong.push(format!("{}: `{word}` of `{line}`", path.display()));
            }
        }
    }
    assert!(n_commands > 100, "the pages are read: {n_commands}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns true if a recipe may contain the setting at `path`.
fn is_setting(schema: &Value, node: &Value, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    if let Some(reference) = node["$ref"].as_str() {
        return is_setting(
            schema,
            &schema.pointer(&reference[1..]).cloned().unwrap_or_default(),
            path,
        );
    }
    let any_of = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|key| node[key].as_array());
    any_of.flatten().any(|node| is_setting(schema, node, path))
        || is_setting_of(schema, &node["properties"][*first], rest)
}

fn is_setting_of(schema: &Value, property: &Value, rest: &[&str]) -> bool {
    !property.is_null() && is_setting(schema, property, rest)
}

#[test]
fn every_setting_that_the_pages_name_is_one_of_the_recipe() {
    let schema = schema();
    let mut n_settings = 0;
    let mut wrong = Vec::new();
    for (path, page) in pages() {
        let words = page.split(|c: char| c.is_whitespace() || "`(),;\"'".contains(c));
        let settings = words.filter_map(|word| {
            let word = word.split('=').next().unwrap_or_default().trim_end_matches(['.', ':']);
            let is_key = word.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c));
            let has_root = word.starts_with("method.") || word.starts_with("train.");
            let is_file = Path::new(word).extension().is_some_and(|extension| extension == "rs");
            (is_key && has_root && !is_file).then_some(word)
        });
        for setting in settings {
            n_settings += 1;
            if !is_setting(&schema, &schema, &setting.split('.').collect::<Vec<_>>()) {
                wrong.push(format!("{}: `{setting}`", path.display()));
            }
        }
    }
    assert!(n_settings > 20, "the pages are read: {n_settings}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
