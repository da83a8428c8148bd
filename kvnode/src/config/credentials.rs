//! Whom the node lets in, and who it is to other nodes.

use std::path::Path;

use kvclient::{shard_map::ShardMap, token::Token};

use super::{args::Settings, error::ConfigError, listen::Callers};
use crate::access::{Digest, Need, Scope, TokenFile};

/// Both sides of it.
pub(super) struct Credentials {
    pub(super) tokens: Option<TokenFile>,
    pub(super) node_token: Option<Token>,
    pub(super) insecure_no_auth: bool,
}

impl Credentials {
    pub(super) fn read(settings: &Settings) -> Result<Self, ConfigError> {
        let read = |path: &Path| TokenFile::read(path).map_err(ConfigError::new);
        let token = |path: &Path| {
            let token = Token::from_file(path);
            token.map_err(|error| ConfigError::new(error.to_string()))
        };
        Ok(Self {
            tokens: settings.tokens.as_deref().map(read).transpose()?,
            node_token: settings.node_token_file.as_deref().map(token).transpose()?,
            insecure_no_auth: settings.insecure_no_auth.unwrap_or(false),
        })
    }

    /// What callers are asked for.
    pub(super) fn callers(&self) -> Result<Callers, ConfigError> {
        match (&self.tokens, self.insecure_no_auth) {
            (Some(_), false) => Ok(Callers::Asked),
            (None, true) => Ok(Callers::TrustedAloud),
            (None, false) => Ok(Callers::Trusted),
            (Some(_), true) => Err(ConfigError::new(
                "--tokens and --insecure-no-auth contradict each other; leave one of them out"
                    .into(),
            )),
        }
    }

    /// Refuses what would leave this node alone: the others ask, too, and it had nothing to show them.
    pub(super) fn check_others(&self, map: &ShardMap) -> Result<(), ConfigError> {
        let is_alone = map.nodes().count() == 1;
        match (&self.tokens, &self.node_token) {
            (Some(_), None) if !is_alone => Err(ConfigError::new(
                "--tokens is given, so the other nodes of the map will ask this one who it is, and it has no token \
                 to show them: give --node-token-file FILE too, with a token of the scope replicate (kv token new \
                 NAME --scopes replicate)"
                    .into(),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether a node with these tokens would let in one with this token.
pub(super) fn lets_in(tokens: &TokenFile, node: &Token) -> bool {
    let known = tokens.tokens.find(&Digest::of(node.expose().as_bytes()));
    known.is_some_and(|known| {
        known.grant.allows(Need::Scope(Scope::Replicate)).is_ok() && !known.has_expired()
    })
}
