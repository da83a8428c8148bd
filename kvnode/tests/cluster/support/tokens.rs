//! Nodes that ask who one is, and tokens for them. A token's text is made of its name, so that tests can read.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    cluster::{Cluster, Node, Shape},
    http::Ask,
};

/// The token that nodes show each other.
pub(crate) const NODE: Entry = Entry::new("nodes", &["node"]);

/// An entry of a token file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) scopes: &'static [&'static str],
    pub(crate) prefixes: &'static [&'static str],
    pub(crate) expires: Option<&'static str>,
}

impl Entry {
    /// For every key and for ever.
    pub(crate) const fn new(name: &'static str, scopes: &'static [&'static str]) -> Self {
        Self {
            name,
            scopes,
            prefixes: &[],
            expires: None,
        }
    }

    fn to_toml(self) -> String {
        let digest: String = Sha256::digest(text_of(self.name))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut entry = format!(
            "[[tokens]]\nname = \"{}\"\nsha256 = \"{digest}\"\nscopes = {:?}\n",
            self.name, self.scopes
        );
        if !self.prefixes.is_empty() {
            entry.push_str(&format!("prefixes = {:?}\n", self.prefixes));
        }
        if let Some(expires) = self.expires {
            entry.push_str(&format!("expires = \"{expires}\"\n"));
        }
        entry
    }
}

/// The token of a name.
pub(crate) fn text_of(name: &str) -> String {
    format!("kv_{name}-of-the-tests")
}

/// Writes a file that only its owner may use.
pub(crate) fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a mode");
}

/// The files of a cluster whose nodes ask who one is.
pub(crate) struct Doors {
    pub(crate) tokens: PathBuf,
    pub(crate) node_token: PathBuf,
}

impl Doors {
    /// Files in `dir` that know these tokens, and that of the nodes.
    pub(crate) fn new(dir: &Path, entries: &[Entry]) -> Self {
        let doors = Self {
            tokens: dir.join("tokens.toml"),
            node_token: dir.join("node.token"),
        };
        doors.write(entries);
        write_private(&doors.node_token, &format!("{}\n", text_of(NODE.name)));
        doors
    }

    /// Changes which tokens are known; nodes read it on SIGHUP.
    pub(crate) fn write(&self, entries: &[Entry]) {
        self.write_only(&[entries, &[NODE]].concat());
    }

    /// The same without that of the nodes.
    pub(crate) fn write_only(&self, entries: &[Entry]) {
        let text: Vec<String> = entries.iter().map(|entry| entry.to_toml()).collect();
        write_private(&self.tokens, &text.join("\n"));
    }

    /// What a node is started with.
    pub(crate) fn flags(&self) -> [&str; 4] {
        [
            "--tokens",
            self.tokens.to_str().expect("UTF-8"),
            "--node-token-file",
            self.node_token.to_str().expect("UTF-8"),
        ]
    }
}

/// A cluster whose nodes know these tokens.
pub(crate) async fn start(shape: Shape, entries: &[Entry]) -> (Cluster, Doors) {
    let cluster = Cluster::prepare(shape);
    let doors = Doors::new(cluster.dir(), entries);
    for node in cluster.nodes() {
        node.spawn(&doors.flags());
    }
    for node in cluster.nodes() {
        node.wait_ready().await;
    }
    (cluster, doors)
}

/// A request with the token of a name.
pub(crate) fn by(name: &str, ask: Ask) -> Ask {
    ask.header("authorization", format!("Bearer {}", text_of(name)))
}

/// Sends a request with the token of a name; the status.
pub(crate) async fn status(node: &Node, name: &str, ask: Ask) -> u16 {
    node.send(by(name, ask)).await.status
}
