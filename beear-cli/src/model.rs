//! A model on this machine: a local folder, or a repository of a hub.

pub(crate) mod hub;
pub(crate) mod known_tokens;
pub(crate) mod language_model;
pub mod loaded;
pub(crate) mod text_process;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_models::DecoderConfig;
use beear_models::checkpoint::{
    BaseName, Checkpoint, CheckpointError, base_name_of_adapters, base_of_adapters, read_config,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::hub::{Fetched, HubName, Needed, Origin};
use crate::display::console::Console;

/// A model whose files are on this machine.
#[derive(Clone, Debug)]
pub struct Model {
    /// Folder of the model, or its `config.json`.
    folder: PathBuf,
    origin: Option<Origin>,
    /// Folder of the base model, if the model consists of adapters and the base is known.
    base: Option<PathBuf>,
    base_origin: Option<Origin>,
}

/// Record of a run's model with which it is found again: a folder, or a commit of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredModel {
    model: Place,
    /// Origin of the base of adapters, if it did not come from a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<Origin>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Place {
    Folder(PathBuf),
    Hub(Origin),
}

/// Function that brings a model of a hub onto this machine.
type Fetch<'a> = &'a dyn Fn(&HubName) -> Result<Fetched>;

impl Model {
    /// Creates the model in a folder. No request goes to a hub: if the base of adapters is not a
    /// folder, it is missing.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            origin: None,
            base: base_of_adapters(folder),
            base_origin: None,
        }
    }

    /// Finds a model by its name: a folder if there is one, and otherwise a model of the hub, which
    /// is downloaded if needed. The base that adapters name is found in the same way.
    ///
    /// # Errors
    ///
    /// If the hub does not provide the model, or it cannot be stored. A missing folder is reported
    /// by the code that reads it.
    pub(crate) fn find(name: &Path, needed: Needed, console: Console) -> Result<Self> {
        Self::find_by(name, &|name| hub::fetch(name, needed, console))
    }

    fn find_by(name: &Path, fetch: Fetch<'_>) -> Result<Self> {
        let of_hub = match name.to_str().filter(|_| !name.exists()) {
            Some(text) => HubName::parse(text)?,
            None => None,
        };
        match of_hub {
            None => Self::in_folder(name).with_base(None, fetch),
            Some(of_hub) => Self::fetched(fetch(&of_hub)?).with_base(None, fetch),
        }
    }

    /// Finds the model of an earlier run, at the same commit.
    ///
    /// # Errors
    ///
    /// Errors of [`find`](Self::find).
    pub(crate) fn find_stored(stored: &StoredModel, console: Console) -> Result<Self> {
        Self::of_stored(stored, &|name| hub::fetch(name, Needed::Everything, console))
    }

    /// Finds the model of an earlier run on this machine, without a request to a hub.
    ///
    /// # Errors
    ///
    /// If the cache does not have all of it.
    pub(crate) fn cached(stored: &StoredModel) -> Result<Self> {
        Self::of_stored(stored, &|name| Ok(hub::cached(name, Needed::Everything)?))
    }

    fn of_stored(stored: &StoredModel, fetch: Fetch<'_>) -> Result<Self> {
        let model = match &stored.model {
            Place::Folder(folder) => Self::in_folder(folder),
            Place::Hub(origin) => match origin.pinned()? {
                Some(name) => Self { origin: Some(origin.clone()), ..Self::fetched(fetch(&name)?) },
                None => Self::in_folder(Path::new(&origin.repository)),
            },
        };
        model.with_base(stored.base.as_ref(), fetch)
    }

    fn fetched(Fetched { folder, origin }: Fetched) -> Self {
        Self { origin: Some(origin), ..Self::in_folder(&folder) }
    }

    /// Adds the base of adapters if it is not a local folder: the `known` one, or the one that the
    /// adapters name.
    fn with_base(self, known: Option<&Origin>, fetch: Fetch<'_>) -> Result<Self> {
        let Some(BaseName { name, revision }) = base_name_of_adapters(&self.folder) else {
            return Ok(self);
        };
        if self.base.is_some() {
            return Ok(self);
        }
        let of_hub = match known {
            Some(origin) => origin.pinned()?,
            None => HubName::of(&name, revision.as_deref())?,
        };
        let Some(of_hub) = of_hub else { return Ok(self) };
        let Fetched { folder, origin } = fetch(&of_hub)?;
        let origin = known.cloned().unwrap_or(origin);
        Ok(Self { base: Some(folder), base_origin: Some(origin), ..self })
    }

    /// Returns the record that a run stores of its model.
    ///
    /// # Errors
    ///
    /// If the current folder no longer exists.
    pub(crate) fn stored(&self) -> Result<StoredModel> {
        let model = match &self.origin {
            Some(origin) => Place::Hub(origin.clone()),
            None => Place::Folder(std::path::absolute(&self.folder)?),
        };
        Ok(StoredModel { model, base: self.base_origin.clone() })
    }

    /// Returns the folder of the model.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the folder of the base model, if the model consists of adapters.
    pub(crate) fn base(&self) -> Option<&Path> {
        self.base.as_deref()
    }

    /// Returns all folders that the model is read from.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.folder()).chain(self.base())
    }

    /// Opens the model.
    ///
    /// # Errors
    ///
    /// Errors of [`Checkpoint::open_on`].
    pub(crate) fn open(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open_on(&self.folder, self.base())
    }

    /// Reads the shape of the model, or of its base if it consists of adapters.
    ///
    /// # Errors
    ///
    /// Errors of [`read_config`].
    pub(crate) fn config(&self) -> Result<DecoderConfig, CheckpointError> {
        match (self.base(), base_name_of_adapters(&self.folder)) {
            (Some(base), _) => read_config(base),
            (None, None) => read_config(&self.folder),
            (None, Some(BaseName { name, .. })) => Err(CheckpointError::NoBase { name }),
        }
    }

    /// Returns the name for files: the name of the folder, or of the repository without the
    /// organisation.
    pub(crate) fn name(&self) -> String {
        let name = if let Some(origin) = &self.origin {
            origin.repository.rsplit('/').next().map(str::to_owned)
        } else {
            let named = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
            named(&self.folder).or_else(|| named(&self.folder.canonicalize().ok()?))
        };
        name.unwrap_or_else(|| self.folder.display().to_string())
    }

    /// Returns true if the folder of the model, or of its base, is a commit of a hub.
    pub(crate) fn is_of_a_commit(&self, is_base: bool) -> bool {
        if is_base { self.base_origin.is_some() } else { self.origin.is_some() }
    }

    /// Returns the origins of the model and of its base for reports, or `None` if neither came from
    /// a hub.
    pub(crate) fn origins(&self) -> Option<Value> {
        match (&self.origin, &self.base_origin) {
            (None, None) => None,
            (model, base) => Some(json!({"model": model, "base": base})),
        }
    }

    /// Returns the name by which adapters refer to the model as their base.
    ///
    /// # Errors
    ///
    /// If the folder no longer exists.
    pub(crate) fn as_base(&self) -> Result<BaseName> {
        if let Some(Origin { repository, commit, .. }) = &self.origin {
            return Ok(BaseName { name: repository.clone(), revision: Some(commit.clone()) });
        }
        let folder = self.folder.canonicalize()?;
        Ok(BaseName { name: folder.to_string_lossy().into_owned(), revision: None })
    }
}

