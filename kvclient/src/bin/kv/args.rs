//! What can be typed. Also the source of `--help` and of the completions.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use kvclient::{Consistency, Position, Session};

use crate::{
    backup::args::{BackupArgs, RestoreArgs},
    bench::args::BenchArgs,
    cert::CertCommand,
    exit,
    lines::args::{ExportArgs, ImportArgs},
    terms::{AckArgs, Moment, Who, duration, moment},
    text::KeyFormat,
    tls::TlsArgs,
    token::TokenCommand,
    top::args::TopArgs,
    verify::args::VerifyArgs,
};

/// Reads and writes a sharded key-value store, and shows how it is doing.
///
/// Knows the shard map, so each request goes straight to a node that can answer it.
#[derive(Debug, Parser)]
#[command(
    name = "kv",
    version,
    after_help = exit::TABLE,
    after_long_help = exit::TABLE,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster, and under which terms.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Shard map of the cluster [env: KV_MAP] [default: sharding.toml]
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "node")]
    pub(crate) map: Option<PathBuf>,
    /// Ask this node for the map instead; several with commas between them [env: KV_NODE]
    #[arg(
        long,
        value_name = "HOST:PORT",
        global = true,
        value_delimiter = ',',
        action = ArgAction::Set
    )]
    pub(crate) node: Option<Vec<String>>,
    /// Who you are, to nodes that ask: a token in a file of mode 0600 [env: KV_TOKEN, the token itself]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Longest time for an op, such as 500ms or 5s [default: 5s; watch: 1m without an answer]
    #[arg(long, value_name = "TIME", global = true, value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// How new reads are: primary, read-your-writes, eventual, max-lag=TIME [default: primary]
    ///
    /// With --session-file the default is read-your-writes: any node that has what the session has seen. Without one
    /// that would promise nothing, since each command is a session of its own.
    #[arg(long, value_name = "HOW", global = true, value_parser = consistency)]
    pub(crate) consistency: Option<Consistency>,
    /// Remember here what was written and read, so that later commands see at least that
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) session_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// How keys are typed and results are shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Input and output")]
pub(crate) struct OutputArgs {
    /// Results, and errors on standard error, as lines of JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How keys and prefixes are typed
    #[arg(
        long,
        value_name = "FORMAT",
        global = true,
        value_enum,
        default_value_t
    )]
    pub(crate) key_format: KeyFormat,
    /// Show on standard error which nodes were asked for each key, and why
    #[arg(long, global = true)]
    pub(crate) explain: bool,
    /// Say on standard error what the client does; twice: also the libraries below it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a value as it is; of several keys a line each: key, tab, value
    Get {
        /// Keys of entries
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<OsString>,
    },
    /// Store a value and print the position of the write
    Put(PutArgs),
    /// Remove keys and print the position of each removal
    Delete(DeleteArgs),
    /// Add to a counter and print its new value
    Incr {
        /// The counter; if absent it begins at 0
        key: OsString,
        /// What to add
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
        #[command(flatten)]
        ack: AckArgs,
    },
    /// Set how long an entry lives from now on
    Touch {
        /// Key of the entry
        key: OsString,
        /// Such as 90s, 10m or 7d
        #[arg(value_name = "TIME", value_parser = duration)]
        ttl: Duration,
        #[command(flatten)]
        ack: AckArgs,
    },
    /// Let an entry live for ever
    Persist {
        /// Key of the entry
        key: OsString,
        #[command(flatten)]
        ack: AckArgs,
    },
    /// Print the entries of all shards in key order, a line each: key, tab, value
    Scan(ScanArgs),
    /// Print changes as they happen, a line each: put, delete or expire, tab, key, tab, value
    Watch(WatchArgs),
    /// Print what a key was, as far back as the log goes, a line each: position, tab, time, tab, change
    History {
        /// The key
        key: OsString,
    },
    /// Put keys back to what they were, by the log; without --yes only says how
    Undo(UndoArgs),
    /// Show who has a key, by the map; asks nobody
    Route {
        /// Any key, also an absent one
        key: OsString,
    },
    /// Show how every node is doing
    Status,
    /// Show how busy every node is, anew each second; q or Ctrl-C ends it
    ///
    /// Reads and writes of the last second, their times, lag, sizes, memory; on top all nodes together, with a minute behind
    /// them. Where standard output is no terminal, one table. NO_COLOR is heeded.
    Top(TopArgs),
    /// Make certificates for a trial of TLS; needs no cluster
    #[command(subcommand)]
    Cert(CertCommand),
    /// Print the shard map that is in force
    Map,
    /// Copy the cluster into a directory, or bring the copy there up to date
    ///
    /// The first time a snapshot of each shard, later only the log since. What is there is whole at any moment: stop it
    /// with Ctrl-C, and run it again to go on. Asks replicas first, so that primaries have little to do. Prints a line
    /// for each shard: name, first and last position, up to when it is complete, bytes.
    Backup(BackupArgs),
    /// Write what a backup holds into a cluster of any number of shards
    ///
    /// Reads and checks all of the backup first. Keys, values and expiry are restored; an entry whose time is over is left
    /// out. Stop it with Ctrl-C, and run it again to go on.
    Restore(RestoreArgs),
    /// Write all entries as lines of JSON
    Export(ExportArgs),
    /// Store entries from lines of JSON, as export writes them
    Import(ImportArgs),
    /// Compare replicas with their primary: exit code 1 if one of them has something else
    /// Counts and sums in 64 ranges of slots, all at one position, which takes moments. They are of what a node has
    /// written; --deep reads every entry of every node and compares position and value. Both may run beside writes.
    Verify(VerifyArgs),
    /// Say what is wrong with map and nodes and what to do, a finding a line; exit code 1 if there is an error
    Doctor,
    /// Measure how much the cluster does, under the core workloads of YCSB
    ///
    /// Stores its keys, bench: and 16 hex digits each, where they are missing, and leaves them there for the next run;
    /// --clean-up removes them. Reads ask the primary, as all of kv, unless --consistency says otherwise. Ops that fail
    /// are counted by reason; the exit code is that of the worst of them, or 130 after Ctrl-C.
    Bench(BenchArgs),
    /// Make tokens for nodes that ask who one is; needs no cluster
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print a script that lets a shell complete what is typed
    ///
    /// bash: source <(kv completions bash). zsh: kv completions zsh > _kv, in a directory of $fpath. fish: kv
    /// completions fish > ~/.config/fish/completions/kv.fish
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Write the manual pages, kv.1 and one for each command, into a directory
    ///
    /// kv man ~/.local/share/man/man1, and man finds them.
    Man {
        /// Made if it is not there
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// Key of the entry: 1 to 511 bytes
    pub(crate) key: OsString,
    /// The value; none or "-": standard input, byte for byte
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: Option<OsString>,
    /// Take the value from a file
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
    /// How long the entry lives, such as 90s, 10m or 7d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Only if the key is absent
    #[arg(long, group = "condition")]
    pub(crate) if_absent: bool,
    /// Only if the key is there
    #[arg(long, group = "condition")]
    pub(crate) if_exists: bool,
    /// Only if the entry was last written at this position
    #[arg(long, value_name = "POSITION", group = "condition")]
    pub(crate) if_match: Option<Position>,
    #[command(flatten)]
    pub(crate) ack: AckArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Keys of entries
    #[arg(value_name = "KEY", required = true)]
    pub(crate) keys: Vec<OsString>,
    /// Only if the entry was last written at this position; for one key
    #[arg(long, value_name = "POSITION")]
    pub(crate) if_match: Option<Position>,
    #[command(flatten)]
    pub(crate) ack: AckArgs,
}

