//! How this node asks others: a client that shows the node's own token, which may become another while the node runs.
//!
//! The token is given to the client once, so another token makes another client; what the old one began is finished with
//! it. Certificates need none of that: the client looks at those in force by itself.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kvclient::{
    Error, Token,
    node_client::{NodeClient, NodeClientOptions},
};

/// Asks other nodes.
#[derive(Debug)]
pub struct Asker(ArcSwap<With>);

#[derive(Debug)]
struct With {
    options: NodeClientOptions,
    client: NodeClient,
}

impl With {
    fn new(options: NodeClientOptions) -> Result<Self, Error> {
        let client = NodeClient::new(options.clone())?;
        Ok(Self { options, client })
    }
}

impl Asker {
    /// Asks in this way.
    ///
    /// # Errors
    /// [`Error`]: the options cannot be.
    pub fn new(options: NodeClientOptions) -> Result<Self, Error> {
        With::new(options).map(|with| Self(ArcSwap::from_pointee(with)))
    }

    /// The client to ask with now; to be asked for anew each time.
    pub fn client(&self) -> NodeClient {
        self.0.load().client.clone()
    }

    /// Shows this token from now on.
    ///
    /// # Errors
    /// [`Error`]: the old one is shown on.
    pub fn show(&self, token: Token) -> Result<(), Error> {
        let with = self.0.load_full();
        if with.options.token.as_ref() == Some(&token) {
            return Ok(());
        }
        let mut options = with.options.clone();
        options.token = Some(token);
        self.0.store(Arc::new(With::new(options)?));
        Ok(())
    }
}