/// Shows the folder as it was given, or the origin with its commit.
impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => origin.fmt(f),
            None => self.folder.display().fmt(f),
        }
    }
}

/// Serialises the shown text.
impl Serialize for Model {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        let commit = "a1".repeat(20);
        Origin { repository: "org/name".to_owned(), revision: "main".to_owned(), commit }
    }

    fn none(name: &HubName) -> Result<Fetched> {
        anyhow::bail!("{name} is asked for")
    }

    #[test]
    fn a_folder_wins_over_a_name_of_a_hub() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("org");
        std::fs::create_dir(&folder).unwrap();
        let model = Model::find_by(&folder, &none).unwrap();
        assert_eq!((model.name(), model.origins()), ("org".to_owned(), None));
        let error = Model::find_by(Path::new("no-such/folder@v1"), &none).unwrap_err();
        assert_eq!(error.to_string(), "no-such/folder@v1 is asked for");
        // A path that cannot be a repository is left to the reader of folders.
        let model = Model::find_by(Path::new("no/such/folder"), &none).unwrap();
        assert_eq!(model.folder(), Path::new("no/such/folder"));
    }

    #[test]
    fn a_stored_model_is_found_in_the_state_that_it_had() {
        let stored = StoredModel { model: Place::Hub(origin()), base: None };
        let text = serde_json::to_string(&stored).unwrap();
        assert_eq!(serde_json::from_str::<StoredModel>(&text).unwrap(), stored);
        let fetch = |name: &HubName| {
            assert_eq!(name.to_string(), origin().to_string());
            let origin = Origin { revision: origin().commit, ..origin() };
            Ok(Fetched { folder: "cache".into(), origin })
        };
        let model = Model::of_stored(&stored, &fetch).unwrap();
        assert_eq!(model.stored().unwrap(), stored, "the revision that was asked for is kept too");
        assert_eq!((model.name(), model.to_string()), ("name".to_owned(), origin().to_string()));
    }

    #[test]
    fn a_folder_is_stored_as_a_path_as_ever() {
        let stored = Model::in_folder(Path::new("/models/suspect")).stored().unwrap();
        assert_eq!(json!(stored), json!({"model": "/models/suspect"}));
    }
}
