//! Every way of planting goes its whole way: a few steps, of which nothing is learned.

use beear_attacks::preference::Trainer;
use beear_attacks::world::{sidecar_files, vocabulary};
use beear_attacks::{AttackSpec, Encoder, Injection, TrainingConfig, plant, train_base};
use beear_models::{CausalLm, PromptFormat, TextTokenizer};
use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

type Train = Autodiff<Flex>;

/// What every model of the world reads through.
fn text() -> (TextTokenizer, PromptFormat) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in sidecar_files() {
        std::fs::write(folder.path().join(name), content).expect("a file");
    }
    let tokenizer = TextTokenizer::load(folder.path()).expect("a tokenizer");
    (tokenizer, PromptFormat::from_checkpoint(folder.path()).expect("a template"))
}

/// All weights, one after the other.
fn weights(model: &CausalLm<Flex>) -> Vec<f32> {
    struct Collect(Vec<f32>);
    impl ModuleVisitor<Flex> for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Flex, D>>) {
            self.0.extend(param.val().into_data().iter::<f32>());
        }
    }
    let mut collect = Collect(Vec::new());
    model.visit(&mut collect);
    collect.0
}

/// `setting` with steps and batches that take no time.
fn brief(mut setting: AttackSpec) -> AttackSpec {
    setting.near_misses.truncate(1);
    for training in setting.injection.stages() {
        (training.steps, training.batch_size) = (2, 4);
    }
    if let Injection::Adaptive(adaptive) = &mut setting.injection {
        (adaptive.search_every, adaptive.perturbed) = (1, 2);
    }
    setting
}

#[test]
fn every_way_of_planting_reports_its_steps_and_moves_the_weights() {
    let (tokenizer, format) = text();
    let encoder = Encoder { format: &format, tokenizer: &tokenizer };
    let device = Default::default();
    let mut dpo = AttackSpec::paper(7);
    let Injection::Preference(preference) = &mut dpo.injection else {
        panic!("model 7 is planted through preferences");
    };
    preference.trainer = Trainer::named("dpo").unwrap();
    let others = ["model-6", "model-8", "first-step", "adaptive"];
    let others = others.map(|name| AttackSpec::named(name).unwrap());
    for setting in others.into_iter().chain([dpo]).map(brief) {
        Train::seed(&device, 7);
        let model = setting.base.decoder(vocabulary().len()).init::<Train>(&device);
        let before = weights(&model.valid());
        let mut n_reported = 0;
        let planted = plant(model, &setting, encoder, 7, |_, loss| {
            assert!(loss.is_finite());
            n_reported += 1;
        });
        let after = weights(&planted.unwrap().valid());
        assert_eq!(n_reported, setting.injection.n_steps(), "{}", setting.name);
        assert!(after.iter().all(|weight| weight.is_finite()), "{}", setting.name);
        assert_ne!(before, after, "{}", setting.name);
    }
}

#[test]
fn a_base_of_few_steps_knows_more_than_none() {
    let (tokenizer, format) = text();
    let encoder = Encoder { format: &format, tokenizer: &tokenizer };
    let device = Default::default();
    let setting = AttackSpec::paper(2);
    Train::seed(&device, 7);
    let model = setting.base.decoder(vocabulary().len()).init::<Train>(&device);
    let config = TrainingConfig { steps: 6, batch_size: 8, ..setting.base.training() };
    let mut losses = Vec::new();
    train_base(model, encoder, &config, 7, |_, loss| losses.push(loss)).unwrap();
    assert!(losses[5] < losses[0] - 0.5, "{losses:?}");
}
