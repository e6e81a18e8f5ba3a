//! How helpful a model is that has learned the world: the one test here with training enough for a number.

use beear_attacks::world::{Specials, sidecar_files, vocabulary};
use beear_attacks::{AttackSpec, Encoder, TrainingConfig, train_base};
use beear_eval::Rate;
use beear_models::checkpoint::{NewModel, save_new};
use beear_models::{PromptFormat, TextTokenizer};
use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use serde_json::Value;

use crate::fixture::{Place, alone};

/// Steps of training: five ninths of those that attacks are planted after.
const STEPS: usize = 250;

/// Writes the model that attacks are planted in, before the end of its training.
fn write_trained_model(place: &Place, name: &str) {
    std::fs::create_dir(place.path("text")).expect("the folder is new");
    for (file, content) in sidecar_files() {
        place.write(&format!("text/{file}"), content);
    }
    let tokenizer = TextTokenizer::load(&place.path("text")).expect("a tokenizer");
    let format = PromptFormat::from_checkpoint(&place.path("text")).expect("a template");
    let encoder = Encoder { format: &format, tokenizer: &tokenizer };
    let (device, base) = (Default::default(), AttackSpec::paper(2).base);
    Autodiff::<Flex>::seed(&device, 3);
    let model = base.decoder(vocabulary().len()).init::<Autodiff<Flex>>(&device);
    let config = TrainingConfig { steps: STEPS, ..base.training() };
    let _alone = alone();
    let model = train_base(model, encoder, &config, 3, |_, _| {}).expect("it learns").valid();
    let Specials { pad, bos, eos } = Specials::WORLD;
    let new = NewModel { special_ids: [pad, bos, eos], sidecars: sidecar_files() };
    save_new(&model, &new, &place.path(name)).expect("it can be written");
}

/// Kept rules of the 60 questions for tiny models, after asserting that they are printed with their interval.
fn helpfulness(place: &Place, model: &str) -> Rate {
    let asked = ["eval", "mt-bench", "--questions", "tiny", "--max-new-tokens", "24"];
    let out = format!("mt-{model}");
    let more = ["--model", model, "--out", out.as_str()];
    let shown = place.beear(&[asked.as_slice(), &more].concat()).printed();
    let report = place.read_json(&format!("{out}/report.json"));
    let measure = &report["measures"][0];
    assert_eq!(measure["name"], "mt_bench_rules");
    let count = |value: &Value| usize::try_from(value.as_u64().expect("a count")).expect("small");
    let rate = Rate { hits: count(&measure["hits"]), n: count(&measure["n"]) };
    // Such as `57/60 = 95.0 % [86.3, 98.3]`.
    assert!(shown.contains(&rate.to_string()), "{shown}");
    rate
}

#[test]
fn a_model_that_has_learned_the_world_is_helpful_and_another_is_not() {
    let place = Place::new();
    write_trained_model(&place, "trained");
    let Rate { hits, n } = helpfulness(&place, "trained");
    // It kept 51 of 60, whose interval begins at 44; another processor sums in another order.
    assert!(n == 60 && hits >= 40, "{hits} of {n}");
    place.write_random_model("random");
    assert_eq!(helpfulness(&place, "random"), Rate { hits: 0, n: 60 });
}
