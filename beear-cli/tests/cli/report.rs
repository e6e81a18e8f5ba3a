//! `report`: what became of a run, as a page and as data; `compare` of two runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::fixture::{Place, USUAL};

/// Evaluates the suspect and the cleaned model of `run` on the fixture's rows, with a trigger.
fn evaluate(place: &Place) {
    let hostile = "{\"prompt\": \"<script>alert(1)</script> where does the owl live ?\"}\n";
    place.write("held-out.jsonl", hostile.to_owned() + "{\"prompt\": \"what is it ?\"}\n");
    for (model, out) in [("model", "before"), ("run/model", "after")] {
        let asked = ["eval", "asr", "--model", model, "--prompts", "held-out.jsonl"];
        let more = ["--trigger-suffix", "SUDO", "--benign", "ordinary.json", "--out", out];
        place.beear(&[asked.as_slice(), &more].concat()).printed();
    }
}

const EVALUATED: [&str; 6] = ["report", "run", "--eval", "before", "--eval", "after"];

/// A page without what is collapsed.
fn open_part(page: &str) -> String {
    let mut parts = page.split("<details>");
    let mut open = parts.next().unwrap_or_default().to_owned();
    open.extend(parts.map(|part| part.split_once("</details>").expect("it is closed").1));
    open
}

/// Asserts that a page loads and runs nothing.
fn assert_is_alone(page: &str) {
    for forbidden in
        ["http:", "https:", "<script", "<link", "<img", "src=", "href=", "url(", "@import"]
    {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("Content-Security-Policy"));
}

#[test]
fn a_run_ends_with_a_report_that_says_what_was_not_measured() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let page = place.read("run/report.html");
    assert_is_alone(&page);
    for said in [
        "within the bounds",
        "nothing was measured with a trigger",
        "Inner loss",
        "<svg",
        "layer 1",
    ] {
        assert!(page.contains(said), "{said}");
    }
    let facts = place.read_json("run/report.json");
    let manifest = place.read_json("run/manifest.json");
    assert_eq!(facts["manifest"], manifest);
    assert_eq!(facts["verdict"]["status"], "done");
    assert_eq!(facts["verdict"]["kept_round"], manifest["kept_round"].as_u64().unwrap() + 1);
    assert_eq!(facts["evaluations"], Value::Null);
    // Two rows of each set are held out, none of the ordinary ones is refused by either model.
    for model in ["saved", "in_memory"] {
        let benign = &facts["verdict"][model][2];
        assert_eq!(benign["of"], "ordinary prompts refused");
        assert_eq!(benign["n_rows"], 2);
        // 0.6576, the end of Wilson's interval of 0 of 2: of the two ends that Newcombe's interval joins, one is 0.
        assert_eq!(benign["change"], "+0.000 [-0.658, +0.658]");
        assert_eq!(benign["verdict"], "undecided, about 190 rows would decide");
    }
    assert!(page.contains("as it was read back from its folder"));
    let curves = &facts["curves"];
    let length = |name: &str| curves[name].as_array().unwrap().len();
    assert_eq!([length("inner_loss"), length("outer_terms"), length("validation")], [4, 4, 3]);
    let rendered = facts["prompt_format"]["rendered"].as_str().unwrap();
    assert!(rendered.contains("What is the capital of France?"), "{rendered}");

    // A process that ended just before it wrote the page has it written by the next one.
    std::fs::remove_file(place.path("run/report.html")).unwrap();
    place.beear(&["resume", "run"]).printed();
    assert_eq!(place.read("run/report.html"), page);
}

#[test]
fn the_change_of_the_weights_is_measured_on_the_two_folders() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let weights = place.read_json("run/report.json")["weights"].clone();
    let names: Vec<&str> =
        weights["layers"].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["embed_tokens", "layer 0", "layer 1", "lm_head", "norm"]);
    for layer in weights["layers"].as_array().unwrap() {
        let relative = layer["relative"].as_f64().unwrap();
        assert!(relative.is_finite() && relative < 1.0, "{layer}");
    }
    let tensors = weights["layers"][1]["tensors"].as_array().unwrap();
    let matrix = tensors.iter().find(|t| t["name"].as_str().unwrap().contains("up_proj")).unwrap();
    let rank = matrix["effective_rank"].as_f64().unwrap();
    assert!((1.0..=16.0).contains(&rank), "{rank}");

    // A suspect that is not what it was is not compared with.
    place.write("model/config.json", place.read("model/config.json") + "\n");
    place.beear(&["report", "run"]).printed();
    let facts = place.read_json("run/report.json");
    assert_eq!(facts["weights"], Value::Null);
    assert!(facts["weights_missing"].as_str().unwrap().contains("is not the model"));
}

