//! What handshakes with callers go by, read anew while the node runs.
//!
//! rustls asks for it in each handshake: one sees the newest, connections that are open go on. Every check is that of
//! rustls; only by which certificates is decided here.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use super::files::Loaded;

/// What holds for the next handshake.
#[derive(Debug)]
pub(super) struct Current(pub(super) ArcSwap<Loaded>);

impl Current {
    /// Only asked where there is one: whether callers are asked for certificates does not change while a node runs.
    pub(super) fn callers(&self) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let callers = self.0.load().callers.clone();
        callers.ok_or_else(|| Error::General("nobody's certificates are known".to_owned()))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().identity))
    }
}

impl ClientCertVerifier for Current {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: which authorities there are may change, and callers know whose certificate they have.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.callers()?
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.callers()?.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.callers()?.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.callers()
            .map(|callers| callers.supported_verify_schemes())
            .unwrap_or_default()
    }
}
