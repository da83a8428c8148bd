//! What most of these tests begin with: a browser, a cluster of one node, and a tab on its page.

use super::{
    browser::Browser,
    tab::{Tab, page, page_of_key},
};
use crate::support::cluster::{Cluster, Node, Shape};

/// A browser and a node; both end with its scope.
pub(crate) struct Desk {
    browser: Browser,
    cluster: Cluster,
}

impl Desk {
    /// Sets it up, if there is a browser on this machine.
    pub(crate) async fn set_up() -> Option<Self> {
        Some(Self {
            browser: Browser::start()?,
            cluster: Cluster::start(Shape::default()).await,
        })
    }

    /// The node.
    pub(crate) fn node(&self) -> &Node {
        self.cluster.primary(0)
    }

    /// An empty tab; `before` is a script that runs before those of any page.
    pub(crate) fn empty_tab(&self, before: &str) -> Tab<'_> {
        Tab::new(&self.browser, before)
    }

    /// A tab with the node's page.
    pub(crate) async fn tab(&self) -> Tab<'_> {
        self.tab_after("").await
    }

    /// A tab with the node's page; `before` as above.
    pub(crate) async fn tab_after(&self, before: &str) -> Tab<'_> {
        let tab = self.empty_tab(before);
        tab.open(&page(&self.node().address)).await;
        tab
    }

    /// A tab with a key of the node opened, percent-escaped, and `before` as above.
    pub(crate) async fn tab_of_key(&self, key: &str, before: &str) -> Tab<'_> {
        let tab = self.empty_tab(before);
        tab.open(&page_of_key(&self.node().address, key)).await;
        tab
    }
}
