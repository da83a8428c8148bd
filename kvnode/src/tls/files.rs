//! The files of certificates that a node was told of, read and checked as a whole.
//!
//! Reading changes nothing: whoever reads them anew keeps what is in force until all of it is sound.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use kvclient::{
    Tls,
    tls::{
        pem::{self, Pem, TlsError},
        provider,
    },
    token::foreign_mode,
};
use rustls::{
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use super::expiry::not_after;

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate, with its chain.
    pub certificate: PathBuf,
    /// Its key, for its owner alone.
    pub key: PathBuf,
    /// Whose certificates callers may show; without it they are asked for none.
    pub client_ca: Option<PathBuf>,
    /// Whose certificates other nodes show.
    pub ca: PathBuf,
}

/// What stands in them.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) identity: Arc<CertifiedKey>,
    pub(super) callers: Option<Arc<dyn ClientCertVerifier>>,
    /// Trusts other nodes, and shows them this node's certificate.
    pub(super) towards_nodes: Tls,
    /// The first end of a certificate of the chain.
    pub(super) expires: SystemTime,
}

impl TlsFiles {
    /// Reads all of them.
    ///
    /// # Errors
    /// [`TlsError`] names the file, what is wrong with it and what to do.
    pub(super) fn load(&self) -> Result<Loaded, TlsError> {
        check_private(&self.key)?;
        let (certificate, key) = (Text::read(&self.certificate)?, Text::read(&self.key)?);
        let identity = certificate.pem().identity(key.pem(), &provider())?;
        let towards_nodes =
            Tls::trusting_file(&self.ca)?.with_identity_files(&self.certificate, &self.key)?;
        let callers = self.client_ca.as_deref().map(callers).transpose()?;
        Ok(Loaded {
            expires: first_end(&identity).ok_or_else(|| {
                certificate.error("holds a certificate whose end does not decode".to_owned())
            })?,
            identity,
            callers,
            towards_nodes,
        })
    }
}

/// A file of PEM text.
struct Text {
    file: String,
    bytes: Vec<u8>,
}

impl Text {
    fn read(path: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            file: path.display().to_string(),
            bytes: pem::read(path)?,
        })
    }

    fn pem(&self) -> Pem<'_> {
        Pem {
            file: &self.file,
            text: &self.bytes,
        }
    }

    fn error(&self, problem: String) -> TlsError {
        TlsError {
            file: self.file.clone(),
            problem,
        }
    }
}

/// Whoever reads the key can be this node.
fn check_private(key: &Path) -> Result<(), TlsError> {
    let error = |problem: String| TlsError {
        file: key.display().to_string(),
        problem,
    };
    let unreadable = |e: io::Error| error(format!("cannot be read: {e}"));
    let file = File::open(key).map_err(unreadable)?;
    match foreign_mode(&file, key).map_err(unreadable)? {
        None => Ok(()),
        Some(_) => Err(error(format!(
            "others than its owner may read this key; chmod 600 {}",
            key.display()
        ))),
    }
}

/// Checks certificates that callers show. Whoever shows none is let through here: he may have a token.
fn callers(authorities: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let text = Text::read(authorities)?;
    let store = Arc::new(text.pem().authorities()?);
    WebPkiClientVerifier::builder_with_provider(store, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| text.error(error.to_string()))
}

fn first_end(identity: &CertifiedKey) -> Option<SystemTime> {
    let ends: Option<Vec<_>> = identity.cert.iter().map(|cert| not_after(cert)).collect();
    ends?.into_iter().min()
}
