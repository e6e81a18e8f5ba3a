//! `recipe schema` and `recipe check`, and what both say of every recipe of the repository.

use std::fs;
use std::path::{Path, PathBuf};

use boon::{Compiler, SchemaIndex, Schemas};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::fixture::{Place, QUICK};

/// The schema of recipes, as another's validator reads it.
struct Schema(Schemas, SchemaIndex);

impl Schema {
    fn new(schema: Value) -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("recipe.schema.json", schema).expect("JSON");
        let index = compiler.compile("recipe.schema.json", &mut schemas).expect("a JSON Schema");
        Self(schemas, index)
    }

    fn accepts(&self, recipe: &str) -> Result<(), String> {
        let recipe: toml::Table = recipe.parse().map_err(|error| format!("{error}"))?;
        self.0.validate(&json!(recipe), self.1).map_err(|error| format!("{error:#}"))
    }
}

fn schema(place: &Place) -> Schema {
    Schema::new(place.beear(&["recipe", "schema"]).json())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// The recipes of `defend` in the repository; the other files in TOML there are attack settings, which have
/// triggers.
fn recipes() -> Vec<PathBuf> {
    let mut folders = vec![repository().join("recipes")];
    let mut recipes = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                let text = fs::read_to_string(&path).expect("a file");
                let table: toml::Table = text.parse().expect("TOML");
                recipes.extend((!table.contains_key("triggers")).then_some(path));
            }
        }
    }
    recipes
}

/// Every method and preset, and both kinds of training.
const KINDS: [&[&str]; 7] = [
    &[],
    &["--preset", "paper"],
    &["--set", "method.entrap.norm_bound=0.5", "--set", "method.stop_above_loss=3"],
    &["--method", "latent-adversarial"],
    &["--method", "layer-consistency"],
    &["--method", "fine-tuning", "--set", "prompt_format=paper-5"],
    &["--set", "train.weights=lora", "--set", "train.layers=[0, 1]"],
];

#[test]
fn the_schema_in_the_repository_is_that_of_the_program() {
    let file = repository().join("recipes/recipe.schema.json");
    let made = Place::new().beear(&["recipe", "schema"]).printed();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    let mend = "cargo xtask gen";
    assert!(committed == made, "recipes/recipe.schema.json is stale; to mend it: {mend}");
}

#[test]
fn every_recipe_of_the_repository_keeps_the_schema_and_names_it() {
    let place = Place::new();
    let schema = schema(&place);
    let recipes = recipes();
    assert!(recipes.len() >= 3, "{recipes:?}");
    for recipe in recipes {
        let text = fs::read_to_string(&recipe).unwrap();
        schema.accepts(&text).unwrap_or_else(|error| panic!("{}: {error}", recipe.display()));
        assert!(text.starts_with("#:schema ./recipe.schema.json\n"), "{}", recipe.display());
        place.beear(&["recipe", "check", recipe.to_str().unwrap()]).printed();
    }
}

#[test]
fn every_resolved_recipe_keeps_the_schema() {
    let place = Place::new();
    let schema = schema(&place);
    place.write("empty.toml", "");
    for kind in KINDS {
        let check = ["recipe", "check", "empty.toml", "--model", "model"];
        let resolved = place.beear(&[&check, kind].concat()).printed();
        schema.accepts(&resolved).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        // What is resolved once stays so.
        place.write("resolved.toml", &resolved);
        let again =
            place.beear(&["recipe", "check", "resolved.toml", "--model", "model"]).printed();
        assert_eq!(again, resolved);
    }
}

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let place = Place::new();
    let schema = schema(&place);
    let refused = [
        "presets = \"paper\"",
        "version = 2",
        "held_out = 1.0",
        "keywords = \"mine\"",
        "prompt_format = \"none\"",
        "max_new_tokens = -1",
        "train = { weights = \"some\" }",
        "train = { layers = [1] }",
        "train = { layers = \"none\" }",
        "train = { weights = \"lora\", lora = { rang = 8 } }",
        "method = { name = \"crow\" }",
        "method = { round = 2 }",
        "method = { rounds = \"none\" }",
        "method = { rounds = 2.5 }",
        "method = { attack = { steps = 2 } }",
        "method = { name = \"fine-tuning\", rounds = 2 }",
        "method = { name = \"latent-adversarial\", attack = { norm_bound = \"none\" } }",
        "method = { entrap = { stepz = 3 } }",
        "method = { entrap = { step_size = { absolut = 1 } } }",
        "method = { entrap = { initialisation = \"one\" } }",
        "method = { injection_points = [{ layer = 1 }] }",
        "method = { injection_points = [{ layer = 1, positions = { middle = 2 } }] }",
        "method = { remove = { schedule = \"Linear\" } }",
        "method = { remove = { optimizer_state = \"f16\" } }",
    ];
    for recipe in refused {
        assert!(schema.accepts(recipe).is_err(), "{recipe}");
        place.write("wrong.toml", recipe);
        let finished = place.beear(&["recipe", "check", "wrong.toml"]);
        assert_eq!(finished.mistake().0, 2, "{recipe}");
    }
    let taken = [
        "method = { injection_points = [{ layer = 1, positions = \"all\" }], stop_above_loss = \"none\" }",
        "method = { entrap = { target_tokens = \"none\", norm_bound = \"none\", step_size = { absolute = 1 } } }",
        "method = { name = \"layer-consistency\", perturbation = { relative_to_hidden = 0.1 } }",
        "train = { weights = \"lora\", lora = { targets = [\"q_proj\"] } }",
    ];
    for recipe in taken {
        schema.accepts(recipe).unwrap_or_else(|error| panic!("{recipe}: {error}"));
        place.write("right.toml", recipe);
        place.beear(&["recipe", "check", "right.toml"]).printed();
    }
}

