//! The JSON Schema of a recipe, for editors: every valid key with its description.

use beear_core::{
    BilevelConfig, FineTuningConfig, LatentAdversarialConfig, LayerConsistencyConfig,
};
use beear_models::PromptFormat;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use toml::Table;

use super::{Method, NAME, NONE, Recipe, is_optional};

/// Returns the schema, in draft 7, which editors of TOML support.
pub(crate) fn schema() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<Recipe>().to_value();
    polish(&mut schema, "");
    schema["title"] = json!("A recipe of beear");
    schema
}

/// Returns the valid values of a recipe's `prompt_format`.
pub(super) fn prompt_formats() -> [&'static str; 4] {
    PromptFormat::builtin_names()
}

/// Returns the schema of the `[method]` table, whose settings depend on its `name`.
pub(super) fn method(generator: &mut SchemaGenerator) -> Schema {
    let methods = [
        settings::<BilevelConfig>(generator, Method::Beear),
        settings::<LatentAdversarialConfig>(generator, Method::LatentAdversarial),
        settings::<LayerConsistencyConfig>(generator, Method::LayerConsistency),
        settings::<FineTuningConfig>(generator, Method::FineTuning),
    ];
    json_schema!({ "oneOf": methods })
}

/// Returns the table of one method. All settings have defaults, but a method other than the default
/// one must be named.
fn settings<C: JsonSchema>(generator: &mut SchemaGenerator, method: Method) -> Value {
    let mut table = C::json_schema(generator).to_value();
    let mut definitions: Vec<String> = Vec::new();
    make_partial(&mut table, &mut definitions);
    while let Some(name) = definitions.pop() {
        if let Some(definition) = generator.definitions_mut().get_mut(&name) {
            make_partial(definition, &mut definitions);
        }
    }
    let mut properties = Map::new();
    properties.insert(NAME.to_owned(), name_of(method, generator));
    if let Some(Value::Object(own)) = table.get_mut("properties").map(Value::take) {
        properties.extend(own);
    }
    table["properties"] = Value::Object(properties);
    table["title"] = json!(method);
    if method != Method::default() {
        table["required"] = json!([NAME]);
    }
    table
}

/// Returns the name of a method, with its description.
fn name_of(method: Method, generator: &mut SchemaGenerator) -> Value {
    let names = Method::json_schema(generator).to_value();
    let mut names = names["oneOf"].as_array().into_iter().flatten();
    names.find(|name| name["const"] == json!(method)).cloned().expect("every method has a name")
}

/// Makes every setting of a table optional, since the table is laid over defaults. Adds the tables
/// within it to `definitions`; tables in lists replace the defaults, so they stay complete.
fn make_partial(table: &mut Value, definitions: &mut Vec<String>) {
    let Some(table) = table.as_object_mut().filter(|table| table.contains_key("properties")) else {
        return;
    };
    table.remove("required");
    let properties = table.get("properties").and_then(Value::as_object);
    definitions.extend(properties.into_iter().flat_map(Map::values).filter_map(definition_of));
}

/// Returns the name of the definition that a property refers to.
pub(super) fn definition_of(property: &Value) -> Option<String> {
    // A description beside a reference would be ignored, so schemas put both into an `allOf`.
    let reference = property.get("$ref").or_else(|| property.get("allOf")?.get(0)?.get("$ref"));
    reference?.as_str()?.strip_prefix("#/definitions/").map(str::to_owned)
}

/// Resolves `part` of the schema `root`: follows a reference, and chooses the table of a method by
/// `name`.
pub(super) fn shape_of<'s>(root: &'s Value, part: &'s Value, name: Option<&str>) -> &'s Value {
    if let Some(name) = definition_of(part) {
        return &root["definitions"][name];
    }
    let mut tables = part["oneOf"].as_array().into_iter().flatten();
    tables
        .find(|table| name.is_some() && table["properties"][NAME]["const"].as_str() == name)
        .unwrap_or(part)
}

/// Returns the keys of a recipe that the schema does not contain, each with its path.
pub(super) fn unknown_keys(recipe: &Table) -> Vec<String> {
    let schema = schema();
    let mut unknown = Vec::new();
    search(&schema, (&schema, recipe), "", &mut unknown);
    unknown
}

