//! Names of models on a hub: `org/name` and a revision.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use super::HubError;

/// Default revision.
const DEFAULT_REVISION: &str = "main";

/// Maximum number of characters of an organisation or a name.
const LONGEST_PART: usize = 96;

/// Maximum number of characters of a revision, which becomes a file name.
const LONGEST_REVISION: usize = 200;

/// A model of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubName {
    pub(super) repository: Repository,
    pub(super) revision: Revision,
}

/// A repository in the form `org/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository(String);

/// A branch, a tag or a commit. It is a path of plain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Revision(String);

/// A commit: forty hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit(String);

/// Origin of a model on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// Repository in the form `org/name`.
    pub(crate) repository: String,
    /// Requested revision.
    pub(crate) revision: String,
    /// Commit of the revision at that time.
    pub(crate) commit: String,
}

impl HubName {
    /// Parses `org/name` or `org/name@revision`. Returns `None` if the text cannot be the name of a
    /// repository.
    ///
    /// # Errors
    ///
    /// [`HubError::NotARevision`].
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, HubError> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        Self::of(repository, revision)
    }

    /// Returns a repository at a revision, by default `main`, or `None` if the text cannot be a
    /// repository.
    ///
    /// # Errors
    ///
    /// [`HubError::NotARevision`].
    pub(crate) fn of(repository: &str, revision: Option<&str>) -> Result<Option<Self>, HubError> {
        let Some(repository) = Repository::parse(repository) else { return Ok(None) };
        let revision = revision.unwrap_or(DEFAULT_REVISION);
        let known = Revision::parse(revision);
        let revision =
            known.ok_or_else(|| HubError::NotARevision { revision: revision.to_owned() })?;
        Ok(Some(Self { repository, revision }))
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository.0, self.revision.0)
    }
}

impl Repository {
    fn parse(text: &str) -> Option<Self> {
        let (organisation, name) = text.split_once('/')?;
        let is_part = |part: &str| {
            let is_edge = |c: char| matches!(c, '-' | '.');
            (1..=LONGEST_PART).contains(&part.len())
                && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
                && !part.starts_with(is_edge)
                && !part.ends_with(is_edge)
        };
        let is_allowed = is_part(organisation) && is_part(name);
        // The hub allows none of these. `--` separates the parts in the folder names of the cache.
        let is_git = text.rsplit_once('.').is_some_and(|(_, end)| end == "git");
        let is_forbidden = text.contains("--") || text.contains("..") || is_git;
        (is_allowed && !is_forbidden).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the repository's folder in the cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl Revision {
    fn parse(text: &str) -> Option<Self> {
        let is_plain = |c: u8| c.is_ascii_graphic() && !b"\\:?*[~^@\"<>|%#".contains(&c);
        let is_name = |part: &str| !part.is_empty() && !part.starts_with('.');
        let is_path = text.len() <= LONGEST_REVISION
            && text.bytes().all(is_plain)
            && text.split('/').all(is_name);
        is_path.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the commit, if the revision is one.
    pub(super) fn commit(&self) -> Option<Commit> {
        Commit::parse(&self.0)
    }

    /// Returns the revision as a part of a URL.
    pub(super) fn in_url(&self) -> String {
        in_url(&self.0)
    }
}

impl Commit {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        (text.len() == 40 && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Origin {
    pub(super) fn new(name: &HubName, commit: &Commit) -> Self {
        Self {
            repository: name.repository.0.clone(),
            revision: name.revision.0.clone(),
            commit: commit.0.clone(),
        }
    }

    /// Returns the name of exactly this commit, or `None` if the repository's name is not valid.
    ///
    /// # Errors
    ///
    /// [`HubError::NotARevision`].
    pub(crate) fn pinned(&self) -> Result<Option<HubName>, HubError> {
        HubName::of(&self.repository, Some(&self.commit))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.commit)
    }
}

/// Encodes a text as one part of the path of a URL.
pub(super) fn in_url(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            written.push(char::from(byte));
        } else {
            write!(written, "%{byte:02X}").expect("a string takes any text");
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        HubName::parse(text).unwrap().map(|name| name.to_string())
    }

    #[test]
    fn a_repository_and_a_revision_are_read() {
        assert_eq!(shown("org/name").unwrap(), "org/name@main");
        assert_eq!(shown("a.b/C_1-x@v1.0").unwrap(), "a.b/C_1-x@v1.0");
        let name = HubName::parse("org/name@refs/pr/1").unwrap().unwrap();
        assert_eq!(name.revision.in_url(), "refs%2Fpr%2F1");
        assert_eq!(name.repository.folder(), "models--org--name");
        assert_eq!(name.revision.commit(), None);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let name = HubName::parse(&format!("org/name@{commit}")).unwrap().unwrap();
        assert_eq!(name.revision.commit().unwrap().as_str(), commit);
    }

    #[test]
    fn what_can_only_be_a_path_is_no_repository() {
        let paths = [
            "model", "./a/b", "../a", "/a/b", "a/b/c", "a/", "/a", "a//b", ".a/b", "a/b.", "-a/b",
            "a/..", "a b/c", "a--b/c", "a/b.git", "a\\b/c", "é/a", "a/b\n", "",
        ];
        for path in paths {
            assert_eq!(shown(path), None, "{path:?}");
        }
    }

    #[test]
    fn a_revision_stays_below_its_folder() {
        let long = "r".repeat(LONGEST_REVISION + 1);
        for revision in
            ["", "..", "a/../b", "/etc", "a//b", "a/", ".x", "a b", "a\\b", "a\n", "a%2e", &long]
        {
            let error = HubName::parse(&format!("org/name@{revision}")).unwrap_err();
            assert!(matches!(error, HubError::NotARevision { .. }), "{revision:?}");
        }
    }

    #[test]
    fn a_commit_is_forty_digits() {
        for text in ["main", "0123", &"G".repeat(40), &"A".repeat(40), &"a".repeat(41)] {
            assert_eq!(Commit::parse(text), None, "{text}");
        }
    }
}
