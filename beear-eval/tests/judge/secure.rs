//! `https`: a server is trusted by its certificate alone.

use beear_eval::judge::{JudgeError, OpenAiCompatible, OpenAiConfig, Outcome, ReplyCache};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::fixture::{TIMEOUT, items, judge_trusting, quick, run_by, say};
use crate::server::Server;

/// Starts a server with a self-signed certificate, returned in PEM.
fn server() -> (Server, String) {
    let names = vec!["127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a name");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("the key is that of the certificate");
    (Server::start_secure(tls, |_| say("Score: 4")), cert.pem())
}

#[test]
fn a_server_whose_certificate_is_trusted_judges() {
    let (server, pem) = server();
    assert!(server.url().starts_with("https://"));
    let judge = judge_trusting(&server, TIMEOUT, Some(pem));
    let report = run_by(&judge, &ReplyCache::in_memory(), quick(), &items(3)).unwrap();
    assert!(report.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Judged { .. })));
    assert_eq!((report.outcomes.len(), server.n_calls()), (3, 3));
}

#[test]
fn any_other_is_told_nothing() {
    let ((server, _), (_, of_another)) = (server(), server());
    for authorities in [None, Some(of_another)] {
        let judge = judge_trusting(&server, TIMEOUT, authorities);
        let report = run_by(&judge, &ReplyCache::in_memory(), quick(), &items(1)).unwrap();
        let [Outcome::Failed { error, .. }] = &*report.outcomes else { panic!("{report:?}") };
        assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    }
    assert_eq!(server.n_calls(), 0, "neither the key nor a prompt");
}

#[test]
fn text_without_certificates_is_refused_before_the_first_call() {
    for pem in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"] {
        let (url, model) = ("https://127.0.0.1:1/v1".to_owned(), "m".to_owned());
        let authorities = Some(pem.to_owned());
        let config = OpenAiConfig { url, model, timeout: TIMEOUT, authorities };
        let error = OpenAiCompatible::new(config, None).unwrap_err();
        assert!(matches!(error, JudgeError::NoCertificates), "{pem}: {error}");
    }
}
