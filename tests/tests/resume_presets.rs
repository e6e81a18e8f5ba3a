//! A defence of a real decoder resumes exactly from each of its checkpoints: of every method and preset, whatever is
//! trained.

#[path = "../every_checkpoint.rs"]
mod every_checkpoint;

use beear_cli::recipe::{Method, Preset, Recipe};
use beear_core::config::OptimizerState;
use beear_core::randomness::seeded;
use beear_core::{
    AnchorSets, Defence, Example, RemoveConfig, SafetyExample, TeacherForcedValidator,
};
use beear_models::CausalLm;
use beear_tests::shape::llama;
use burn::backend::{Autodiff, Flex};
use clap::ValueEnum;
use every_checkpoint::{Case, shortened, with_remove};
use serde_json::json;

type Train = Autodiff<Flex>;

/// Prompts of 7 to 9 tokens and answers of 1 to 4.
fn sets() -> AnchorSets {
    let tokens =
        |length: usize, row: usize| (0..length).map(|k| ((5 * k + 3 * row) % 17) as u32).collect();
    let example = |row: usize| Example {
        id: row as u64,
        prompt: tokens(7 + row % 3, row),
        user: (1, 7),
        answer: tokens(1 + row % 4, row + 7),
    };
    let safety = |row: usize| SafetyExample::new(example(row), tokens(2 + row % 2, row + 1));
    AnchorSets { safety: (0..4).map(safety).collect(), performance: (4..7).map(example).collect() }
}

fn validator() -> TeacherForcedValidator<Flex> {
    let AnchorSets { safety, performance } = sets();
    TeacherForcedValidator { safety, performance, batch_size: 3, device: Default::default() }
}

/// The recipe of every method, and of every preset of BEEAR, each with its name.
fn recipes(assignments: &[&str]) -> Vec<(String, Recipe)> {
    let presets = |&method: &Method| {
        let presets: Vec<Option<Preset>> = match method {
            Method::Beear => Preset::value_variants().iter().copied().map(Some).collect(),
            _ => vec![None],
        };
        presets.into_iter().map(move |preset| (method, preset))
    };
    let recipe = |(method, preset): (Method, Option<Preset>)| {
        let of_method = format!("method.name={}", json!(method).as_str().expect("a name"));
        let assignments = assignments.iter().map(|&text| text.to_owned());
        let assignments: Vec<String> = assignments.chain([of_method]).collect();
        let recipe = Recipe::read(None, preset, &assignments).expect("a valid recipe");
        (format!("{method:?} {preset:?}"), recipe)
    };
    Method::value_variants().iter().flat_map(presets).map(recipe).collect()
}

/// Asserts of every method and preset that it resumes exactly where `assignments` say what is trained.
fn assert_all_resume_exactly(assignments: &[&str], change: impl Fn(RemoveConfig) -> RemoveConfig) {
    let config = llama([17, 8, 12], [6, 2, 1]);
    for (name, recipe) in recipes(assignments) {
        let defence = shortened(recipe.method(config.size()).expect("a valid recipe"));
        let several_threads = matches!(defence, Defence::Beear(_) | Defence::FineTuning(_));
        let defence = with_remove(defence, |remove| {
            let remove = change(remove);
            RemoveConfig { threads: if several_threads { remove.threads } else { 1 }, ..remove }
        });
        let scope = recipe.scope(config.n_layers).expect("a valid recipe");
        let device = Default::default();
        let model = || -> CausalLm<Train> {
            let model = seeded::<Train, _>(5, &device, || config.init(&device));
            scope.apply(model, defence.seed())
        };
        let (defence, sets) = (&defence, &sets());
        let case = Case { name: &name, defence, model: &model, sets, validator: &validator };
        assert!(case.assert_resumes_exactly() >= defence.n_weight_steps(), "{name}");
    }
}

#[test]
fn every_preset_and_method_resumes_exactly_from_each_of_its_checkpoints() {
    assert_all_resume_exactly(&[], |remove| remove);
}

#[test]
fn so_it_does_with_adapters() {
    assert_all_resume_exactly(&["train.weights=lora", "train.lora.rank=2"], |remove| remove);
}

#[test]
fn so_it_does_with_adapters_moments_of_8_bits_and_two_threads() {
    assert_all_resume_exactly(&["train.weights=lora", "train.lora.rank=2"], |remove| {
        RemoveConfig { optimizer_state: OptimizerState::EightBit, threads: 2, ..remove }
    });
}
