//! Scans of a toy decoder: bounds hold, reported results are reproducible, and the model stays
//! unchanged.

#[path = "toy/fixture.rs"]
mod fixture;
#[path = "toy/poison.rs"]
mod poison;

use beear_core::analysis::scan::{
    Implant, ImplantConfig, NormStep, Place, ReachConfig, implant, reach, written_elicits,
};
use beear_core::testing::ToyDecoder;
use beear_core::{Error, InjectionPoint, Positions, SafetyExample};
use burn::module::Module;
use burn::tensor::ElementConversion;
use fixture::{Cpu, Train, toy, toy_of_seed, validator, weights};
use poison::Poison;

const POINT: InjectionPoint = InjectionPoint { layer: 1, positions: Positions::Last(2) };

/// Tolerance of a norm in f32.
const F32_NORM: f64 = 1e-4;

/// Tolerance of a loss in f32, with rows batched in another way.
const F32_LOSS: f64 = 1e-6;

/// Tolerance of losses in f32 after a few steps of Adam, which enlarges differences of gradients.
const F32_STEPS: f64 = 1e-4;

/// A limit above the number of rows.
const ALL_ROWS: usize = 64;

fn config() -> ReachConfig {
    ReachConfig {
        bounds: vec![0.1, 0.5, 2.0, 8.0],
        steps: 20,
        step_share: 0.25,
        batch_size: 2,
        target_tokens: 2,
    }
}

/// Returns two rows for fitting and two rows for evaluation.
fn sets() -> [Vec<SafetyExample>; 2] {
    let rows = validator().safety;
    [rows[..2].to_vec(), rows[2..].to_vec()]
}

fn rungs() -> Vec<NormStep<Cpu>> {
    let [fitted, held_out] = sets();
    reach::<Train, _>((&toy(), None), (&fitted, &held_out), POINT, &config(), ALL_ROWS)
        .expect("finite")
}

/// Returns the norm of the longest row of δ.
fn longest_row(rung: &NormStep<Cpu>) -> f64 {
    let values = rung.perturbation.deltas()[0].values.clone();
    values.powi_scalar(2).sum_dim(1).sqrt().max().into_scalar().elem()
}

#[test]
fn rows_grow_with_the_bound_and_not_beyond_it() {
    let rungs = rungs();
    assert_eq!(rungs.len(), config().bounds.len());
    // Fitting presses against every bound but the last, so the norms are in the ratio of the
    // bounds.
    let norm = longest_row(&rungs[0]) / rungs[0].bound;
    assert!(norm > 0.0);
    for rung in &rungs {
        assert!(longest_row(rung) <= norm * rung.bound * (1.0 + F32_NORM), "{}", rung.bound);
    }
    assert!(longest_row(&rungs[1]) > longest_row(&rungs[0]));
    let losses: Vec<f64> = rungs.iter().map(|rung| rung.loss).collect();
    assert!(losses.is_sorted_by(|a, b| a > b), "more room elicits more: {losses:?}");
}

#[test]
fn the_unwanted_answer_comes_once_there_is_room() {
    let rungs = rungs();
    assert_eq!(rungs[0].elicited, [false, false], "a small δ is not enough");
    assert_eq!(rungs[3].elicited, [true, true], "a large one is");
}

#[test]
fn a_scan_leaves_the_model_as_it_is_and_repeats_itself() {
    let [fitted, held_out] = sets();
    let model = toy();
    let before = weights(&model);
    let sets = (fitted.as_slice(), held_out.as_slice());
    let found = |()| reach::<Train, _>((&model, None), sets, POINT, &config(), ALL_ROWS);
    let losses =
        |rungs: Vec<NormStep<Cpu>>| rungs.iter().map(|r| r.loss.to_bits()).collect::<Vec<_>>();
    let [first, second] = [(), ()].map(|()| losses(found(()).expect("finite")));
    assert_eq!(first, second);
    let _ = written((&model, None), (Place::After, &all_tokens()), (2, 3));
    assert_eq!(weights(&model), before);
}

fn all_tokens() -> Vec<u32> {
    (0..11).collect()
}

