//! A rival of BEEAR that is stopped is gone on with too.
#![cfg(unix)]

use std::fs;

use crate::fixture::{Place, defend_arguments};
use crate::resume::{saved_step, signal, start, wait_for};

#[test]
fn a_rival_is_gone_on_with_from_the_middle_of_an_attack() {
    let place = Place::new();
    place.write(
        "latent.toml",
        "[method]\nname = \"latent-adversarial\"\nsteps_per_attack = 3\nattack = { steps = 2 }\n\
         remove = { steps = 7, safety_batch_size = 4, performance_batch_size = 4 }\nbounds = { refusal_floor = 0.0 }\n",
    );
    let defend = |out: &'static str| {
        let usual = defend_arguments(["safety.jsonl", "ordinary.json", out]);
        let rival =
            usual.into_iter().map(|word| if word == "quick.toml" { "latent.toml" } else { word });
        rival.chain(["--quiet"]).collect::<Vec<_>>()
    };
    place.beear(&defend("whole")).printed();
    let mut code = place.beear(&[defend("run"), vec!["--max-time", "0s"]].concat()).code;
    assert_eq!((code, saved_step(&place)), (9, Some(0)));
    // Stopped after every step that a signal is quick enough for.
    for step in 1..7 {
        let child = start(&place, &["resume", "run", "--quiet"]);
        wait_for("a step", || {
            let text = fs::read_to_string(place.path("run/metrics.jsonl")).ok()?;
            (text.matches("outer_step").count() >= step).then_some(())
        });
        signal(&child, "TERM");
        code =
            child.wait_with_output().expect("it ends").status.code().expect("no signal kills it");
        if code == 0 {
            break;
        }
        assert_eq!(code, 130);
        assert!(saved_step(&place) >= Some(step as u64));
    }
    if code != 0 {
        place.beear(&["resume", "run", "--quiet"]).printed();
    }
    for file in ["model/model.safetensors", "metrics.jsonl"] {
        let read = |run: &str| fs::read(place.path(run).join(file)).expect("the run has the file");
        assert!(read("run") == read("whole"), "{file}");
    }
}
