//! Certificates and keys from PEM text, with the file named in every mistake. Used by clients and by nodes.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// What is wrong with a certificate or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct TlsError {
    /// The file, or what the text was given as.
    pub file: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// PEM text, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Pem<'a> {
    /// For messages.
    pub file: &'a str,
    /// The text; what stands outside of `-----BEGIN` and `-----END` lines is passed over.
    pub text: &'a [u8],
}

/// Reads a file of PEM text.
///
/// # Errors
/// [`TlsError`] if it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError {
        file: path.display().to_string(),
        problem: format!("cannot be read: {error}"),
    })
}

impl Pem<'_> {
    /// The certificates in it, at least one.
    ///
    /// # Errors
    /// [`TlsError`]: there is none, or one does not decode.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.text).collect();
        let found = found.map_err(|error| self.error(format!("no PEM: {error}")))?;
        match found.is_empty() {
            false => Ok(found),
            true => Err(self.error("holds no certificate (-----BEGIN CERTIFICATE-----)".into())),
        }
    }

    /// The certificates in it as those of authorities, at least one.
    ///
    /// # Errors
    /// [`TlsError`]: there is none, or one is no certificate.
    pub fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        for certificate in self.certificates()? {
            store
                .add(certificate)
                .map_err(|error| self.error(error.to_string()))?;
        }
        Ok(store)
    }

    /// A certificate with its chain, and the key that stands in `key`.
    ///
    /// # Errors
    /// [`TlsError`]: one of the two is missing, or they do not belong together.
    pub fn identity(
        &self,
        key: Pem<'_>,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = self.certificates()?;
        let private = PrivateKeyDer::from_pem_slice(key.text)
            .map_err(|_| key.error("holds no private key (-----BEGIN PRIVATE KEY-----)".into()))?;
        CertifiedKey::from_der(chain, private, provider)
            .map(Arc::new)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => key.error(format!(
                    "is not the key of the certificate in {}",
                    self.file
                )),
                error => self.error(error.to_string()),
            })
    }

    fn error(&self, problem: String) -> TlsError {
        TlsError {
            file: self.file.to_owned(),
            problem,
        }
    }
}
