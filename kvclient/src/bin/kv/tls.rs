//! TLS as it is typed: whom to trust, and who to be. A flag counts before its variable.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use kvclient::{Tls, tls::pem::TlsError};

use crate::failure::Failure;

/// Certificates, for nodes that speak TLS.
#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// Speak TLS, with nodes whose certificates are signed by these authorities (PEM) [env: KV_CA]
    #[arg(long = "ca", value_name = "FILE", global = true)]
    tls_ca: Option<PathBuf>,
    /// Certificate that says who you are, for nodes that ask (PEM) [env: KV_CERT]
    #[arg(long = "cert", value_name = "FILE", global = true)]
    tls_cert: Option<PathBuf>,
    /// Key of that certificate (PEM) [env: KV_KEY]
    // A name of its own: many commands have a `key`.
    #[arg(long = "key", value_name = "FILE", global = true)]
    tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// What to speak to nodes with; `None`: in the clear.
    pub(crate) fn read(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Tls>, Failure> {
        let file = |flag: &Option<PathBuf>, name| {
            let given = variable(name).filter(|value| !value.is_empty());
            flag.clone().or(given.map(PathBuf::from))
        };
        let certificate = file(&self.tls_cert, "KV_CERT");
        let key = file(&self.tls_key, "KV_KEY");
        let Some(ca) = file(&self.tls_ca, "KV_CA") else {
            return match certificate.or(key) {
                None => Ok(None),
                Some(_) => Err(usage(
                    "a certificate is for TLS, which also needs --ca FILE",
                )),
            };
        };
        let wrong = |error: TlsError| usage(&error.to_string());
        let tls = Tls::trusting_file(ca).map_err(wrong)?;
        match (certificate, key) {
            (None, None) => Ok(Some(tls)),
            (Some(certificate), Some(key)) => {
                let shown = tls.with_identity_files(certificate, key);
                shown.map(Some).map_err(wrong)
            }
            (Some(_), None) => Err(usage("--cert also needs --key FILE")),
            (None, Some(_)) => Err(usage("--key also needs --cert FILE")),
        }
    }
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}
