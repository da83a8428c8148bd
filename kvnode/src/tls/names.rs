//! Whether a caller's certificate is that of a node: it names the host of a node of the map.
//!
//! rustls has checked before who signed it and that it is valid. Names are compared as a client compares them.

use kvclient::shard_map::ShardMap;
use rustls::{
    CertificateError, Error,
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};

/// Whether one of the map's nodes is reached under a name, or an IP address, of this certificate.
pub fn is_of_a_node(certificate: &CertificateDer<'_>, map: &ShardMap) -> bool {
    let Ok(certificate) = ParsedCertificate::try_from(certificate) else {
        return false;
    };
    map.nodes().any(|node| {
        ServerName::try_from(node.address.bare_host())
            .is_ok_and(|host| verify_server_name(&certificate, &host).is_ok())
    })
}

/// Whether a node at this host, a name or an IP address, may show this certificate.
///
/// # Errors
/// What the certificate is for instead.
pub fn check_host(certificate: &CertificateDer<'_>, host: &str) -> Result<(), String> {
    let host = ServerName::try_from(host).map_err(|_| "no host of this name".to_owned())?;
    let checked = ParsedCertificate::try_from(certificate)
        .and_then(|certificate| verify_server_name(&certificate, &host));
    checked.map_err(|error| match error {
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented, ..
        }) if !presented.is_empty() => presented.join(", "),
        Error::InvalidCertificate(
            CertificateError::NotValidForNameContext { .. } | CertificateError::NotValidForName,
        ) => "nobody by name".to_owned(),
        error => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn only_a_host_of_the_map_makes_it_a_node() {
        let text = "[[shards]]\nname = \"a\"\nidx = 0\naddress = \"db.example.org:1\"\nreplica = \"[::1]:2\"\n";
        let map = kvclient::shard_map::toml::parse(text, "map.toml").unwrap();
        for (names, is_node) in [
            (&["db.example.org"][..], true),
            (&["x", "::1"], true),
            (&["*.example.org"], true),
            (&["example.org"], false),
            (&["x.db.example.org"], false),
            (&["127.0.0.1"], false),
            (&["client"], false),
            (&[], false),
        ] {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let params = CertificateParams::new(names.clone()).unwrap();
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(is_of_a_node(certificate.der(), &map), is_node, "{names:?}");
        }
    }
    #[test]
    fn a_certificate_of_one_host_is_not_that_of_another() {
        let certificate = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let params = CertificateParams::new(names).unwrap();
            params.self_signed(&KeyPair::generate().unwrap()).unwrap()
        };
        let two = certificate(&["a.example.org", "10.0.0.1"]);
        assert_eq!(check_host(two.der(), "a.example.org"), Ok(()));
        assert_eq!(check_host(two.der(), "10.0.0.1"), Ok(()));
        for other in ["b.example.org", "10.0.0.2"] {
            let names = check_host(two.der(), other).unwrap_err();
            assert!(names.contains("a.example.org"), "{names}");
            assert!(names.contains("10.0.0.1"), "{names}");
        }
        let nobody = check_host(certificate(&[]).der(), "a.example.org");
        assert_eq!(nobody, Err("nobody by name".to_owned()));
        let broken = CertificateDer::from(vec![0x30, 0]);
        assert!(check_host(&broken, "a.example.org").is_err());
    }
}
