//! Certificate authorities that are trusted to identify servers.

use std::path::Path;

use ureq::tls::{PemItem, RootCerts, parse_pem};

use super::HubError;

/// Reads the certificates in `file`, in PEM. Without a file the certificates of Mozilla are used.
///
/// # Errors
///
/// If the file cannot be read, or contains no certificate.
pub(super) fn of_file(file: Option<&Path>) -> Result<RootCerts, HubError> {
    let Some(path) = file else { return Ok(RootCerts::WebPki) };
    let pem = beear_input::read(path);
    let pem = pem.map_err(|source| HubError::Unreadable { path: path.to_owned(), source })?;
    // A bundle of the system may contain an unsupported entry. The other entries count.
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
