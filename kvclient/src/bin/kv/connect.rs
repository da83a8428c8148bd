//! From what was typed to a client: which map, which terms, which session.
//!
//! A flag counts before a variable, `--node` before `KV_MAP`; without any of them it is `sharding.toml` where one is.
//!
//! Reads ask the primary unless told otherwise. Each command is a process of its own and knows nothing of what the one
//! before it wrote, so "read your writes" would promise nothing; with `--session-file` it does, and is the default.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use kvclient::{
    CallHistory, Client, ClientBuilder, Consistency, ShardMap, Token,
    node_client::NodeClientOptions, shard_map::toml,
};

use crate::{
    args::{Cli, ClusterArgs},
    failure::Failure,
    session_file::SessionFile,
};

const DEFAULT_MAP: &str = "sharding.toml";

/// A client, and what is to be done with it in the end.
pub(crate) struct Connected {
    pub(crate) kv: Client,
    pub(crate) seed: Seed,
    /// How nodes are reached, and what they are shown.
    pub(crate) nodes: NodeClientOptions,
    pub(crate) timeout: Option<Duration>,
    /// How new reads are.
    pub(crate) consistency: Consistency,
    history: Option<CallHistory>,
    session_file: Option<SessionFile>,
}

/// Where the map comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seed {
    /// This file, which somebody named.
    File(PathBuf),
    /// The usual file, since nobody named any.
    UsualFile,
    /// The first of these nodes that answers.
    Nodes(Vec<String>),
}

impl Seed {
    fn choose(args: &ClusterArgs, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        match (&args.node, &args.map) {
            (Some(nodes), _) => return Self::Nodes(nodes.clone()),
            (None, Some(map)) => return Self::File(map.clone()),
            (None, None) => {}
        }
        if let Some(nodes) = variable("KV_NODE") {
            let nodes = nodes.to_string_lossy();
            return Self::Nodes(nodes.split(',').map(str::to_owned).collect());
        }
        variable("KV_MAP").map_or(Self::UsualFile, |map| Self::File(map.into()))
    }

    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::UsualFile => Some(DEFAULT_MAP.as_ref()),
            Self::Nodes(_) => None,
        }
    }

    async fn builder(&self, options: &NodeClientOptions) -> Result<ClientBuilder, Failure> {
        match self {
            Self::Nodes(nodes) => Ok(ClientBuilder::connect_with(nodes, options.clone()).await?),
            Self::File(path) => Ok(ClientBuilder::new(read_map(path)?)),
            Self::UsualFile => match read_map(DEFAULT_MAP.as_ref()) {
                Err(Failure::Usage(_)) if !Path::new(DEFAULT_MAP).exists() => {
                    Err(Failure::Usage(format!(
                        "no {DEFAULT_MAP} here: name it with --map FILE, or a node with --node HOST:PORT"
                    )))
                }
                map => Ok(ClientBuilder::new(map?)),
            },
        }
    }
}

impl Connected {
    /// Reads the map; asks nobody but the nodes of `--node`.
    pub(crate) async fn new(cli: &Cli) -> Result<Self, Failure> {
        let args = &cli.cluster;
        let seed = Seed::choose(args, |name| std::env::var_os(name));
        let session_file = args.session_file.as_deref().map(SessionFile::open);
        let session_file = session_file.transpose()?;
        let default = match session_file {
            Some(_) => Consistency::ReadYourWrites,
            None => Consistency::Primary,
        };
        let mut nodes = NodeClientOptions::default();
        nodes.tls = args.tls.read(|name| std::env::var_os(name))?;
        nodes.token = token(args, |name| std::env::var_os(name))?;
        let builder = seed.builder(&nodes).await?.node_client(nodes.clone());
        let consistency = args.consistency.unwrap_or(default);
        let builder = builder.consistency(consistency);
        let builder = match args.timeout {
            Some(timeout) => builder.timeout(timeout),
            None => builder,
        };
        let mut kv = builder.build()?;
        if let Some(file) = &session_file {
            kv = kv.with_session(file.session());
        }
        let history = cli.output.explain.then(CallHistory::new);
        if let Some(history) = &history {
            kv = kv.with_history(history);
        }
        Ok(Self {
            kv,
            seed,
            nodes,
            timeout: args.timeout,
            consistency,
            history,
            session_file,
        })
    }

    /// Keeps what was seen, if there is a file for it.
    pub(crate) fn save_session(&self) -> Result<(), Failure> {
        let file = self.session_file.as_ref();
        file.map_or(Ok(()), |file| file.save(self.kv.session()))
    }

    /// Who was asked what, a line each, if somebody wants to know.
    pub(crate) fn history(&self) -> Option<String> {
        self.history.as_ref().map(ToString::to_string)
    }
}

/// A file counts before the variable. There is no flag for the token itself: everybody on a machine sees what was typed.
fn token(
    args: &ClusterArgs,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Token>, Failure> {
    if let Some(path) = &args.token_file {
        let token = Token::from_file(path);
        return token
            .map(Some)
            .map_err(|error| Failure::Usage(error.to_string()));
    }
    let token = variable("KV_TOKEN").filter(|token| !token.is_empty());
    let parse = |token: OsString| token.to_string_lossy().trim().parse();
    let wrong = |error| Failure::Usage(format!("KV_TOKEN: {error}"));
    token.map(parse).transpose().map_err(wrong)
}

fn read_map(path: &Path) -> Result<ShardMap, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Failure::Usage(format!("{name}: this is not a text file")),
        _ => Failure::file(path, &error),
    })?;
    toml::parse(&text, &name).map_err(|error| Failure::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn seed(words: &str, variables: &[(&str, &str)]) -> Seed {
        let words = ["kv", "status"].into_iter().chain(words.split_whitespace());
        let cli = Cli::try_parse_from(words).expect("sound");
        Seed::choose(&cli.cluster, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn flags_count_before_variables() {
        let nodes = |nodes: &[&str]| Seed::Nodes(nodes.iter().map(ToString::to_string).collect());
        let both = [("KV_NODE", "v:1,v:2"), ("KV_MAP", "v.toml")];
        assert_eq!(seed("", &[]), Seed::UsualFile);
        assert_eq!(
            seed("", &[("KV_NODE", ""), ("KV_MAP", "")]),
            Seed::UsualFile
        );
        assert_eq!(seed("", &both[1..]), Seed::File("v.toml".into()));
        assert_eq!(seed("", &both), nodes(&["v:1", "v:2"]));
        assert_eq!(seed("--map f.toml", &both), Seed::File("f.toml".into()));
        assert_eq!(seed("--node f:1", &both), nodes(&["f:1"]));
    }

    #[test]
    fn a_file_that_is_no_map_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("m.toml");
        let problem = |bytes: Option<&[u8]>| {
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).expect("written");
            }
            let failure = read_map(&path).expect_err("no map");
            failure.text().expect("something to say")
        };
        assert!(problem(None).contains("m.toml: No such file"));
        assert!(problem(Some(b"\xff")).ends_with("m.toml: this is not a text file"));
        assert!(problem(Some(b"[[shards]]\nadress = 1")).contains("m.toml:2:1: "));
    }
}
