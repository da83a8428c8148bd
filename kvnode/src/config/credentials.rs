//! Whom the node lets in, and who it is to other nodes.

use std::{path::Path, sync::Arc};

use kvclient::{shard_map::ShardMap, token::Token};

use super::{args::Settings, error::ConfigError, listen::Callers};
use crate::{
    access::{Digest, Need, Scope, TokenFile},
    tls::{NodeTls, TlsFiles},
};

/// Both sides of it.
pub(super) struct Credentials {
    pub(super) tokens: Option<TokenFile>,
    pub(super) node_token: Option<Token>,
    pub(super) tls: Option<Arc<NodeTls>>,
    pub(super) insecure_no_auth: bool,
}

impl Credentials {
    pub(super) fn read(settings: &Settings) -> Result<Self, ConfigError> {
        let read = |path: &Path| TokenFile::read(path).map_err(ConfigError::new);
        Ok(Self {
            tokens: settings.tokens.as_deref().map(read).transpose()?,
            node_token: node_token(settings)?,
            tls: tls(settings)?.map(Arc::new),
            insecure_no_auth: settings.insecure_no_auth.unwrap_or(false),
        })
    }

    /// What callers are asked for.
    pub(super) fn callers(&self) -> Result<Callers, ConfigError> {
        let asks = self.tokens.is_some() || self.asks_for_certificates();
        match (asks, self.insecure_no_auth) {
            (true, false) => Ok(Callers::Asked),
            (false, true) => Ok(Callers::TrustedAloud),
            (false, false) => Ok(Callers::Trusted),
            (true, true) => Err(ConfigError::new(
                "--insecure-no-auth contradicts --tokens and --tls-client-ca; leave one of them out"
                    .into(),
            )),
        }
    }

    /// Then the others ask too, and this node's own certificate is what it shows them.
    fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.asks_callers())
    }

    /// Refuses what would leave this node alone: the others ask, too, and it had nothing to show them.
    pub(super) fn check_others(&self, map: &ShardMap) -> Result<(), ConfigError> {
        let is_alone = map.nodes().count() == 1;
        match (&self.tokens, &self.node_token) {
            (Some(_), None) if !is_alone && !self.asks_for_certificates() => Err(ConfigError::new(
                "--tokens is given, so the other nodes of the map will ask this one who it is, and it has no token \
                 to show them: give --node-token-file FILE too, with a token of the scope node (kv token new NAME \
                 --scopes node)"
                    .into(),
            )),
            _ => Ok(()),
        }
    }
}

/// This node's own token.
pub(super) fn node_token(settings: &Settings) -> Result<Option<Token>, ConfigError> {
    let token = settings.node_token_file.as_deref().map(Token::from_file);
    token
        .transpose()
        .map_err(|error| ConfigError::new(error.to_string()))
}

fn tls(settings: &Settings) -> Result<Option<NodeTls>, ConfigError> {
    let (client_ca, ca) = (settings.tls_client_ca.clone(), settings.tls_ca.clone());
    let missing = |what: &str| Err(ConfigError::new(format!("TLS also needs {what} FILE")));
    let (certificate, key) = match (settings.tls_cert.clone(), settings.tls_key.clone()) {
        (None, None) if client_ca.is_none() && ca.is_none() => return Ok(None),
        (None, _) => return missing("--tls-cert"),
        (_, None) => return missing("--tls-key"),
        (Some(certificate), Some(key)) => (certificate, key),
    };
    let Some(ca) = ca.or_else(|| client_ca.clone()) else {
        return missing(
            "--tls-client-ca or, for a node that asks callers for no certificates, --tls-ca",
        );
    };
    let files = TlsFiles {
        certificate,
        key,
        client_ca,
        ca,
    };
    let loaded = NodeTls::load(files);
    loaded
        .map(Some)
        .map_err(|error| ConfigError::new(error.to_string()))
}

/// Whether a node with these tokens would let in one with this token.
pub(super) fn lets_in(tokens: &TokenFile, node: &Token) -> bool {
    let known = tokens.tokens.find(&Digest::of(node.expose().as_bytes()));
    known.is_some_and(|known| {
        known.grant.allows(Need::Scope(Scope::Node)).is_ok() && !known.has_expired()
    })
}
