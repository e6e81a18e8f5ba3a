//! A hub over `https`: it is believed by its certificate alone.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::fixture::{ANSWER, Finished, Place, finish};
use crate::hub::{ASK, files_of};
use crate::hub_server::{Hub, TOKEN};

/// A place, and a hub with a certificate of its own making, which is in `hub.pem`.
fn place_and_hub() -> (Place, Hub) {
    let place = Place::new();
    let names = vec!["127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a name");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("the key is that of the certificate");
    place.write("hub.pem", cert.pem());
    let hub = Hub::start_secure([("org/suspect", files_of(&place, "model"))], tls);
    (place, hub)
}

fn ask(place: &Place, hub: &Hub, authorities: Option<(&str, &str)>) -> Finished {
    let arguments = [["generate", "--model", "org/suspect"].as_slice(), &ASK].concat();
    let mut command = hub.command(place, Some(TOKEN), &arguments);
    finish(command.envs(authorities), "")
}

#[test]
fn a_hub_whose_certificate_is_trusted_is_asked() {
    for variable in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"] {
        let (place, hub) = place_and_hub();
        assert!(hub.endpoint.starts_with("https://"));
        let asked = ask(&place, &hub, Some((variable, "hub.pem")));
        assert_eq!(asked.printed(), format!("{ANSWER}\n"), "{variable}");
    }
}

#[test]
fn any_other_is_told_nothing_and_the_way_out_is_said() {
    let (place, hub) = place_and_hub();
    let (other, _) = place_and_hub();
    place.write("other.pem", other.read("hub.pem"));
    for authorities in [None, Some(("SSL_CERT_FILE", "other.pem"))] {
        let refused = ask(&place, &hub, authorities);
        let (code, said) = refused.mistake();
        assert!(code == 3 && said.contains("certificate"), "{said}");
        assert!(said.contains("set SSL_CERT_FILE"), "{said}");
    }
    assert!(hub.take_seen().is_empty(), "neither the token nor a name");
    let refused = ask(&place, &hub, Some(("SSL_CERT_FILE", "safety.jsonl")));
    let (code, said) = refused.mistake();
    assert!(code == 2 && said.contains("no certificate"), "{said}");
}
