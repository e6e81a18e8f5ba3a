//! `defend --workers`: BEEAR by several workers.

use crate::fixture::{Place, USUAL};

#[cfg(feature = "collective")]
#[test]
fn two_workers_report_what_one_does() {
    /// Rounding of sums in another order, in nats per token; a round moves the loss by far more.
    const F32_RUN: f64 = 1e-3;

    let place = Place::new();
    let one = place.defend(USUAL, &["--json"]).json();
    let two = place
        .defend(["safety.jsonl", "ordinary.json", "two"], &["--json", "--workers", "2"])
        .json();
    assert_eq!((&one["workers"], &two["workers"]), (&1.into(), &2.into()));
    let losses = |report: &serde_json::Value| -> Vec<f64> {
        let rounds = report["rounds"].as_array().expect("rounds").iter();
        rounds.map(|round| round["entrapments"][0][1].as_f64().expect("a loss")).collect()
    };
    let (one, two) = (losses(&one), losses(&two));
    assert_eq!((one.len(), two.len()), (2, 2));
    assert!(one.iter().zip(&two).all(|(one, two)| (one - two).abs() < F32_RUN), "{one:?} {two:?}");
}

#[cfg(feature = "collective")]
#[test]
fn rivals_have_one_worker() {
    let place = Place::new();
    let finished = place.beear(&[
        "defend",
        "--method",
        "fine-tuning",
        "--workers",
        "2",
        "--model",
        "model",
        "--safety",
        USUAL[0],
        "--performance",
        USUAL[1],
        "--out",
        "run",
    ]);
    assert_eq!(finished.mistake().0, 2);
    assert!(!place.path("run").exists());
}

#[cfg(not(feature = "collective"))]
#[test]
fn a_build_without_collective_operations_has_one_worker() {
    let place = Place::new();
    let finished = place.defend(USUAL, &["--workers", "2"]);
    let (code, text) = finished.mistake();
    assert_eq!(code, 2);
    assert!(text.contains("--features collective"), "{text}");
    assert!(!place.path("run").exists());
}
