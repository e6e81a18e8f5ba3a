//! The JSON Schema of a recipe, for editors: every key that may be written, with what it does.

use beear_core::{
    BilevelConfig, FineTuningConfig, LatentAdversarialConfig, LayerConsistencyConfig,
};
use beear_models::PromptFormat;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use toml::Table;

use super::{Method, NAME, NONE, Recipe, is_optional};

/// The schema, in draft 7, which editors of TOML know.
pub(crate) fn schema() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<Recipe>().to_value();
    polish(&mut schema, "");
    schema["title"] = json!("A recipe of beear");
    schema
}

/// What may be a recipe's `prompt_format`.
pub(super) fn prompt_formats() -> [&'static str; 4] {
    PromptFormat::builtin_names()
}

/// The `[method]` table: which settings there are depends on its `name`.
pub(super) fn method(generator: &mut SchemaGenerator) -> Schema {
    let methods = [
        settings::<BilevelConfig>(generator, Method::Beear),
        settings::<LatentAdversarialConfig>(generator, Method::LatentAdversarial),
        settings::<LayerConsistencyConfig>(generator, Method::LayerConsistency),
        settings::<FineTuningConfig>(generator, Method::FineTuning),
    ];
    json_schema!({ "oneOf": methods })
}

/// The table of one method. All its settings have defaults, but any other method than the default
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

/// The name of a method, with what the method is.
fn name_of(method: Method, generator: &mut SchemaGenerator) -> Value {
    let names = Method::json_schema(generator).to_value();
    let mut names = names["oneOf"].as_array().into_iter().flatten();
    names.find(|name| name["const"] == json!(method)).cloned().expect("every method has a name")
}

/// Lets a table of settings leave any out, since it is laid over defaults. Adds the tables within it
/// to `definitions`; those in lists replace the defaults, so they stay whole.
fn make_partial(table: &mut Value, definitions: &mut Vec<String>) {
    let Some(table) = table.as_object_mut().filter(|table| table.contains_key("properties")) else {
        return;
    };
    table.remove("required");
    let properties = table.get("properties").and_then(Value::as_object);
    definitions.extend(properties.into_iter().flat_map(Map::values).filter_map(definition_of));
}

/// The name of the definition that a property refers to.
pub(super) fn definition_of(property: &Value) -> Option<String> {
    // A description beside a reference would be ignored, so the two stand in an `allOf`.
    let reference = property.get("$ref").or_else(|| property.get("allOf")?.get(0)?.get("$ref"));
    reference?.as_str()?.strip_prefix("#/definitions/").map(str::to_owned)
}

/// What `part` of the schema `root` says itself: followed where it refers to another part, chosen by `name`
/// among the tables of methods.
pub(super) fn shape_of<'s>(root: &'s Value, part: &'s Value, name: Option<&str>) -> &'s Value {
    if let Some(name) = definition_of(part) {
        return &root["definitions"][name];
    }
    let mut tables = part["oneOf"].as_array().into_iter().flatten();
    tables
        .find(|table| name.is_some() && table["properties"][NAME]["const"].as_str() == name)
        .unwrap_or(part)
}

/// The keys of a recipe that the schema does not know, with the tables that they stand in.
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

/// Says all in words of TOML and of plain text, in the value of `key` and everything below.
fn polish(value: &mut Value, key: &str) {
    match value {
        Value::Object(object) => {
            // Formats such as `uint` are no words of JSON Schema.
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

/// What may be absent is `null` in JSON. TOML has no such word: it is left out, or `"none"` where
/// something is there by default.
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

/// KaTeX and links within the code as plain words.
const PLAIN: [(&str, &str); 7] = [
    (r"\alpha", "α"),
    (r"\lambda", "λ"),
    (r"\epsilon", "ε"),
    (r"\sqrt{d}", "√d"),
    ("$", ""),
    ("[`", "`"),
    ("`]", "`"),
];

/// A comment of the code for people who do not see the code, every paragraph on one line.
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

    /// Whether it can be used, beyond being read.
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
            // JSON has no such numbers.
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
