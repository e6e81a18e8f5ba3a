//! Who is believed when they say that a server is the one it claims to be.

use std::path::Path;

use ureq::tls::{PemItem, RootCerts, parse_pem};

use super::HubError;

/// The certificates in `file`, in PEM; without one those that Mozilla ships.
///
/// # Errors
///
/// If the file cannot be read, or holds none.
pub(super) fn of_file(file: Option<&Path>) -> Result<RootCerts, HubError> {
    let Some(path) = file else { return Ok(RootCerts::WebPki) };
    let pem = beear_input::read(path);
    let pem = pem.map_err(|source| HubError::Unreadable { path: path.to_owned(), source })?;
    // A bundle of a system may hold one that is not understood: the others count.
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let found: Vec<_> = parse_pem(&pem).filter_map(certificate).collect();
    if found.is_empty() {
        return Err(HubError::NoCertificates { path: path.to_owned() });
    }
    Ok(RootCerts::from(found))
}
