//! Every recipe of the repository can be read, for a model of any size.

use std::path::Path;

use beear_cli::recipe::Recipe;
use beear_core::DecoderSize;

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