fn search(root: &Value, (part, table): (&Value, &Table), path: &str, unknown: &mut Vec<String>) {
    let name = json!(Method::default());
    let name = table.get(NAME).map_or(name.as_str(), toml::Value::as_str);
    let shape = shape_of(root, part, name);
    let Some(properties) = shape["properties"].as_object() else { return };
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (properties.get(key), value) {
            (None, _) => unknown.push(path),
            (Some(part), toml::Value::Table(table)) => search(root, (part, table), &path, unknown),
            (Some(_), _) => {}
        }
    }
}

/// Rewrites the value of `key` and everything below it in the terms of TOML and in plain text.
fn polish(value: &mut Value, key: &str) {
    match value {
        Value::Object(object) => {
            // JSON Schema has no formats such as `uint`.
            object.remove("format");
            object.retain(|key, value| key != "default" || !value.is_null());
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = plain(description);
            }
            absent(object, key);
            for (key, value) in object {
                if key == "default" {
                    leave_out_nulls(value);
                } else {
                    polish(value, key);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| polish(value, "")),
        _ => {}
    }
}

/// Removes `null` from optional settings. TOML has no null: an optional setting is left out, or is
/// `"none"` if it has a default value.
fn absent(object: &mut Map<String, Value>, key: &str) {
    let mut may_be_absent = false;
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        may_be_absent = true;
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = choices.as_slice() {
            let only = json!([only]);
            object.remove("anyOf");
            object.insert("allOf".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
    if may_be_absent && is_optional(key) {
        let description = object.remove("description");
        let present = std::mem::take(object);
        object.extend(description.map(|text| ("description".to_owned(), text)));
        object.insert("anyOf".to_owned(), json!([present, {"const": NONE}]));
    }
}

fn leave_out_nulls(value: &mut Value) {
    if let Value::Object(object) = value {
        object.retain(|_, value| !value.is_null());
        object.values_mut().for_each(leave_out_nulls);
    }
}

/// KaTeX and links of doc comments, with their plain text.
const PLAIN: [(&str, &str); 7] = [
    (r"\alpha", "α"),
    (r"\lambda", "λ"),
    (r"\epsilon", "ε"),
    (r"\sqrt{d}", "√d"),
    ("$", ""),
    ("[`", "`"),
    ("`]", "`"),
];

/// Converts a doc comment for people who do not see the code, with every paragraph on one line.
fn plain(text: &str) -> String {
    let text = PLAIN.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use boon::{Compiler, SchemaIndex, Schemas};

    use super::super::tests::RECIPES;
    use super::super::{ANY_SIZE, OPTIONAL};
    use super::*;
    use crate::mutated::near;
    use crate::recipe::keyword_list::keyword_list;

    static VALIDATOR: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("recipe", schema()).expect("JSON");
        let index = compiler.compile("recipe", &mut schemas).expect("a JSON Schema");
        (schemas, index)
    });

    /// Returns true if the recipe is valid as well as readable.
    fn is_usable(recipe: &Recipe) -> bool {
        let format = recipe.prompt_format.as_deref().map(PromptFormat::builtin);
        let method = recipe.method(ANY_SIZE).unwrap();
        keyword_list(&recipe.keywords).is_ok()
            && format.is_none_or(|format| format.is_ok())
            && method.validate(usize::MAX).is_ok()
    }

    #[test]
    fn what_may_be_absent_may_be_none_and_nothing_else_may() {
        let schema = schema();
        let text = schema.to_string();
        assert_eq!(text.matches("{\"const\":\"none\"}").count(), OPTIONAL.len());
        assert!(!text.contains("null"), "TOML has no such word");
    }

    proptest::proptest! {
        #[test]
        fn what_can_be_used_keeps_the_schema(text in near(&RECIPES)) {
            // JSON has no NaN or infinite numbers.
            let is_finite = !text.contains("inf") && !text.contains("nan");
            let usable = Recipe::parse(&text, None, &[]).is_ok_and(|recipe| is_usable(&recipe));
            if is_finite && usable {
                let (schemas, index) = &*VALIDATOR;
                let table: Table = text.parse().unwrap();
                let table = json!(table);
                let kept = schemas.validate(&table, *index);
                proptest::prop_assert!(kept.is_ok(), "{}: {:#}", text, kept.unwrap_err());
            }
        }
    }
}
