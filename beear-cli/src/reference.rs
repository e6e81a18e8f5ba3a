//! `docs/cli.md`: the reference of all commands, generated from their help.

mod pages;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::exit::EXIT_CODES;
use crate::model::text_process::VARIABLES;
use crate::{Cli, GLOBAL};

const INTRODUCTION: &str = "\
# Commands

Every command with all of its options, as `beear COMMAND --help` has them. Made from the program by `cargo xtask gen`; do not edit it. What the settings of a recipe do: `beear recipe schema` and \
[the method](algorithm.md).
";

/// Returns the whole page.
fn page() -> String {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut page = INTRODUCTION.to_owned();
    page += "\n## Contents\n\n";
    contents(&root, 0, &mut page);
    page += "- [Options of every command](#options-of-every-command)\n- [Environment](#environment)\n\
         - [Exit codes](#exit-codes)\n";
    sections(&root, &mut page);
    page += "\n## Options of every command\n\n";
    let globals = root.get_arguments().filter(|arg| is_global(arg));
    page.extend(globals.map(entry));
    page += "\n## Environment\n\n| variable | |\n| --- | --- |\n";
    page.extend(VARIABLES.map(|(name, meaning)| format!("| `{name}` | {meaning} |\n")));
    page += "\nVariables of the Hugging Face Hub: [models](models.md#from-the-hugging-face-hub).\n";
    page += "\n## Exit codes\n\n| code | |\n| --- | --- |\n";
    page += &rows_of_exit_codes();
    page
}

/// Formats the exit codes as rows of a table.
fn rows_of_exit_codes() -> String {
    let rows = EXIT_CODES.map(|(code, meaning)| format!("| {code} | {meaning} |\n"));
    rows.concat()
}

/// Adds a list of the commands below `command` with links.
fn contents(command: &Command, depth: usize, page: &mut String) {
    for below in command.get_subcommands() {
        let name = full_name(below);
        let indent = "  ".repeat(depth);
        let anchor = name.replace(' ', "-");
        let about = text(below.get_about());
        page.extend([format!("{indent}- [`{name}`](#{anchor}): {}\n", first_down(&about))]);
        contents(below, depth + 1, page);
    }
}

/// Adds a section for each command below `command`.
fn sections(command: &Command, page: &mut String) {
    for below in command.get_subcommands() {
        page.extend([format!("\n## {}\n\n", full_name(below))]);
        let about = below.get_long_about().or(below.get_about());
        page.extend([format!("{}\n\n", paragraphs(&text(about)))]);
        let usage = below.clone().render_usage().to_string();
        page.extend([format!("    {}\n", usage.trim_start_matches("Usage: "))]);
        let own = || below.get_arguments().filter(|arg| !is_global(arg) && !is_help(arg));
        let positional = own().filter(|arg| arg.is_positional());
        let options = own().filter(|arg| !arg.is_positional());
        let entries: Vec<String> = positional.chain(options).map(entry).collect();
        if !entries.is_empty() {
            page.extend([format!("\n{}", entries.concat())]);
        }
        if below.has_subcommands() {
            page.push('\n');
            contents(below, 0, page);
        }
        sections(below, page);
    }
}

/// Formats an option or argument as an entry of a list.
fn entry(arg: &Arg) -> String {
    let help = paragraphs(&text(arg.get_long_help().or(arg.get_help())));
    let mut facts = vec![help];
    if arg.is_required_set() {
        facts.push("Required.".to_owned());
    }
    if takes_value(arg) {
        let values = arg.get_possible_values();
        facts.extend(listed("One of", values.iter().map(|value| value.get_name().to_owned())));
        let defaults = arg.get_default_values().iter();
        facts.extend(listed("Default:", defaults.map(|value| value.to_string_lossy().into())));
    }
    if matches!(arg.get_action(), ArgAction::Append) && !arg.is_positional() {
        facts.push("Can be given more than once.".to_owned());
    }
    // Paragraphs of an entry are indented like the entry.
    format!("- `{}`: {}\n", written(arg), facts.join(" ").replace("\n\n", "\n\n  "))
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// Returns a sentence that lists `names`, if there are any.
fn listed(what: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("{what} {}.", names.join(", ")))
}

/// Formats an option as a user types it, with the names of its values.
fn written(arg: &Arg) -> String {
    let values: Vec<String> =
        arg.get_value_names().into_iter().flatten().map(ToString::to_string).collect();
    let values = values.join(" ");
    let Some(long) = arg.get_long() else {
        let more = if matches!(arg.get_action(), ArgAction::Append) { "..." } else { "" };
        return format!("{values}{more}");
    };
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    if takes_value(arg) { format!("{short}--{long} {values}") } else { format!("{short}--{long}") }
}

fn full_name(command: &Command) -> String {
    command.get_bin_name().unwrap_or_default().to_owned()
}

fn is_global(arg: &Arg) -> bool {
    arg.get_help_heading() == Some(GLOBAL)
}

fn is_help(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

fn text(help: Option<&StyledStr>) -> String {
    help.map(ToString::to_string).unwrap_or_default()
}

/// Puts every paragraph on one line, and adds the period that clap removes from the last one.
fn paragraphs(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let text = paragraphs.collect::<Vec<_>>().join("\n\n");
    if text.ends_with(['.', '?', '!']) || text.is_empty() { text } else { text + "." }
}

/// Lowers the first letter, for a sentence after a colon.
fn first_down(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_reference_says_what_the_program_says() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
        let made = page();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, &made).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        let mend = "cargo xtask gen";
        assert!(committed == made, "docs/cli.md is stale; to mend it: {mend}");
    }
}
