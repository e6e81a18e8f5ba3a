//! Every recipe of the repository can be read, for a model of any size, and so can every shape.

use std::path::Path;

use beear_cli::recipe::Recipe;
use beear_core::DecoderSize;
use beear_models::checkpoint::read_config;

#[test]
fn every_recipe_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    let mut n_recipes = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let recipe = Recipe::read(Some(&path), None, &[]).unwrap();
        for size in [(2, 16), (32, 4096)] {
            let (n_layers, d_model) = size;
            let config = recipe.method(DecoderSize { n_layers, d_model }).unwrap();
            config.validate(n_layers).unwrap();
        }
        n_recipes += 1;
    }
    assert!(n_recipes > 0, "the folder has recipes");
}

#[test]
fn shapes_have_as_many_weights_as_the_models_they_are_of() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/configs");
    let n_weights = |name: &str| read_config(&folder.join(name)).unwrap().n_weights();
    // As published, in billions: 6.74 and 7.24.
    assert_eq!(n_weights("llama-2-7b-chat.json"), 6_738_415_616);
    assert_eq!(n_weights("mistral-7b-instruct-v0.2.json"), 7_241_732_096);
}