impl Command {
    /// Who must have synced what it writes, if that is said.
    pub(crate) fn ack(&self) -> Option<Who> {
        match self {
            Self::Put(PutArgs { ack, .. })
            | Self::Delete(DeleteArgs { ack, .. })
            | Self::Incr { ack, .. }
            | Self::Touch { ack, .. }
            | Self::Persist { ack, .. }
            | Self::Undo(UndoArgs { ack, .. })
            | Self::Import(ImportArgs { ack, .. })
            | Self::Bench(BenchArgs { ack, .. }) => ack.ack,
            Self::Get { .. }
            | Self::Scan(_)
            | Self::Watch(_)
            | Self::History { .. }
            | Self::Route { .. }
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Export(_)
            | Self::Status
            | Self::Map
            | Self::Verify(_)
            | Self::Top(_)
            | Self::Doctor
            | Self::Cert(_)
            | Self::Token(_)
            | Self::Completions { .. }
            | Self::Man { .. } => None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    pub(crate) prefix: OsString,
    /// Leave values out
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// The last key first
    #[arg(long)]
    pub(crate) reverse: bool,
    /// No key before this one
    #[arg(long, value_name = "KEY")]
    pub(crate) start: Option<OsString>,
    /// No key at this one or behind it
    #[arg(long, value_name = "KEY")]
    pub(crate) end: Option<OsString>,
    /// At most so many entries
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Go on where a scan with the same settings ended; it prints the token on standard error
    #[arg(long, value_name = "TOKEN")]
    pub(crate) after: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    pub(crate) prefix: OsString,
    /// Begin at: now, start (of the logs), earliest (what they still have), or where a watch ended: the token it printed
    /// on standard error
    #[arg(long, value_name = "WHERE", default_value = "now", value_parser = from)]
    pub(crate) from: From,
    /// End after so many changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// Only keys that begin with this; all of them: ""
    #[arg(long, value_name = "PREFIX", required = true)]
    pub(crate) prefix: OsString,
    /// The moment to go back to: a time such as 2026-11-26T12:05:09Z, how long ago such as 10m, or a token of positions
    #[arg(long, value_name = "WHEN", required = true, value_parser = moment)]
    pub(crate) to: Moment,
    /// Do it
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) ack: AckArgs,
}

/// Where a watch begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    Now,
    Start,
    Earliest,
    Behind(Session),
}

