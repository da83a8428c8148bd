//! Whether a caller's certificate is that of a node: it names the host of a node of the map.
//!
//! rustls has checked before who signed it and that it is valid. Names are compared as a client compares them.

use kvclient::shard_map::ShardMap;
use rustls::{
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
}
