//! How nodes are reached.

use std::time::Duration;

use super::secured::Tls;
use crate::{scheme::Scheme, token::Token};

/// Settings of a [`NodeClient`](super::NodeClient).
///
/// ```
/// use std::time::Duration;
/// use kvclient::node_client::NodeClientOptions;
///
/// let mut far_away = NodeClientOptions::default();
/// far_away.connect_timeout = Duration::from_secs(2);
/// far_away.idle_per_node = 4;
/// assert_eq!(far_away.idle_timeout, Duration::from_secs(20));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeClientOptions {
    /// Longest wait for a connection. Default 500 ms: on one machine or in one data centre a node that is up
    /// accepts in a few ms; one lost SYN costs 1 s, and another node is asked by then.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept. Default 20 s: well below the 75 s after which a node closes it, so
    /// that a request is hardly ever written to a connection that is just being closed.
    pub idle_timeout: Duration,
    /// Idle connections kept per node. Default 16: two lanes and a few large values use fewer.
    pub idle_per_node: usize,
    /// Whom to trust, and who to be. Default `None`: nodes are spoken to in the clear; with it, never. Needs the feature
    /// `tls`.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
    /// Shown to every node that is asked. Default none: nodes that ask nobody who he is need none.
    pub token: Option<Token>,
}

impl Default for NodeClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(20),
            idle_per_node: 16,
            #[cfg(feature = "tls")]
            tls: None,
            token: None,
        }
    }
}

impl NodeClientOptions {
    /// How nodes are spoken to.
    pub fn scheme(&self) -> Scheme {
        self.tls().map_or(Scheme::Http, |_| Scheme::Https)
    }

    /// These, after earlier ones: TLS and a token given before are not taken back by settings that say nothing of them.
    pub(crate) fn over(mut self, earlier: Self) -> Self {
        #[cfg(feature = "tls")]
        {
            self.tls = self.tls.or(earlier.tls);
        }
        self.token = self.token.or(earlier.token);
        self
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn tls(&self) -> Option<Tls> {
        None
    }
}
