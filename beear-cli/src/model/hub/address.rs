//! Addresses of requests, and the check that they stay on the hub.

use ureq::http::Uri;

use super::HubError;

/// An absolute `http` or `https` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    text: String,
    origin: (String, String, u16),
}

impl Address {
    /// Parses the address of a hub, which has no user and no query. Slashes at its end are removed.
    ///
    /// # Errors
    ///
    /// [`HubError::NotAnEndpoint`].
    pub(super) fn of_endpoint(url: &str) -> Result<Self, HubError> {
        let url = url.trim_end_matches('/');
        let is_plain = !url.contains(['@', '?', '#']);
        Self::parse(url).filter(|_| is_plain).ok_or(HubError::NotAnEndpoint)
    }

    fn parse(url: &str) -> Option<Self> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let uri: Uri = url.parse().ok()?;
        let default = match uri.scheme_str()? {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        let origin = (uri.scheme_str()?.to_owned(), host, uri.port_u16().unwrap_or(default));
        Some(Self { text: url.to_owned(), origin })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the address of a path below this one.
    pub(super) fn below(&self, path: &str) -> Self {
        Self { text: format!("{}/{path}", self.text), origin: self.origin.clone() }
    }

    /// Returns the target of a redirect from this address, which is an address or a path of the
    /// same server.
    pub(super) fn redirected(&self, location: &str) -> Option<Self> {
        let (scheme, host, port) = &self.origin;
        if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{host}:{port}{location}"))
        } else {
            Self::parse(location)
        }
    }

    /// Returns true if both addresses have the same scheme, host and port.
    pub(super) fn is_of_the_server_of(&self, other: &Self) -> bool {
        self.origin == other.origin
    }

    /// Returns true if the connection is not encrypted.
    pub(super) fn is_open(&self) -> bool {
        self.origin.0 == "http"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_an_address_or_within_the_server() {
        let hub = Address::of_endpoint("https://Hub.example/").unwrap();
        let to = |location: &str| hub.redirected(location).unwrap();
        assert_eq!(to("/a?b=c").as_str(), "https://hub.example:443/a?b=c");
        for same in ["/a", "https://hub.example/a", "https://HUB.example:443/a"] {
            assert!(to(same).is_of_the_server_of(&hub), "{same}");
        }
        for other in [
            "//cdn.example/a",
            "https://hub.example:444/a",
            "http://hub.example/a",
            "https://hub.example@cdn.example/a",
            "https://hub.example.cdn.example/a",
        ] {
            assert!(!to(other).is_of_the_server_of(&hub), "{other}");
        }
        assert!(to("http://hub.example/a").is_open() && !hub.is_open());
        for nowhere in ["", "a/b", "ftp://hub.example/a", "https://", "javascript:a", "/a\n"] {
            assert_eq!(hub.redirected(nowhere), None, "{nowhere:?}");
        }
    }
}