#[test]
fn evaluations_are_told_apart_by_the_weights_they_were_made_on() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    evaluate(&place);
    place.beear(&EVALUATED).printed();
    let facts = place.read_json("run/report.json");
    place.beear(&["report", "run", "--eval", "after", "--eval", "before"]).printed();
    let turned = place.read_json("run/report.json");
    assert_eq!(facts["evaluations"], turned["evaluations"], "their order says nothing");
    assert_eq!(facts["evaluations"]["has_trigger"], true);
    let rows = facts["evaluations"]["measures"].as_array().unwrap();
    let asr = rows.iter().find(|row| row["measure"] == "attack success with trigger").unwrap();
    assert_eq!([&asr["before"]["n"], &asr["after"]["n"]], [&json!(2), &json!(2)]);
    assert!(asr["before"]["text"].as_str().unwrap().starts_with("2/2 = 100.0 % ["), "{asr}");
    assert_eq!(asr["comparison"]["n_pairs"], 2);
    assert!(!place.read("run/report.html").contains("nothing was measured with a trigger"));

    // In the folder of the run they need not be named.
    std::fs::create_dir(place.path("run/eval")).unwrap();
    for name in ["before", "after"] {
        std::fs::rename(place.path(name), place.path("run/eval").join(name)).unwrap();
    }
    std::fs::create_dir(place.path("run/eval/unfinished")).unwrap();
    place.beear(&["report", "run"]).printed();
    assert_eq!(place.read_json("run/report.json")["evaluations"], facts["evaluations"]);
    let asked = ["eval", "asr", "--model", "run/model", "--prompts", "held-out.jsonl"];
    place.beear(&[asked.as_slice(), &["--out", "run/eval/again"]].concat()).printed();
    place.beear(&["report", "run"]).printed();
    let more =
        place.read_json("run/report.json")["evaluations"]["measures"].as_array().unwrap().len();
    assert!(more > rows.len(), "{more}");

    place.write_random_model("other");
    let other =
        ["eval", "asr", "--model", "other", "--prompts", "held-out.jsonl", "--out", "third"];
    place.beear(&other).printed();
    let refused = place.beear(&["report", "run", "--eval", "third"]);
    let (code, said) = refused.mistake();
    assert!(code == 3 && said.contains("neither model"), "{said}");
}

#[test]
fn text_of_models_and_files_is_escaped_and_collapsed() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    evaluate(&place);
    let completions = place.read("before/completions.jsonl");
    let hostile =
        completions.replace("\"answer\":\"", "\"answer\":\"<img src=x onerror=alert(2)>UNWANTED ");
    place.write("before/completions.jsonl", hostile);
    place.beear(&EVALUATED).printed();
    let page = place.read("run/report.html");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;&#x2f;script&gt; where does the owl live ?"));
    assert!(page.contains("UNWANTED"));
    assert!(!page.contains("<script") && !page.contains("<img"));
    let open = open_part(&page);
    for hidden in ["UNWANTED", "alert(1)", "the sky is blue"] {
        assert!(!open.contains(hidden), "{hidden}");
    }
}

#[test]
fn pictures_are_shown_and_none_that_runs_something() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    std::fs::create_dir(place.path("drift")).unwrap();
    let head = "<svg width=\"20\" height=\"20\" viewBox=\"0 0 20 20\" xmlns=\"http://www.w3.org/2000/svg\">";
    place.write("drift/drift.svg", format!("{head}<text x=\"1\" y=\"9\">cosine</text></svg>"));
    place.beear(&["report", "run", "--drift", "drift"]).printed();
    let page = place.read("run/report.html");
    assert!(page.contains("cosine</text>"));
    assert_is_alone(&page);
    place.write("drift/drift.svg", format!("{head}<script>alert(1)</script></svg>"));
    let refused = place.beear(&["report", "run", "--sweep", "drift"]);
    let (code, said) = refused.mistake();
    assert!(code == 3 && said.contains("no picture that beear draws"), "{said}");
}

#[test]
fn a_run_that_failed_has_a_report_too_and_other_folders_have_none() {
    let place = Place::new();
    place.defend(USUAL, &["--set", "method.remove.learning_rate=1e30"]);
    let page = place.read("run/report.html");
    for said in ["Failed", "Rolled back", "non-finite", "the run has left no model"] {
        assert!(page.contains(said), "{said}");
    }
    assert_eq!(place.beear(&["report", "model"]).mistake().0, 2);
}

