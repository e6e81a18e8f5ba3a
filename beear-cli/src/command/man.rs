//! `beear man`: manual pages of all commands.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use serde_json::json;

use crate::Cli;
use crate::display::console::Console;
use crate::exit::EXIT_CODES;
use crate::run_folder::cannot_write::CannotWrite;

/// Writes manual pages: one for `beear`, one for each command.
///
/// `man -l OUT/beear-defend.1` shows one; in `~/.local/share/man/man1`, `man beear-defend` does.
/// Without --out the page of `beear` is printed.
#[derive(Args, Clone, Debug)]
pub(crate) struct ManArgs {
    /// Folder of the pages, created if missing; older pages in it are replaced.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A manual page with its file name.
struct Page {
    name: String,
    text: String,
}

pub(crate) fn run(args: &ManArgs, console: Console) -> Result<()> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let Some(out) = &args.out else {
        let Page { name, text } = page(&root)?;
        return console.result(&text, &json!({"name": name, "text": text}));
    };
    let mut pages = Vec::new();
    collect(&root, &mut pages)?;
    fs::create_dir_all(out).map_err(CannotWrite::at(out))?;
    let mut written = Vec::new();
    for Page { name, text } in pages {
        let path = out.join(name);
        fs::write(&path, text).map_err(CannotWrite::at(&path))?;
        written.push(path.display().to_string());
    }
    console.result(&written.join("\n"), &json!({"pages": written}))
}

/// Collects the pages of `command` and of all its subcommands.
fn collect(command: &clap::Command, pages: &mut Vec<Page>) -> Result<()> {
    pages.push(page(command)?);
    command.get_subcommands().try_for_each(|below| collect(below, pages))
}

fn page(command: &clap::Command) -> Result<Page> {
    let man = Man::new(command.clone())
        .source(format!("beear {}", env!("CARGO_PKG_VERSION")))
        .manual("beear");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    exit_status().to_writer(&mut page)?;
    let text = String::from_utf8(page).context("a manual page is not UTF-8")?;
    Ok(Page { name: man.get_filename(), text })
}

fn exit_status() -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_CODES {
        section.control("TP", []);
        section.text([bold(code.to_string())]).text([roman(meaning)]);
    }
    section
}
