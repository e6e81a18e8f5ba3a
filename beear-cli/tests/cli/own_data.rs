//! `docs/how-to-own-data.md`: its files are files, its sessions go as it says. `UPDATE_DOCS=1` writes what they print.

use std::path::Path;

use crate::fixture::Place;

/// Words of a line as a shell takes them, with nothing but double quotes in it.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    words.collect()
}

/// A block of the page between fences: what it is, and its lines.
struct Block<'a> {
    info: &'a str,
    text: &'a str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let inner = page.split("```").skip(1).step_by(2);
    inner
        .map(|block| {
            let (info, text) = block.split_once('\n').expect("a block has lines");
            Block { info, text }
        })
        .collect()
}

/// Whether `said` is what is `shown`, where a line `...` stands for any lines.
fn is_as_shown(said: &str, shown: &str) -> bool {
    let said: Vec<&str> = said.trim_end().lines().collect();
    let shown: Vec<&str> = shown.trim_end().lines().collect();
    let parts: Vec<&[&str]> = shown.split(|line| *line == "...").collect();
    let Some(mut rest) = said.strip_prefix(parts[0]) else { return false };
    let [_, within @ .., last] = parts.as_slice() else { return rest.is_empty() };
    for part in within {
        let Some(at) = rest.windows(part.len().max(1)).position(|lines| lines == *part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn an_ellipsis_stands_for_lines() {
    assert!(is_as_shown("a\nb\nc\nd\n", "a\n...\nd\n"));
    assert!(is_as_shown("a\nb\n", "a\nb\n"));
    assert!(is_as_shown("a\nb\nc\nd\ne\n", "...\nb\n...\nd\n...\n"));
    for (said, shown) in [
        ("a\nb\n", "a\n"),
        ("a\nb\n", "b\n"),
        ("a\nb\nc\n", "a\n...\nb\n"),
        ("a\n", "...\nb\n...\n"),
    ] {
        assert!(!is_as_shown(said, shown), "{said} {shown}");
    }
}

#[test]
fn the_page_on_own_data_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to-own-data.md");
    let page = std::fs::read_to_string(&path).expect("there is the page");
    let updates = std::env::var_os("UPDATE_DOCS").is_some();
    let place = Place::new();
    std::fs::rename(place.path("model"), place.path("suspect")).expect("it is ours");
    for left in ["safety.jsonl", "advbench.csv", "ordinary.json", "chat.jsonl"] {
        std::fs::remove_file(place.path(left)).expect("a file of the fixture");
    }
    let (mut n_sessions, mut told) = (0, page.clone());
    for Block { info, text } in blocks(&page) {
        if let Some((_, name)) = info.split_once(' ') {
            place.write(name, text);
            continue;
        }
        assert_eq!(info, "console", "a block is a file or a session");
        for session in text.split("$ beear ").skip(1) {
            let (line, shown) = session.split_once('\n').expect("a line and what it prints");
            let finished = place.beear(&words(line));
            let said = finished.stderr + &finished.stdout;
            n_sessions += 1;
            if is_as_shown(&said, shown) {
                continue;
            }
            assert!(updates, "beear {line}\nprints:\n{said}\nnot:\n{shown}");
            told = told.replace(&format!("{line}\n{shown}"), &format!("{line}\n{said}"));
        }
    }
    assert!(n_sessions >= 10, "{n_sessions} sessions");
    if updates {
        std::fs::write(path, told).expect("the page can be written");
    }

    // Every format serves as the page says.
    for (heading, option) in
        [("Prompts to refuse", "--safety"), ("Ordinary prompts", "--performance")]
    {
        let (_, section) =
            page.split_once(&format!("\n## {heading}")).expect("there is the section");
        let section = section.split("\n## ").next().expect("it ends");
        let files = blocks(section).into_iter().filter_map(|block| block.info.split_once(' '));
        let names: Vec<&str> = files.map(|(_, name)| name).collect();
        assert!(names.len() >= 3, "{names:?}");
        for name in names {
            let init = ["init", "--model", "suspect", option, name, "--force", "--json"];
            let printed = place.beear(&init).json();
            let key = option.trim_start_matches('-');
            assert_eq!(printed[key]["file"], name, "{printed}");
        }
    }
}
