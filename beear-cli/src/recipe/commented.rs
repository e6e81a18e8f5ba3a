//! A recipe for people to edit: every setting below a comment that explains it in the words of the
//! schema.

use beear_core::Defence;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::schema::{definition_of, schema, shape_of};
use super::{NAME, Recipe, RecipeError, invalid};

/// Maximum length of a comment line.
const WIDTH: usize = 100;

/// Writes out `recipe` with every setting of `method`. Absent settings are written as comments.
///
/// # Errors
///
/// [`RecipeError::Invalid`] if a value has no form in TOML.
pub(crate) fn commented(recipe: &Recipe, method: &Defence) -> Result<String, RecipeError> {
    let values: Table = recipe.resolved(method)?.parse().map_err(invalid)?;
    let schema = schema();
    Ok(Words { schema: &schema }.table("", &schema, Some(&values)))
}

/// Formats `text` as comments.
pub(crate) fn comment(text: &str) -> String {
    let mut lines = String::new();
    for paragraph in text.split("\n\n") {
        let mut line = "#".to_owned();
        for word in paragraph.split_whitespace() {
            if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines += &line;
                lines.push('\n');
                "#".clone_into(&mut line);
            }
            line.push(' ');
            line += word;
        }
        lines += &line;
        lines.push('\n');
    }
    lines
}

/// The schema's descriptions of settings.
struct Words<'a> {
    schema: &'a Json,
}

impl Words<'_> {
    /// Writes the settings of a table, and then the tables within it. An absent table is written
    /// with its defaults, as a comment.
    fn table(&self, path: &str, shape: &Json, values: Option<&Table>) -> String {
        let name = values.and_then(|values| values.get(NAME)?.as_str());
        let shape = shape_of(self.schema, shape, name);
        let properties = || shape["properties"].as_object().into_iter().flatten();
        let mut text = String::new();
        for (key, property) in properties().filter(|(_, p)| !self.is_table(p)) {
            let value = values.and_then(|values| values.get(key));
            let off = if value.is_some() { "" } else { "# " };
            let written = value.map_or_else(|| example(property), show);
            text.extend([format!("{}{off}{key} = {written}\n", self.explanation(property))]);
        }
        for (key, property) in properties().filter(|(_, p)| self.is_table(p)) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let within = values.and_then(|values| values.get(key)?.as_table());
            let off = if within.is_some() { "" } else { "# " };
            text.extend([format!("\n{}{off}[{path}]\n", self.explanation(property))]);
            text += &self.table(&path, property, within);
        }
        text
    }

    fn is_table(&self, property: &Json) -> bool {
        let shape = definition_of(property).map(|name| &self.schema["definitions"][name]);
        let shape = shape.unwrap_or(property);
        let is_choice = shape["oneOf"].as_array().is_some_and(|choices| {
            choices.iter().all(|choice| !choice["properties"][NAME].is_null())
        });
        shape["properties"].is_object() || is_choice
    }

    /// Describes a setting, with the choices of an enum.
    fn explanation(&self, property: &Json) -> String {
        let mut text = property["description"].as_str().unwrap_or_default().to_owned();
        if self.is_table(property) {
            return comment(&text);
        }
        let shape = definition_of(property).map(|name| &self.schema["definitions"][name]);
        let choices = choices(shape.unwrap_or(property));
        if !choices.is_empty() {
            text.extend([format!(" One of {}.", choices.join(", "))]);
        }
        if property["anyOf"].as_array().is_some_and(|any| any.iter().any(|c| c["const"] == "none"))
        {
            text += " Or \"none\".";
        }
        comment(&text)
    }
}

/// Returns the choices of an enum, in TOML.
fn choices(shape: &Json) -> Vec<String> {
    if let Some(names) = shape["enum"].as_array() {
        return names.iter().map(Json::to_string).collect();
    }
    let choices = shape["oneOf"].as_array().into_iter().flatten();
    let written = choices.flat_map(|choice| {
        if let Some(names) = choice["enum"].as_array() {
            return names.iter().map(Json::to_string).collect();
        }
        let name = (!choice["const"].is_null()).then(|| choice["const"].to_string());
        let key = choice["required"][0].as_str().map(|key| format!("{{ {key} = NUMBER }}"));
        name.or(key).into_iter().collect::<Vec<_>>()
    });
    written.collect()
}

/// Returns an example value for a setting without a value.
fn example(property: &Json) -> String {
    let stated = [&property["default"], &property["examples"][0], &property["enum"][0]];
    let stated = stated.into_iter().find(|value| !value.is_null());
    let value = stated.and_then(|value| Value::try_from(value).ok());
    value.as_ref().map_or_else(|| "\"none\"".to_owned(), show)
}

/// Formats a value on one line; tables in a list have a line each.
fn show(value: &Value) -> String {
    match value {
        Value::Array(values) if values.iter().any(Value::is_table) => {
            let lines = values.iter().map(|value| format!("    {value},\n"));
            format!("[\n{}]", lines.collect::<String>())
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use beear_core::DecoderSize;

    use super::*;

    const SIZE: DecoderSize = DecoderSize { n_layers: 32, d_model: 4096 };

    /// Every method and preset, and both kinds of training.
    const KINDS: [&[&str]; 6] = [
        &[],
        &["preset=paper"],
        &["method.name=latent-adversarial"],
        &["method.name=layer-consistency"],
        &["method.name=fine-tuning", "prompt_format=paper-5"],
        &["train.weights=lora", "train.layers=[8, 24]", "method.stop_above_loss=3.0"],
    ];

    fn recipe(assignments: &[&str]) -> Recipe {
        let assignments: Vec<String> = assignments.iter().map(|s| (*s).to_owned()).collect();
        Recipe::read(None, None, &assignments).unwrap()
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for assignments in KINDS {
            let recipe = recipe(assignments);
            let method = recipe.method(SIZE).unwrap();
            let text = commented(&recipe, &method).unwrap();
            let again = Recipe::parse(&text, None, &[]).unwrap();
            assert_eq!(again.method(SIZE).unwrap(), method, "{text}");
            assert_eq!(again.resolved(&method).unwrap(), recipe.resolved(&method).unwrap());
        }
    }

    #[test]
    fn every_setting_is_explained() {
        for assignments in KINDS {
            let recipe = recipe(assignments);
            let text = commented(&recipe, &recipe.method(SIZE).unwrap()).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2) {
                let is_setting = pair[1].contains(" = ") && !pair[1].starts_with([' ', '#']);
                assert!(!is_setting || pair[0].len() > 3 && pair[0].starts_with("# "), "{pair:?}");
            }
            assert!(text.contains("# prompt_format = ") || text.contains("\nprompt_format = "));
        }
    }

    #[test]
    fn what_is_absent_can_be_put_in_by_taking_the_sign_away() {
        let recipe = recipe(&["train.weights=lora"]);
        let text = commented(&recipe, &recipe.method(SIZE).unwrap()).unwrap();
        let text = text.replace("# prompt_format =", "prompt_format =");
        let text = text.replace("# layers =", "layers =");
        let again = Recipe::parse(&text, None, &[]).unwrap();
        assert_eq!(again.prompt_format.as_deref(), Some("paper-1-4"));
        assert!(again.train.layers.is_some());
    }

    #[test]
    fn long_comments_are_broken_between_words() {
        let text = comment(&"word ".repeat(50));
        assert!(text.lines().all(|line| line.starts_with("# word") && line.len() <= WIDTH));
        assert_eq!(text.matches("word").count(), 50);
    }
}
