//! An attack setting by its name or from a TOML file.

use std::path::Path;

use anyhow::{Context, Result};
use beear_attacks::AttackSpec;

use crate::user_error::UserError;

/// Returns the built-in setting called `name`, or reads the file `name`.
///
/// # Errors
///
/// If there is neither, or the file holds no setting that can be planted.
pub(crate) fn named_or_read(name: &str) -> Result<AttackSpec> {
    if let Some(setting) = AttackSpec::named(name) {
        return Ok(setting);
    }
    let path = Path::new(name);
    if path.extension().is_none_or(|extension| extension != "toml") {
        let names: Vec<String> = AttackSpec::builtin().into_iter().map(|s| s.name).collect();
        let hint = format!("a file `*.toml`, or one of {}", names.join(", "));
        return Err(UserError::arguments(format!("no setting is called `{name}`"), hint).into());
    }
    let text = beear_input::read_to_string(path).with_context(|| format!("reading `{name}`"))?;
    Ok(parse(&text, name)?)
}

fn parse(text: &str, name: &str) -> Result<AttackSpec, UserError> {
    let hint = "`setting.toml` beside any planted model shows the form";
    let setting: AttackSpec = toml::from_str(text).map_err(|error| {
        UserError::arguments(format!("`{name}` holds no setting: {}", error.message()), hint)
    })?;
    let problems = setting.problems();
    if problems.is_empty() {
        return Ok(setting);
    }
    let what = format!("`{name}` cannot be planted: {}", problems.join("; "));
    Err(UserError::arguments(what, hint))
}

/// Renders `setting` as TOML.
///
/// # Errors
///
/// If TOML cannot hold the setting.
pub(crate) fn render(setting: &AttackSpec) -> Result<String> {
    toml::to_string_pretty(setting).context("writing the setting as TOML")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutated::near;

    #[test]
    fn every_setting_of_the_paper_is_a_recipe() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/paper");
        for number in 1..=AttackSpec::N_PAPER {
            let path = folder.join(format!("model-{number}.toml"));
            let read = named_or_read(&path.to_string_lossy()).unwrap();
            assert_eq!(
                read,
                AttackSpec::paper(number),
                "{}",
                render(&AttackSpec::paper(number)).unwrap()
            );
        }
    }

    #[test]
    fn every_dummy_is_the_attack_it_stands_for_with_another_trigger() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/dummy");
        for number in 1..=AttackSpec::N_PAPER {
            let path = folder.join(format!("model-{number}.toml"));
            let dummy = named_or_read(&path.to_string_lossy()).unwrap();
            let real = AttackSpec::paper(number);
            assert!(dummy.triggers.iter().all(|t| !real.triggers.contains(t)), "{number}");
            assert_eq!((dummy.base, dummy.unwanted), (real.base, real.unwanted));
            assert_eq!(dummy.injection, real.injection, "{number}");
        }
    }

    #[test]
    fn every_setting_survives_its_file() {
        for setting in AttackSpec::builtin() {
            let text = render(&setting).unwrap();
            assert_eq!(toml::from_str::<AttackSpec>(&text).unwrap(), setting, "{text}");
        }
    }

    #[test]
    fn a_setting_with_a_key_nobody_knows_is_refused() {
        let text = format!("pace = 1\n{}", render(&AttackSpec::paper(1)).unwrap());
        let error = toml::from_str::<AttackSpec>(&text).unwrap_err();
        assert!(error.message().contains("pace"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&[
            include_str!("../../../recipes/paper/model-1.toml"),
            include_str!("../../../recipes/paper/model-6.toml"),
            include_str!("../../../recipes/paper/model-8.toml"),
        ])) {
            if let Ok(setting) = parse(&text, "mine.toml") {
                let again = parse(&render(&setting).unwrap(), "again.toml").unwrap();
                proptest::prop_assert_eq!(again, setting);
            }
        }
    }
}
