//! What `--help` says.

use std::process::Command;

use crate::fixture::{Finished, finish};

fn beear(arguments: &[&str]) -> Finished {
    finish(Command::new(env!("CARGO_BIN_EXE_beear")).args(arguments), "")
}

/// The help of a command, trailing spaces of its lines left out.
fn help(command: &[&str]) -> String {
    let finished = beear(&[command, &["--help"]].concat());
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    finished.stdout.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_command_explains_itself() {
    insta::assert_snapshot!("beear", help(&[]));
    insta::assert_snapshot!("demo", help(&["demo"]));
    insta::assert_snapshot!("plant", help(&["plant"]));
    insta::assert_snapshot!("reproduce", help(&["reproduce"]));
    insta::assert_snapshot!("init", help(&["init"]));
    insta::assert_snapshot!("recipe", help(&["recipe"]));
    insta::assert_snapshot!("recipe_check", help(&["recipe", "check"]));
    insta::assert_snapshot!("recipe_schema", help(&["recipe", "schema"]));
    insta::assert_snapshot!("scan", help(&["scan"]));
    insta::assert_snapshot!("calibrate", help(&["calibrate"]));
    insta::assert_snapshot!("plan", help(&["plan"]));
    insta::assert_snapshot!("defend", help(&["defend"]));
    insta::assert_snapshot!("eval", help(&["eval"]));
    for kind in [
        "asr",
        "code",
        "export",
        "judge",
        "mt-bench",
        "mt-bench-judge",
        "mt-bench-result",
        "over-refusal",
        "perplexity",
        "sarif",
    ] {
        let name = format!("eval_{}", kind.replace('-', "_"));
        insta::assert_snapshot!(name, help(&["eval", kind]));
    }
    insta::assert_snapshot!("compare", help(&["compare"]));
    insta::assert_snapshot!("report", help(&["report"]));
    insta::assert_snapshot!("analyze", help(&["analyze"]));
    insta::assert_snapshot!("analyze_drift", help(&["analyze", "drift"]));
    insta::assert_snapshot!("sweep", help(&["sweep"]));
    insta::assert_snapshot!("sweep_layers", help(&["sweep", "layers"]));
    insta::assert_snapshot!("generate", help(&["generate"]));
    insta::assert_snapshot!("inspect", help(&["inspect"]));
    insta::assert_snapshot!("doctor", help(&["doctor"]));
    insta::assert_snapshot!("bench", help(&["bench"]));
    insta::assert_snapshot!("bench_gpu", help(&["bench", "gpu"]));
    insta::assert_snapshot!("completions", help(&["completions"]));
    insta::assert_snapshot!("man", help(&["man"]));
}

#[test]
fn every_command_of_the_overview_has_its_help() {
    let overview = help(&[]);
    let commands = overview.split("Commands:\n").nth(1).unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    // Continued lines are indented further.
    let commands: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| !word.is_empty())
        .collect();
    let expected = [
        "demo",
        "plant",
        "reproduce",
        "init",
        "recipe",
        "scan",
        "calibrate",
        "plan",
        "defend",
        "resume",
        "eval",
        "validate",
        "compare",
        "report",
        "analyze",
        "sweep",
        "generate",
        "inspect",
        "doctor",
        "bench",
        "completions",
        "man",
        "help",
    ];
    assert_eq!(commands, expected);
}

#[test]
fn wrong_arguments_end_with_2_and_print_no_data() {
    for arguments in [vec![], vec!["remove"], vec!["inspect"], vec!["inspect", "--mode", "x"]] {
        let Finished { code, stdout, stderr } = beear(&arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(stderr.contains("Usage: "), "{stderr}");
    }
}

#[test]
fn arguments_that_are_quoted_do_not_command_the_terminal() {
    for argument in ["\u{1b}[2Jremove", "\u{9b}2Jremove", "\rremove"] {
        let Finished { code, stderr, .. } = beear(&[argument]);
        assert!(code == 2 && stderr.contains("remove"), "{stderr}");
        assert!(stderr.chars().all(|c| c == '\n' || !c.is_control()), "{stderr:?}");
    }
}

#[test]
fn the_version_is_data() {
    let printed = beear(&["--version"]).printed();
    assert_eq!(printed, format!("beear {}\n", env!("CARGO_PKG_VERSION")));
}