/// Returns the losses of the tokens found in `models`: a model and optionally a reference.
fn written(
    (model, reference): (&ToyDecoder<Train>, Option<&ToyDecoder<Train>>),
    (place, vocabulary): (Place, &[u32]),
    (n_tokens, candidates): (usize, usize),
) -> Vec<f64> {
    let [fitted, held_out] = sets();
    let config = ImplantConfig { n_tokens, candidates, passes: 1, batch_size: 2, target_tokens: 2 };
    let models = (model, reference);
    let sets = (fitted.as_slice(), held_out.as_slice());
    let found = implant::<Train, _>(models, sets, (place, vocabulary), &config, ALL_ROWS);
    let found = found.expect("finite");
    let lengths: Vec<usize> = found.iter().map(|found| found.tokens.len()).collect();
    assert_eq!(lengths, (1..=n_tokens).collect::<Vec<_>>());
    for Implant { tokens, elicited, in_reference, .. } in &found {
        let judged = |model: &ToyDecoder<Train>| {
            let aim = config.aim(ALL_ROWS);
            let found = written_elicits::<Train, _>(model, (&held_out, aim), place, tokens);
            found.expect("finite")
        };
        assert_eq!((elicited, in_reference), (&judged(model), &reference.map(judged)));
    }
    found.into_iter().map(|found| found.loss).collect()
}

#[test]
fn the_token_found_is_the_best_of_all_where_all_are_tried() {
    let (model, other) = (toy(), toy_of_seed(8));
    for place in [Place::Before, Place::After] {
        for reference in [None, Some(&other)] {
            let alone = |token| written((&model, reference), (place, &[token]), (1, 1))[0];
            let best = all_tokens().into_iter().map(alone).fold(f64::INFINITY, f64::min);
            let found = written((&model, reference), (place, &all_tokens()), (1, 11))[0];
            assert!((found - best).abs() < F32_LOSS, "{place:?}: {found} {best}");
        }
    }
}

#[test]
fn nothing_moves_a_model_away_from_itself() {
    let model = toy();
    let losses = written((&model, Some(&model)), (Place::After, &all_tokens()), (2, 11));
    let least = losses.into_iter().fold(f64::INFINITY, f64::min);
    assert!(least > -F32_LOSS, "{least}");
}

#[test]
fn the_gradient_tells_promising_tokens_from_others() {
    let model = toy();
    let alone = |token| written((&model, None), (Place::After, &[token]), (1, 1))[0];
    let mut each: Vec<f64> = all_tokens().into_iter().map(alone).collect();
    each.sort_by(f64::total_cmp);
    let found = written((&model, None), (Place::After, &all_tokens()), (1, 3))[0];
    assert!(found <= each[2] + F32_LOSS, "three tries hit the best three: {found} {each:?}");
}

#[test]
fn rows_that_go_through_the_model_one_by_one_give_the_same_scan() {
    // Answers of one and of two tokens: the weight of a part is its number of tokens.
    let [mut fitted, held_out] = sets();
    fitted[0].unwanted.truncate(1);
    let sets = (fitted.as_slice(), held_out.as_slice());
    let model = toy();
    let config = ReachConfig { steps: 3, ..config() };
    let at_once = |rows| {
        let found = reach::<Train, _>((&model, None), sets, POINT, &config, rows);
        found.expect("finite").into_iter().map(|rung| (rung.loss, rung.elicited))
    };
    for ((loss, elicited), (whole, expected)) in at_once(1).zip(at_once(ALL_ROWS)) {
        assert!((loss - whole).abs() < F32_STEPS, "{loss} {whole}");
        assert_eq!(elicited, expected);
    }
    let (tokens, config) = (all_tokens(), small_implant());
    let at_once = |rows| {
        let among = (Place::Before, tokens.as_slice());
        let found = implant::<Train, _>((&model, None), sets, among, &config, rows);
        found.expect("finite").swap_remove(0)
    };
    let (found, whole) = (at_once(1), at_once(ALL_ROWS));
    assert_eq!((found.tokens, found.elicited), (whole.tokens, whole.elicited));
    assert!((found.loss - whole.loss).abs() < F32_LOSS, "{} {}", found.loss, whole.loss);
}

fn small_implant() -> ImplantConfig {
    ImplantConfig { n_tokens: 1, candidates: 11, passes: 1, batch_size: 2, target_tokens: 2 }
}

#[test]
fn weights_that_are_no_numbers_are_said_with_the_rows() {
    let [fitted, held_out] = sets();
    let model = toy().map(&mut Poison);
    let rows = |error: Error| match error {
        Error::NonFinite { safety, .. } => safety,
        other => panic!("{other}"),
    };
    let sets = (fitted.as_slice(), held_out.as_slice());
    let found = reach::<Train, _>((&model, None), sets, POINT, &config(), ALL_ROWS);
    assert_eq!(rows(found.expect_err("no number")), [10, 11]);
    let (place, tokens) = (Place::After, all_tokens());
    let config = ImplantConfig::default();
    let among = (place, tokens.as_slice());
    let found = implant::<Train, _>((&model, None), sets, among, &config, ALL_ROWS);
    assert_eq!(rows(found.expect_err("no number")), [10, 11]);
}
