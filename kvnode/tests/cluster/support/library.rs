//! reqwest as tests build it. Nodes use it with rustls and with cryptography that they hand it, and so it has none of its
//! own choice for anybody in the same build: a client of a test is handed some too. None is made that of the process, so
//! that a node which relied on that would be found.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// A client that goes through no proxy, and speaks in the clear.
pub(crate) fn library() -> reqwest::ClientBuilder {
    let nobody = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(nobody)
}
