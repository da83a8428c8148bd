//! TLS towards the nodes: whom a client trusts, and who it is.
//!
//! By rustls with `ring`: TLS 1.2 and 1.3. The name in a node's address is always checked against its certificate, and
//! nothing switches that off. Authorities are always named: those of the system would be a dependency of their own on
//! each platform, for certificates that a store's nodes seldom have; where they do, the system's file can be named,
//! such as `/etc/ssl/certs/ca-certificates.crt`.
//!
//! Sessions are not resumed: each handshake checks everything anew, so that authorities taken away are gone.

mod credentials;
pub mod pem;

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

pub(crate) use self::credentials::Credentials;
use self::{
    credentials::Current,
    pem::{Pem, TlsError},
};
use crate::error::{Error, ErrorKind};

/// TLS with certificates by these authorities, and perhaps a certificate of the client's own. Clones share both.
///
/// ```no_run
/// # fn main() -> kvclient::Result<()> {
/// use kvclient::{ClientBuilder, Tls};
///
/// let tls = Tls::trusting_file("ca.pem")? // who signed the nodes' certificates
///     .with_identity_files("client.pem", "client-key.pem")?; // where nodes ask for one
/// let kv = ClientBuilder::from_file("sharding.toml")?.tls(tls).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Tls {
    current: Arc<Current>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts the authorities whose certificates stand in a PEM file.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn trusting_file(authorities: impl AsRef<Path>) -> Result<Self, TlsError> {
        let path = authorities.as_ref();
        Self::trusting(Pem {
            file: &path.display().to_string(),
            text: &pem::read(path)?,
        })
    }

    /// Trusts the authorities whose certificates stand in PEM text.
    ///
    /// # Errors
    /// [`TlsError`]: there is none in it, or one is no certificate.
    pub fn trusting_pem(authorities: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        Self::trusting(Pem {
            file: "the authorities",
            text: authorities.as_ref(),
        })
    }

    fn trusting(authorities: Pem<'_>) -> Result<Self, TlsError> {
        let provider = provider();
        let credentials = Credentials {
            verifier: verifier(authorities.authorities()?, &provider, authorities.file)?,
            identity: None,
        };
        let current = Arc::new(Current(ArcSwap::from_pointee(credentials)));
        Ok(Self {
            config: Arc::new(config(Arc::clone(&current), provider)),
            current,
        })
    }

    /// Shows this certificate (with its chain) to nodes that ask for one; its key stands in a file of its own.
    ///
    /// # Errors
    /// [`TlsError`]: a file cannot be read, lacks what it should hold, or the key is another certificate's.
    pub fn with_identity_files(
        self,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let certificate_pem = Pem {
            file: &certificate.display().to_string(),
            text: &pem::read(certificate)?,
        };
        let key_pem = Pem {
            file: &key.display().to_string(),
            text: &pem::read(key)?,
        };
        self.with_identity(certificate_pem, key_pem)
    }

    /// As [`Self::with_identity_files`], from PEM text.
    ///
    /// # Errors
    /// [`TlsError`]: one of the two is missing, or the key is another certificate's.
    pub fn with_identity_pem(
        self,
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, TlsError> {
        let certificate = Pem {
            file: "the certificate",
            text: certificate.as_ref(),
        };
        let key = Pem {
            file: "the key",
            text: key.as_ref(),
        };
        self.with_identity(certificate, key)
    }

    fn with_identity(self, certificate: Pem<'_>, key: Pem<'_>) -> Result<Self, TlsError> {
        let identity = certificate.identity(key, &provider())?;
        let credentials = Credentials {
            identity: Some(identity),
            verifier: Arc::clone(&self.current.0.load().verifier),
        };
        let current = Arc::new(Current(ArcSwap::from_pointee(credentials)));
        Ok(Self {
            config: Arc::new(config(Arc::clone(&current), provider())),
            current,
        })
    }

    /// Takes over what a newer one trusts and shows, for all clones: what is under way goes on, what
    /// begins from now on travels over connections that were made with it. For certificates that are renewed while a
    /// program runs.
    ///
    /// ```no_run
    /// # fn main() -> kvclient::Result<()> {
    /// use kvclient::Tls;
    ///
    /// let tls = Tls::trusting_file("ca.pem")?;
    /// // ... in a client, for months; then the file has changed:
    /// tls.adopt(&Tls::trusting_file("ca.pem")?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn adopt(&self, newer: &Self) {
        self.current.0.store(newer.current.0.load_full());
    }

    /// What holds for the next connection.
    pub(crate) fn current(&self) -> Arc<Credentials> {
        self.current.0.load_full()
    }

    /// What connections are made with.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

impl From<TlsError> for Error {
    fn from(error: TlsError) -> Self {
        Self::new(ErrorKind::Invalid, "set up TLS").with_source(error)
    }
}

/// The cryptography that clients and nodes use.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn verifier(
    authorities: RootCertStore,
    provider: &Arc<CryptoProvider>,
    file: &str,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider));
    builder.build().map_err(|error| TlsError {
        file: file.to_owned(),
        problem: error.to_string(),
    })
}

fn config(current: Arc<Current>, provider: Arc<CryptoProvider>) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has suites of both")
        .dangerous()
        // It passes every question on to the verifier of rustls.
        .with_custom_certificate_verifier(Arc::clone(&current) as _)
        .with_client_cert_resolver(current);
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
