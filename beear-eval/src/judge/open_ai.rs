//! Judge behind an HTTP server with OpenAI's chat completions interface, the most common one.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::api_key::ApiKey;
use super::chat::{CallError, ChatRequest, Judge, JudgeId, Reply};
use super::error::JudgeError;
use crate::language_model::Finish;

/// Maximum length of a response body, in bytes: a reply of a hundred thousand tokens fits.
const LONGEST_BODY: u64 = 4 << 20;

/// Maximum number of characters of a body in an error message.
const SHOWN: usize = 300;

/// Configuration of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAiConfig {
    /// Base URL, such as `https://host/v1`; `/chat/completions` is appended.
    pub url: String,
    /// Name of the model on the server.
    pub model: String,
    /// Time limit of a call, from the connection to the last byte.
    pub timeout: Duration,
    /// PEM certificates that are trusted for `https` in place of the usual authorities.
    pub authorities: Option<String>,
}

/// Judge on an OpenAI-compatible server.
///
/// The key is sent as a bearer token to that address alone: redirects are not followed. The key is
/// redacted in every text from the server.
#[derive(Debug)]
pub struct OpenAiCompatible {
    agent: Agent,
    id: JudgeId,
    address: String,
    timeout: Duration,
    key: Option<ApiKey>,
}

impl OpenAiCompatible {
    /// Creates a judge on the server of `config`, with its API key, if the server requires one.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::NotAUrl`], [`JudgeError::Setting`] or [`JudgeError::NoCertificates`].
    pub fn new(config: OpenAiConfig, key: Option<ApiKey>) -> Result<Self, JudgeError> {
        let OpenAiConfig { url, model, timeout, authorities } = config;
        let url = url.trim_end_matches('/').to_owned();
        if let Some(problem) = url_problem(&url) {
            return Err(JudgeError::NotAUrl { problem });
        }
        if timeout.is_zero() {
            let (setting, value) = ("timeout", "0".to_owned());
            return Err(JudgeError::Setting { setting, value, expected: "more than 0" });
        }
        let roots = match authorities {
            Some(pem) => RootCerts::from(certificates(&pem)?),
            None => RootCerts::WebPki,
        };
        let agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            // Proxy variables of the environment are ignored.
            .proxy(None)
            .build()
            .into();
        let address = format!("{url}/chat/completions");
        Ok(Self { agent, id: JudgeId { model, place: url }, address, timeout, key })
    }

    fn post(&self, body: &[u8]) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.post(&self.address).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", key.bearer());
        }
        request.send(body)
    }

    /// Formats a body for an error message: JSON is written in its canonical spelling so that the
    /// key is found, the key is redacted, and only then is the text shortened.
    fn shown(&self, body: &[u8]) -> String {
        let text = match serde_json::from_slice::<Value>(body) {
            Ok(value) => value.to_string(),
            Err(_) => String::from_utf8_lossy(body).into_owned(),
        };
        let text = self.redacted(&text).replace(|c: char| c.is_control(), " ");
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}..", &text[..end]),
            None => text,
        }
    }

    fn redacted(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.redact(text))
    }

    fn call_error(&self, error: ureq::Error) -> CallError {
        match error {
            ureq::Error::Timeout(_) => {
                let milliseconds = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
                CallError::Timeout { milliseconds }
            }
            error => CallError::Connection { reason: self.shown(error.to_string().as_bytes()) },
        }
    }

    fn reply(&self, body: &[u8]) -> Result<Reply, CallError> {
        let malformed = |reason: String| CallError::Malformed { reason, body: self.shown(body) };
        let value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(error) if error.is_eof() => {
                return Err(CallError::Truncated { n_bytes: body.len() });
            }
            Err(error) => return Err(malformed(self.redacted(&format!("not JSON: {error}")))),
        };
        let choice = &value["choices"][0];
        let Value::String(text) = &choice["message"]["content"] else {
            return Err(malformed("no text at `choices[0].message.content`".to_owned()));
        };
        let finish = match choice["finish_reason"].as_str() {
            Some("stop") => Some(Finish::Stop),
            Some("length") => Some(Finish::Length),
            _ => None,
        };
        Ok(Reply { text: self.redacted(text), finish })
    }
}

impl Judge for OpenAiCompatible {
    fn id(&self) -> &JudgeId {
        &self.id
    }

    fn ask(&self, request: &ChatRequest) -> Result<Reply, CallError> {
        let body = json!({
            "model": self.id.model,
            "messages": request.messages,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        });
        let mut response =
            self.post(body.to_string().as_bytes()).map_err(|error| self.call_error(error))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("Retry-After");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = response.body_mut().with_config().limit(LONGEST_BODY).read_to_vec();
        if status != 200 {
            // The status is reported even if the body cannot be read.
            let body = self.shown(&body.unwrap_or_default());
            return Err(CallError::Status { status, retry_after, body });
        }
        match body {
            Ok(body) => self.reply(&body),
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                let reason = format!("longer than {LONGEST_BODY} bytes");
                Err(CallError::Malformed { reason, body: String::new() })
            }
            Err(error @ ureq::Error::Timeout(_)) => Err(self.call_error(error)),
            Err(_) => Err(CallError::Truncated { n_bytes: 0 }),
        }
    }
}

/// Returns the problem of a URL; None if the URL is valid.
fn url_problem(url: &str) -> Option<&'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Some("begins neither with `https://` nor with `http://`") };
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        return Some("has no host");
    }
    if host.contains('@') {
        return Some("has a user or a password");
    }
    if rest.contains(['?', '#']) {
        return Some("has a query or a fragment");
    }
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_plain).then_some("has characters that are not visible ASCII")
}

/// Parses the certificates of `pem`, at least one.
fn certificates(pem: &str) -> Result<Vec<Certificate<'static>>, JudgeError> {
    let mut found = Vec::new();
    for item in parse_pem(pem.as_bytes()) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(JudgeError::NoCertificates),
        }
    }
    if found.is_empty() { Err(JudgeError::NoCertificates) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<OpenAiCompatible, JudgeError> {
        let (url, model) = (url.to_owned(), "m".to_owned());
        let key = ApiKey::new("sk-secret/0123").unwrap();
        OpenAiCompatible::new(
            OpenAiConfig { url, model, timeout: Duration::from_secs(1), authorities: None },
            Some(key),
        )
    }

    #[test]
    fn a_url_with_a_secret_in_it_is_refused_without_showing_it() {
        for url in [
            "",
            "host/v1",
            "ftp://host",
            "http://",
            "https:///v1",
            "https://me:secret@host/v1",
            "https://host/v1?key=secret",
            "https://host/#secret",
            "https://ho st/secret",
        ] {
            let error = server(url).unwrap_err();
            assert!(matches!(error, JudgeError::NotAUrl { .. }), "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        assert_eq!(
            server("http://127.0.0.1:8000/v1/").unwrap().id.place,
            "http://127.0.0.1:8000/v1"
        );
    }

    #[test]
    fn the_key_is_left_out_before_a_body_is_cut() {
        let server = server("https://host/v1").unwrap();
        for filler in 0..=SHOWN + 20 {
            let body = format!("{}sk-secret/0123 and more", "x".repeat(filler));
            assert!(!server.shown(body.as_bytes()).contains("sk-s"), "{filler}");
        }
        // JSON has several spellings of a slash and of every letter.
        let escaped = br#"{"error": "no sk-secret\/0123, \u0073k-secret/0123"}"#;
        assert_eq!(server.shown(escaped), r#"{"error":"no [key], [key]"}"#);
    }
}
