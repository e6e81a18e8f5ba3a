//! What `completions` and `man` print and write.

use std::process::Command;

use crate::fixture::{Finished, Place, finish};

#[test]
fn bash_reads_its_completion_script() {
    let place = Place::new();
    let script = place.beear(&["completions", "bash"]).printed();
    place.write("beear.bash", &script);
    let checked = Command::new("bash").arg("-n").arg(place.path("beear.bash")).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // What it offers after `beear re`.
    let ask = ". ./beear.bash; COMP_WORDS=(beear re); COMP_CWORD=1; _beear beear re beear; echo ${COMPREPLY[@]}";
    let offered = finish(Command::new("bash").args(["-c", ask]).current_dir(place.path("")), "");
    assert_eq!(offered.printed().trim(), "reproduce recipe resume report");
}

#[test]
fn every_shell_has_a_script_that_knows_every_command() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.beear(&["completions", shell]).printed();
        for word in ["mt-bench-judge", "drift", "init", "performance"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let json = place.beear(&["completions", shell, "--json"]).json();
        assert_eq!(
            (&json["shell"], json["script"].as_str().unwrap().trim_end()),
            (&shell.into(), script.trim_end())
        );
    }
    let Finished { code, stdout, .. } = place.beear(&["completions", "sh"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
}

#[test]
fn every_command_has_a_manual_page_with_exit_codes() {
    let place = Place::new();
    let printed = place.beear(&["man", "--out", "pages/man1"]).printed();
    let pages = place.files("pages/man1");
    assert_eq!(printed.lines().count(), pages.len());
    // Every group, and every command within one.
    for name in [
        "beear",
        "beear-defend",
        "beear-eval",
        "beear-eval-asr",
        "beear-recipe-check",
        "beear-bench-gpu",
    ] {
        assert!(pages.keys().any(|page| page.to_str() == Some(&format!("{name}.1"))), "{name}");
    }
    for (name, page) in &pages {
        let page = String::from_utf8(page.clone()).unwrap();
        for part in [".SH NAME", ".SH SYNOPSIS", ".SH \"EXIT STATUS\"", "does not keep the gate"] {
            assert!(page.contains(part), "{}: {part}", name.display());
        }
        assert_eq!(page.matches("wrong arguments or recipe").count(), 1, "{}", name.display());
    }
    // They may be written again, and the page of the program is printed where no folder is given.
    place.beear(&["man", "--out", "pages/man1"]).printed();
    let page = place.beear(&["man"]).printed();
    assert!(page.contains("beear\\-defend(1)"), "{page}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let place = Place::new();
    place.write("taken", "");
    let finished = place.beear(&["man", "--out", "taken/man1"]);
    let (code, said) = finished.mistake();
    assert!(code == 6 && said.contains("taken/man1"), "{said}");
}
