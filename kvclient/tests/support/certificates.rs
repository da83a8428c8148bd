//! Certificates for tests, by an authority that signs whatever a test wants. Shared with the tests of nodes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use kvclient::Tls;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// An authority that signs whatever a test wants.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key as PEM text.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// How long a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Valid {
    Now,
    Formerly,
    /// To the end of 2099.
    Long,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names and addresses.
    pub(crate) fn sign(&self, names: &[&str], valid: Valid) -> Pair {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = match valid {
            Valid::Formerly => date_time_ymd(2021, 1, 1),
            Valid::Now => date_time_ymd(2200, 1, 1),
            Valid::Long => date_time_ymd(2099, 12, 31),
        };
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Trusts this authority and shows nothing.
    pub(crate) fn trusted(&self) -> Tls {
        Tls::trusting_pem(self.pem()).unwrap()
    }
}
