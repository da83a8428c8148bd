//! Nodes with TLS: their certificates in files, and clients that show one.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use kvclient::{
    Client, Tls,
    node_client::{NodeClient, NodeClientOptions},
    shard_map::toml,
};

use super::{
    certificates::{Authority, Pair, Valid},
    cluster::{Cluster, Node},
    eventually,
};

/// Names of the nodes of a test's map.
pub(crate) const NODE_NAMES: &[&str] = &["127.0.0.1", "localhost"];

/// One authority, and the files of a node.
pub(crate) struct Certificates {
    pub(crate) authority: Authority,
    /// Of a client: certificate and key.
    pub(crate) client: Pair,
}

impl Certificates {
    /// Makes them, and writes the files into a directory.
    pub(crate) fn make(dir: &Path) -> Self {
        let authority = Authority::new("ours");
        let node = authority.sign(NODE_NAMES, Valid::Long);
        let client = authority.sign(&["client"], Valid::Long);
        fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
        write_pair(dir, "node", &node);
        write_pair(dir, "client", &client);
        Self { authority, client }
    }

    /// Trusts the authority and shows the client's certificate.
    pub(crate) fn tls(&self) -> Tls {
        let tls = self.authority.trusted();
        tls.with_identity_pem(&self.client.certificate, &self.client.key)
            .unwrap()
    }
}

/// Writes `NAME.pem` and `NAME-key.pem`, the latter for its owner alone.
pub(crate) fn write_pair(dir: &Path, name: &str, pair: &Pair) {
    let key = dir.join(format!("{name}-key.pem"));
    fs::write(dir.join(format!("{name}.pem")), &pair.certificate).unwrap();
    fs::write(&key, &pair.key).unwrap();
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Flags of a node that speaks TLS and asks callers for certificates.
pub(crate) fn flags(dir: &Path, name: &str) -> Vec<String> {
    let file = |name: String| dir.join(name).display().to_string();
    [
        ("--tls-cert", format!("{name}.pem")),
        ("--tls-key", format!("{name}-key.pem")),
        ("--tls-client-ca", "ca.pem".to_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, name)| [flag.to_owned(), file(name)])
    .collect()
}

/// Starts a node with these flags.
pub(crate) fn spawn(node: &Node, flags: &[String]) {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    node.spawn(&flags);
}

/// A client of single nodes.
pub(crate) fn node_client(tls: Tls) -> NodeClient {
    let mut options = NodeClientOptions::default();
    options.connect_timeout = Duration::from_secs(5);
    options.tls = Some(tls);
    NodeClient::new(options).unwrap()
}

/// A client of a cluster.
pub(crate) fn client(cluster: &Cluster, tls: Tls) -> Client {
    let map = toml::parse(&cluster.map, "map.toml").unwrap();
    let builder = Client::builder(map).timeout(Duration::from_secs(20));
    builder.tls(tls).build().unwrap()
}

/// Waits until a node serves.
pub(crate) async fn ready(client: &NodeClient, node: &Node) {
    let limit = Duration::from_secs(2);
    let address = node.to_address();
    eventually("the node serves through TLS", async || {
        let status = client.get_json(&address, "/status", limit).await.ok()?;
        (status["state"] == "ready").then_some(())
    })
    .await;
}