fn consistency(text: &str) -> Result<Consistency, String> {
    match text.split_once('=') {
        Some(("max-lag", lag)) => duration(lag).map(Consistency::MaxLag),
        None if text == "primary" => Ok(Consistency::Primary),
        None if text == "read-your-writes" => Ok(Consistency::ReadYourWrites),
        None if text == "eventual" => Ok(Consistency::Eventual),
        _ => Err("write primary, read-your-writes, eventual, or max-lag=200ms".to_owned()),
    }
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "now" => Ok(From::Now),
        "start" => Ok(From::Start),
        "earliest" => Ok(From::Earliest),
        token => Session::from_token(token)
            .map(From::Behind)
            .map_err(|error| format!("{error}; or write now, start or earliest")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};
    use kvclient::Ack;

    use super::*;

    fn parse(words: &str) -> Result<Cli, ErrorKind> {
        let words = std::iter::once("kv").chain(words.split_whitespace());
        Cli::try_parse_from(words).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn writes_say_who_must_have_them() {
        for (word, expected) in [
            ("primary", None),
            ("1", Some(Ack::Replicas(1))),
            ("253", Some(Ack::Replicas(253))),
            ("majority", Some(Ack::Majority)),
            ("all", Some(Ack::All)),
        ] {
            for command in ["put k v", "delete k l", "incr k", "touch k 9s", "persist k"] {
                let cli = parse(&format!("{command} --ack {word}")).expect("sound");
                assert_eq!(cli.command.ack(), Some(Who(expected)), "{command} {word}");
            }
        }
        assert_eq!(parse("put k v").expect("sound").command.ack(), None);
        for word in ["0", "254", "+1", "most", ""] {
            let refused = Cli::try_parse_from(["kv", "put", "k", "v", "--ack", word]);
            assert!(refused.is_err(), "{word}");
        }
        assert!(parse("get k --ack 1").is_err(), "a read waits for nobody");
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for words in [
            "--json --timeout 2s --node a:1,b:2 get k",
            "get k --json --timeout 2s --node a:1,b:2",
        ] {
            let cli = parse(words).expect("sound");
            assert!(cli.output.json);
            assert_eq!(cli.cluster.timeout, Some(Duration::from_secs(2)));
            assert_eq!(
                cli.cluster.node,
                Some(vec!["a:1".to_owned(), "b:2".to_owned()])
            );
        }
    }

    #[test]
    fn values_may_be_numbers_below_zero_and_mistyped_flags_are_no_values() {
        let Ok(Command::Put(put)) = parse("put k -5 --ttl 90s").map(|cli| cli.command) else {
            panic!("a put");
        };
        assert_eq!(put.value, Some("-5".into()));
        assert_eq!(put.ttl, Some(Duration::from_secs(90)));
        assert!(matches!(
            parse("incr k -3").expect("sound").command,
            Command::Incr { by: -3, .. }
        ));
        assert_eq!(
            parse("put k --if-abesnt").err(),
            Some(ErrorKind::UnknownArgument)
        );
        assert!(parse("put k -- --if-abesnt").is_ok());
        assert!(parse("put k -").is_ok());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for words in [
            "get",
            "delete",
            "put k v --file f",
            "put k v --if-absent --if-exists",
            "put k v --if-absent --if-match 1.2",
            "get k --map m --node n:1",
            "scan --limit 0",
            "watch --from yesterday",
            "get k --consistency strong",
            "get k --consistency max-lag",
            "get k --timeout 5",
            "put k v --if-match 1",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn consistencies() {
        for (text, wanted) in [
            ("primary", Consistency::Primary),
            ("eventual", Consistency::Eventual),
            ("read-your-writes", Consistency::ReadYourWrites),
            (
                "max-lag=200ms",
                Consistency::MaxLag(Duration::from_millis(200)),
            ),
        ] {
            assert_eq!(consistency(text), Ok(wanted));
        }
    }
}
