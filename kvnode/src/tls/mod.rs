//! TLS of a node: what it shows to callers, whose certificates it takes, and how it asks other nodes.
//!
//! By rustls with `ring`: TLS 1.2 and 1.3, HTTP/1.1. With it there is no listener in the clear. Sessions are not
//! resumed: each handshake checks everything anew, so that an authority that was taken away is gone, and what a caller
//! showed is looked at again while his connection is open; connections live long enough for that to cost nothing.
//!
//! A node is a client of other nodes with the certificate that it shows to its own clients: one certificate for each
//! machine, which names its host.

mod current;
mod expiry;
mod files;
mod names;
mod shown;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use kvclient::{
    Tls, rfc3339,
    tls::{pem::TlsError, provider},
};
use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use self::current::Current;
pub use self::{
    files::TlsFiles,
    names::{check_host, is_of_a_node},
    shown::Shown,
};

/// A certificate that ends sooner is warned of.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// The certificates in force.
#[derive(Debug)]
pub struct NodeTls {
    files: TlsFiles,
    current: Arc<Current>,
    towards_nodes: Tls,
    /// Why the files were not read anew when that was asked for last.
    trouble: ArcSwapOption<String>,
}

impl NodeTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file, what is wrong with it and what to do.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = files.load()?;
        Ok(Self {
            files,
            towards_nodes: loaded.towards_nodes.clone(),
            current: Arc::new(Current(ArcSwap::from_pointee(loaded))),
            trouble: ArcSwapOption::empty(),
        })
    }

    /// Reads them anew: handshakes from now on go by what is in them. Returns when the node's certificate ends.
    ///
    /// # Errors
    /// Why not; what was in force stays so.
    pub fn reload(&self) -> Result<SystemTime, TlsError> {
        match self.files.load() {
            Ok(loaded) => {
                let expires = loaded.expires;
                self.towards_nodes.adopt(&loaded.towards_nodes);
                self.current.0.store(Arc::new(loaded));
                self.trouble.store(None);
                Ok(expires)
            }
            Err(error) => {
                self.trouble.store(Some(Arc::new(error.to_string())));
                Err(error)
            }
        }
    }

    /// What needs a person: a certificate that has ended or soon will, files that could not be read anew.
    pub fn trouble(&self) -> Option<String> {
        if let Some(why) = &*self.trouble.load() {
            return Some(format!(
                "the certificates in force are not those of the files: {why}"
            ));
        }
        self.ended().or_else(|| {
            let expires = self.expires();
            let ends_soon = expires <= SystemTime::now() + SOON;
            ends_soon.then(|| {
                format!(
                    "{} is valid until {}. Renew it, then send SIGHUP",
                    self.files.certificate.display(),
                    rfc3339::format(expires)
                )
            })
        })
    }

    /// Why clients refuse this node, if they do: its certificate has ended.
    pub fn ended(&self) -> Option<String> {
        let expires = self.expires();
        (expires < SystemTime::now()).then(|| {
            format!(
                "{} was valid until {}: clients refuse this node. Renew it, then send SIGHUP",
                self.files.certificate.display(),
                rfc3339::format(expires)
            )
        })
    }

    /// When the node's certificate ends, or the first one of its chain.
    pub fn expires(&self) -> SystemTime {
        self.current.0.load().expires
    }

    /// Whether callers are asked for certificates.
    pub fn asks_callers(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// What a caller showed in a handshake; `None` if that is nothing.
    pub fn shown(&self, chain: &[CertificateDer<'_>]) -> Option<Shown> {
        Shown::new(chain, &self.current)
    }

    /// How this node asks others.
    pub fn towards_nodes(&self) -> Tls {
        self.towards_nodes.clone()
    }

    /// What the listener goes by.
    pub fn server_config(&self) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has suites of both");
        let builder = match self.asks_callers() {
            true => builder.with_client_cert_verifier(Arc::clone(&self.current) as _),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.current) as _);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }
}
