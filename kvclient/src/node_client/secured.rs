//! What TLS adds to a connection, and to the HTTP library: with the feature `tls`. Without it `unsecured` stands here.
//!
//! Both ask the same [`Tls`] whom to trust and who to be, at each handshake.

use std::{io, sync::Arc};

use rustls::{AlertDescription, ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(super) use crate::tls::{Credentials, Tls};
use crate::{shard_map::Address, tls::provider};

/// A connection after a handshake. Boxed: a session is a kilobyte.
#[derive(Debug)]
pub(super) struct Secured {
    stream: Box<TlsStream<TcpStream>>,
    tls: Tls,
    /// By which it was made.
    credentials: Arc<Credentials>,
}

impl Secured {
    /// Makes a handshake in which the node proves that it is `node`.
    pub(super) async fn connect(tls: &Tls, node: &Address, stream: TcpStream) -> io::Result<Self> {
        let name = ServerName::try_from(node.bare_host().to_owned()).map_err(io::Error::other)?;
        let credentials = tls.current();
        let connector = TlsConnector::from(tls.config());
        let stream = connector.connect(name, stream).await?;
        Ok(Self {
            stream: Box::new(stream),
            tls: tls.clone(),
            credentials,
        })
    }

    /// What is read and written through.
    pub(super) fn stream(&mut self) -> &mut TlsStream<TcpStream> {
        &mut self.stream
    }

    /// The socket below, unless it is of no more use: something has come that nobody has read, or whom to trust and who
    /// to be has changed since it was made.
    pub(super) fn usable_socket(&mut self) -> Option<&TcpStream> {
        let (stream, session) = self.stream.get_mut();
        let state = session.process_new_packets().ok()?;
        let is_usable = state.plaintext_bytes_to_read() == 0
            && Arc::ptr_eq(&self.credentials, &self.tls.current());
        is_usable.then_some(stream)
    }
}

/// The HTTP library, speaking TLS and nothing else where there is some to speak.
pub(super) fn secure(library: reqwest::ClientBuilder, tls: Option<&Tls>) -> reqwest::ClientBuilder {
    match tls {
        Some(tls) => {
            let config = ClientConfig::clone(&tls.config());
            library.https_only(true).tls_backend_preconfigured(config)
        }
        // Left to itself it looks for cryptography that a program may not have, and panics.
        None => library.tls_backend_preconfigured(trusting_nobody()),
    }
}

fn trusting_nobody() -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// That a node has ended the handshake over the client's certificate. In TLS 1.3 its alert comes when the client is
/// through and its request is on its way.
pub(super) fn refused_certificate(error: &io::Error) -> Option<String> {
    use AlertDescription as Alert;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match error {
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied),
        ) => Some(format!(
            "the node refuses this client's certificate, or wants one: {alert:?}"
        )),
        _ => None,
    }
}