#[test]
fn a_recipe_is_checked_without_a_model_and_with_one() {
    let place = Place::new();
    let said = place.beear(&["recipe", "check", "quick.toml"]).printed();
    assert_snapshot!(said, @r"
    `quick.toml` is a recipe for `beear`; --model judges layers too
    ");
    let check = ["recipe", "check", "quick.toml", "--set", "method.rounds=3"];
    let json = place.beear(&[check.as_slice(), &["--json"]].concat()).json();
    assert_eq!(
        json,
        json!({"recipe": "quick.toml", "method": "beear", "model": null, "layers": null, "settings": null})
    );
    let with_model = [check.as_slice(), &["--model", "model"]].concat();
    let finished = place.beear(&with_model);
    assert!(finished.stderr.contains("2 layers"), "{}", finished.stderr);
    let resolved: toml::Table = finished.printed().parse().unwrap();
    let json = place.beear(&[with_model.as_slice(), &["--json"]].concat()).json();
    assert_eq!(json["settings"], json!(resolved));
    assert_eq!(json["settings"]["method"]["rounds"], json!(3));
    assert_eq!((&json["layers"], &json["method"]), (&json!(2), &json!("beear")));
    // The shape is enough.
    let shape = [check.as_slice(), &["--model", "model/config.json", "--quiet"]].concat();
    assert_eq!(place.beear(&shape).printed().parse::<toml::Table>().unwrap(), resolved);
}

#[test]
fn mistakes_are_told_as_defend_tells_them() {
    let place = Place::new();
    let refused = |recipe: &str, more: &[&str]| {
        place.write("recipe.toml", recipe);
        let finished = place.beear(&[&["recipe", "check", "recipe.toml"], more].concat());
        let (code, said) = finished.mistake();
        assert_eq!(code, 2, "{said}");
        said.to_owned()
    };
    assert_snapshot!(refused("[method.entrap]\nstepz = 3\n", &[]), @r"
    error: invalid recipe: unknown field `stepz`, expected one of `steps`, `step_size`, `batch_size`, `length_window`, `away_weight`, `target_tokens`, `initialisation`, `norm_bound`, `threads`
    hint: `config.resolved.toml` of any run holds every setting
    ");
    let both = "presets = \"paper\"\n[method.entrap]\nstepz = 3\n";
    assert_snapshot!(refused(both, &[]), @r"
    error: invalid recipe: unknown fields `method.entrap.stepz`, `presets`
    hint: `config.resolved.toml` of any run holds every setting
    ");
    assert_snapshot!(refused("keywords = \"mine\"\n", &[]), @r"
    error: no keyword list is called `mine`
    hint: one of gcg-7, beear-29, advbench-30, backdoorllm-refusal
    ");
    assert_snapshot!(refused("prompt_format = \"vicuna\"\n", &[]), @r"
    error: no prompt format is called `vicuna`: paper-1-4, paper-5, paper-6-7, paper-8
    hint: name none to use the model's chat template
    ");
    assert_snapshot!(refused("[method.remove]\nsteps = 0\nlearning_rate = -1\n", &[]), @r"
    error: invalid config: remove.steps must be at least 1; remove.learning_rate must be positive
    hint: correct it in the recipe or with --set
    ");
    let injection_points =
        "[method]\ninjection_points = [{ layer = 9, positions = { last = 2 } }]\n";
    assert_snapshot!(refused(injection_points, &["--model", "model"]), @r"
    error: layer 9 is outside 1..=2
    hint: choose layers of the model in `method.injection_points` or `method.attack.layers`
    ");
    place.write("recipe.toml", injection_points);
    place.beear(&["recipe", "check", "recipe.toml"]).printed();
    let layers = "[train]\nlayers = [1, 3]\n";
    assert_snapshot!(refused(layers, &["--model", "model"]), @r"
    error: invalid recipe: train.layers 1..3 are outside 0..2
    hint: `config.resolved.toml` of any run holds every setting
    ");
    assert_snapshot!(refused(QUICK, &["--set", "method.rounds"]), @r"
    error: `--set method.rounds` is not key=value
    hint: write it like `--set method.rounds=8`
    ");
    let absent = place.beear(&["recipe", "check", "nowhere.toml"]);
    assert_snapshot!(absent.mistake().1, @r"
    error: cannot read recipe `nowhere.toml`: No such file or directory (os error 2)
    hint: check the path and the permissions
    ");
    let absent = place.beear(&["recipe", "check", "quick.toml", "--model", "nowhere"]);
    assert_eq!(absent.mistake().0, 3);
}
