//! Hub, cache and token, read from the environment variables of Hugging Face's own library.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::HubError;
use super::address::Address;
use super::token::Token;

const ENDPOINT: &str = "https://huggingface.co";

/// Settings of a hub from the environment.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Address of the hub without a slash at its end.
    pub(super) endpoint: Address,
    /// Folder of all repositories.
    pub(super) cache: PathBuf,
    pub(super) token: Option<Token>,
    /// File of the trusted certificates, if the default ones are not used.
    pub(super) authorities: Option<PathBuf>,
    /// True if no request may be made.
    pub(super) is_offline: bool,
}

impl Settings {
    /// Reads the settings of this process.
    ///
    /// # Errors
    ///
    /// If a variable is invalid, or the file of the token cannot be read.
    pub(super) fn of_environment() -> Result<Self, HubError> {
        Self::of(&Environment(&|name| std::env::var_os(name)))
    }

    fn of(environment: &Environment<'_>) -> Result<Self, HubError> {
        let endpoint = environment.text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Self {
            endpoint: Address::of_endpoint(&endpoint)?,
            cache: environment.cache().ok_or(HubError::NoHome)?,
            token: environment.token()?,
            authorities: environment.authorities(),
            is_offline: environment
                .text("HF_HUB_OFFLINE")
                .or_else(|| environment.text("TRANSFORMERS_OFFLINE"))
                .is_some_and(|value| is_true(&value)),
        })
    }
}

/// Function that looks up a variable.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// Returns a variable that is not empty.
    fn get(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.into_string().ok()
    }

    /// Returns a variable as a path, with a leading `~` replaced by the user's folder.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.get(name)?);
        match path.strip_prefix("~") {
            Ok(rest) => Some(self.user()?.join(rest)),
            Err(_) => Some(path),
        }
    }

    fn user(&self) -> Option<PathBuf> {
        self.get("HOME").or_else(|| self.get("USERPROFILE")).map(PathBuf::from)
    }

    fn home(&self) -> Option<PathBuf> {
        let fallback = || {
            let caches =
                self.path("XDG_CACHE_HOME").or_else(|| Some(self.user()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        };
        self.path("HF_HOME").or_else(fallback)
    }

    fn cache(&self) -> Option<PathBuf> {
        let named = self.path("HF_HUB_CACHE").or_else(|| self.path("HUGGINGFACE_HUB_CACHE"));
        named.or_else(|| Some(self.home()?.join("hub")))
    }

    /// Returns the file of certificates that other tools of this user trust.
    fn authorities(&self) -> Option<PathBuf> {
        let names = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"];
        names.into_iter().find_map(|name| self.path(name))
    }

    /// Returns the token of a variable, or else the token in the file that `hf auth login` writes.
    fn token(&self) -> Result<Option<Token>, HubError> {
        if self.text("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)) {
            return Ok(None);
        }
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            let Some(value) = self.get(name) else { continue };
            let token = Token::new(value.to_str().ok_or(HubError::NotAToken)?)?;
            if token.is_some() {
                return Ok(token);
            }
        }
        let path = self.path("HF_TOKEN_PATH").or_else(|| Some(self.home()?.join("token")));
        path.map_or(Ok(None), |path| token_of_file(&path))
    }
}

fn token_of_file(path: &Path) -> Result<Option<Token>, HubError> {
    match beear_input::read_to_string(path) {
        Ok(text) => Token::new(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HubError::Unreadable { path: path.to_owned(), source }),
    }
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Settings::of(&Environment(&get))
    }

    #[test]
    fn the_most_specific_variable_names_the_cache() {
        let all = [
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "/c"),
            ("XDG_CACHE_HOME", "/d"),
            ("HOME", "/none"),
        ];
        let expected = ["/a", "/b", "/c/hub", "/d/huggingface/hub", "/none/.cache/huggingface/hub"];
        for (from, expected) in expected.iter().enumerate() {
            assert_eq!(of(&all[from..]).unwrap().cache, Path::new(expected));
        }
        assert!(matches!(of(&[]), Err(HubError::NoHome)));
    }

    #[test]
    fn an_empty_variable_is_none_and_a_tilde_is_the_folder_of_the_user() {
        let settings =
            of(&[("HF_HUB_CACHE", ""), ("HF_HOME", "~/models"), ("HOME", "/none")]).unwrap();
        assert_eq!(settings.cache, Path::new("/none/models/hub"));
    }

    #[test]
    fn the_token_comes_from_a_variable_or_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let other = dir.path().join("other");
        let token = |variables: &[(&str, &str)]| {
            let token = of(&[&[("HF_HOME", home)], variables].concat()).unwrap().token;
            token.map(|token| token.bearer())
        };
        assert_eq!(token(&[]), None);
        std::fs::write(dir.path().join("token"), "of-home\n").unwrap();
        std::fs::write(&other, "of-path\n").unwrap();
        let all = [
            ("HF_TOKEN", "of-variable"),
            ("HUGGING_FACE_HUB_TOKEN", "of-old-variable"),
            ("HF_TOKEN_PATH", other.to_str().unwrap()),
        ];
        let expected = ["of-variable", "of-old-variable", "of-path", "of-home"];
        for (from, expected) in expected.iter().enumerate() {
            assert_eq!(token(&all[from..]).unwrap(), format!("Bearer {expected}"));
        }
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"), all[0]]), None);
    }

    #[test]
    fn offline_is_what_the_library_takes_for_true() {
        let is_offline = |variables: &[(&str, &str)]| {
            of(&[&[("HOME", "/none")], variables].concat()).unwrap().is_offline
        };
        for value in ["1", "on", "Yes", "TRUE"] {
            assert!(is_offline(&[("HF_HUB_OFFLINE", value)]), "{value}");
        }
        assert!(is_offline(&[("TRANSFORMERS_OFFLINE", "1")]));
        assert!(!is_offline(&[]) && !is_offline(&[("HF_HUB_OFFLINE", "0")]));
    }

    #[test]
    fn an_endpoint_is_an_address_without_secrets() {
        let endpoint = |url: &str| of(&[("HOME", "/none"), ("HF_ENDPOINT", url)]);
        assert_eq!(endpoint("").unwrap().endpoint.as_str(), ENDPOINT);
        assert_eq!(endpoint("http://host:1/hub/").unwrap().endpoint.as_str(), "http://host:1/hub");
        for url in
            ["host", "ftp://host", "https://", "https://me:secret@host", "https://host?k=secret"]
        {
            let error = endpoint(url).unwrap_err();
            assert!(matches!(error, HubError::NotAnEndpoint), "{url}");
        }
    }
}