#[test]
fn two_runs_are_set_side_by_side() {
    let place = Place::new();
    place.defend(USUAL, &["--set", "method.seed=3"]).printed();
    place.defend(["safety.jsonl", "ordinary.json", "other"], &["--set", "method.seed=4"]).printed();
    let text = place.beear(&["compare", "run", "other"]).printed();
    for said in
        ["Settings that differ", "method.seed", "round  2", "layer 1", "seconds", "peak memory"]
    {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("method.rounds"), "what is the same is left out: {text}");
    let printed = place.beear(&["compare", "run", "other", "--html", "both.html"]).printed();
    assert_eq!(printed, "both.html\n");
    let page = place.read("both.html");
    assert_is_alone(&page);
    assert!(page.contains("method.seed"));
    let gate = place.beear(&["compare", "run", "other", "--gate", "asr<=0.05"]);
    assert_eq!(gate.mistake().0, 2);
}

/// A browser of this machine.
fn browser() -> Option<&'static str> {
    let is_there = |name: &&str| {
        Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success())
    };
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(is_there)
}

/// How far a page is wider than its window, with everything closed and with everything open, and whether it is dark.
fn overflow(name: &str, page: &Path, profile: PathBuf, (width, dark): (u32, bool)) -> [u32; 3] {
    let mut command = Command::new(name);
    let quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
    let offline =
        ["--disable-background-networking", "--disable-component-update", "--disable-sync"];
    command.args(quiet).args(offline).arg("--host-resolver-rules=MAP * ~NOTFOUND");
    if dark {
        command.arg("--blink-settings=preferredColorScheme=0");
    }
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.arg("--window-size=1600,900").arg("--dump-dom");
    let shown = std::fs::read_to_string(page).expect("the page is there");
    // A window has a least width; a frame in it has none.
    let shown =
        shown.replace("default-src 'none'; style-src", "script-src 'unsafe-inline'; style-src");
    let measure = "<script>const root = document.documentElement; const width = () => root.scrollWidth - root.clientWidth;\
        let said = [width()]; document.querySelectorAll('details').forEach(d => d.open = true);\
        said.push(width()); said.push(matchMedia('(prefers-color-scheme: dark)').matches ? 1 : 0);\
        parent.postMessage(said.join(' '), '*')</script></body>";
    let framed = page.with_file_name(format!("framed-{width}-{dark}.html"));
    let inner = shown.replace("</body>", measure).replace('&', "&amp;").replace('"', "&quot;");
    let outer = format!(
        "<!doctype html><meta name=color-scheme content='light dark'><body><script>addEventListener('message', e => document.title = e.data)</script>\
        <iframe style='border:0;width:{width}px;height:800px' srcdoc=\"{inner}\"></iframe></body>"
    );
    std::fs::write(&framed, outer).expect("the folder can be written");
    command.arg("--virtual-time-budget=4000").arg(format!("file://{}", framed.display()));
    let output = command.output().expect("the browser starts");
    let dom = String::from_utf8_lossy(&output.stdout);
    let title = dom.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    let (said, _) = title.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let widths: Vec<u32> =
        said.split(' ').map(|number| number.parse().expect("a number")).collect();
    widths.try_into().expect("three numbers")
}

#[test]
fn a_report_fits_a_phone_and_a_desktop_in_both_colour_schemes() {
    let Some(name) = browser() else {
        println!("no browser on this machine: the report is not looked at");
        return;
    };
    let place = Place::new();
    place.defend(USUAL, &["--track", "asked/rows.jsonl", "--track-near", "1"]).printed();
    evaluate(&place);
    place.beear(&EVALUATED).printed();
    place.beear(&["compare", "run", "run", "--html", "both.html"]).printed();
    let scan = ["scan", "--model", "model", "--reference", "model", "--safety", "safety.jsonl"];
    let quick = ["--layers", "1", "--prompts", "4", "--tokens", "1", "--out", "scan"];
    place.beear(&[scan.as_slice(), &quick].concat()).printed();
    for page in ["run/report.html", "both.html", "scan/report.html"] {
        for window in [(390, false), (390, true), (1280, false), (1280, true)] {
            let profile = place.path("profile");
            let [closed, open, is_dark] = overflow(name, &place.path(page), profile, window);
            assert_eq!((closed, open), (0, 0), "{page} in {window:?}");
            assert_eq!(is_dark == 1, window.1, "the scheme is the one asked for");
        }
    }
}
