//! The `kvnode` program: arguments, logging, signals, exit codes.
//!
//! Exit codes: 0 clean, 2 bad configuration, 3 data refused, 4 data directory in use, 5 storage failure.

use std::{io::Write, process::ExitCode, time::Duration};

use clap::Parser;
use kvclient::{rfc3339, shard_map::ShardMap};
use kvnode::{
    compact::{self, CompactError},
    config::{Cli, ConfigError, NodeConfig, Offline, ServeArgs},
    durable::DataError,
    logging::{self, Logging},
    node::{self, RunningNode, StartError},
    offline,
    storage::StorageError,
    supervisor::Supervisor,
};
use tokio::signal::unix::{SignalKind, signal};

const BAD_CONFIGURATION: u8 = 2;
const DATA_REFUSED: u8 = 3;
const IN_USE: u8 = 4;
const STORAGE_FAILED: u8 = 5;

/// How often a person who reads the log is told of what should not stay as it is.
const REMIND_EVERY: Duration = Duration::from_secs(3_600);

/// How often certificates are looked at that end.
const DAY: Duration = Duration::from_secs(86_400);

/// How often a service manager hears how the node is doing, if that has changed.
const TELL_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Some(Offline::Check { data }) => return check(data),
        Some(Offline::Compact { data }) => return compact(data),
        None => {}
    }
    match prepare(&cli.serve) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some((config, logging))) => run(config, logging),
        Err(error) => fail(BAD_CONFIGURATION, &error),
    }
}

/// Reads the configuration; `None` if only that was asked for.
fn prepare(args: &ServeArgs) -> Result<Option<(NodeConfig, Logging)>, ConfigError> {
    let settings = args.merged_settings()?;
    if args.check_config {
        logging::check(&settings)?;
        print_map(&args.check(&settings)?);
        return Ok(None);
    }
    let logging = Logging::start(&settings)?;
    Ok(Some((args.node_config(&settings)?, logging)))
}

/// One line for each node of the map: address, role, shard.
fn print_map(map: &ShardMap) {
    let mut out = std::io::stdout().lock();
    for shard in map.shards() {
        for node in shard.nodes() {
            let role = shard
                .role_of(&node.address)
                .map_or("", |role| role.as_str());
            // Nobody is there to be told if the reader has gone.
            let _ = writeln!(out, "{} {role} {}", node.address, shard.name);
        }
    }
}

fn run(config: NodeConfig, logging: Logging) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(config, logging)),
        Err(error) => fail(STORAGE_FAILED, &error),
    }
}

async fn serve(config: NodeConfig, mut logging: Logging) -> ExitCode {
    let (shard, role, address) = (
        config.shard().name.clone(),
        config.role(),
        config.address.clone(),
    );
    if !config.is_known_to_others() {
        tracing::warn!(
            "the token of --node-token-file is not in --tokens with the scope node: nodes with the same file will \
             refuse it"
        );
    }
    if let Some(faults) = kvclient::faults::asked() {
        tracing::warn!(faults, "faults for tests: this node keeps no promises");
    }
    // Before the node starts: a signal that comes meanwhile must not kill it half-way.
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        return fail(STORAGE_FAILED, &"no signals can be received");
    };
    let supervisor = Supervisor::from_env();
    let mut node = match node::start(config).await {
        Ok(node) => node,
        Err(error) => return fail(start_code(&error), &error),
    };
    tracing::info!(%address, %role, shard, "serves");
    supervisor.serves();
    let mut ticks = tokio::time::interval(TELL_EVERY);
    let mut reminders = tokio::time::interval(REMIND_EVERY);
    let mut days = tokio::time::interval(DAY);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                let args = Cli::parse().serve;
                reload_map(&node, &args);
                reload_tokens(&node);
                reload_node_token(&node, &args);
                reload_certificates(&node);
                reload_level(&mut logging, &args);
            }
            _ = ticks.tick() => {
                let how = node.service.ready().err();
                supervisor.is_doing(how.as_deref().unwrap_or("ready"));
            }
            _ = reminders.tick() => remind(&node),
            _ = days.tick() => remind_of_certificates(&node),
            why = node.failed() => {
                fail(STORAGE_FAILED, &why);
                // What the disk holds is not certain any more, and a thread may hang in it: nothing is closed in
                // order, the next start decides.
                std::process::exit(STORAGE_FAILED.into());
            }
        }
    }
    supervisor.stops();
    match node.stop().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(STORAGE_FAILED, &why),
    }
}

/// At start and each hour.
fn remind(node: &RunningNode) {
    if node.service.config.insecure_no_auth {
        tracing::warn!(
            "--insecure-no-auth: whoever reaches this node can read and change everything"
        );
    }
    if let Some(why) = node.service.admission.trouble() {
        tracing::error!(%why, "the tokens in force are not those of the file");
    }
}

fn reload_map(node: &RunningNode, args: &ServeArgs) {
    let map = args.read_map().map_err(|error| error.to_string());
    match map.and_then(|map| node.service.reload(map)) {
        Ok(identity) => tracing::info!(identity, "the shard map is reloaded"),
        Err(why) => {
            tracing::error!(%why, "the shard map is not reloaded; the old one stays in force")
        }
    }
}

fn reload_tokens(node: &RunningNode) {
    match node.service.admission.reload() {
        Ok(Some(count)) => tracing::info!(count, "the tokens are reloaded"),
        Ok(None) => {}
        Err(why) => {
            tracing::error!(%why, "the tokens are not reloaded; the old ones stay in force")
        }
    }
}

fn reload_node_token(node: &RunningNode, args: &ServeArgs) {
    let shown = match args.read_node_token() {
        Ok(None) => return,
        Ok(Some(token)) => node
            .service
            .asker
            .show(token)
            .map_err(|error| error.to_string()),
        Err(why) => Err(why.to_string()),
    };
    match shown {
        Ok(()) => tracing::info!("the node's own token is reloaded"),
        Err(why) => {
            tracing::error!(%why, "the node's own token is not reloaded; the old one is shown on")
        }
    }
}

fn reload_certificates(node: &RunningNode) {
    let Some(tls) = &node.service.config.tls else {
        return;
    };
    match tls.reload() {
        Ok(expires) => {
            let expires = rfc3339::format(expires);
            tracing::info!(expires, "the certificates are reloaded");
            remind_of_certificates(node);
        }
        Err(why) => {
            tracing::error!(%why, "the certificates are not reloaded; the old ones stay in force")
        }
    }
}

/// At start, each day, and when they are reloaded.
fn remind_of_certificates(node: &RunningNode) {
    let tls = node.service.config.tls.as_ref();
    if let Some(why) = tls.and_then(|tls| tls.trouble()) {
        tracing::warn!(%why, "certificates");
    }
}

/// Of the settings only the log level changes while a node runs.
fn reload_level(logging: &mut Logging, args: &ServeArgs) {
    let changed = args
        .merged_settings()
        .and_then(|settings| Ok(logging.change(&settings)?.map(str::to_owned)));
    match changed {
        Ok(Some(level)) => tracing::info!(level, "the log level is changed"),
        Ok(None) => {}
        Err(why) => tracing::error!(%why, "the log level is not changed"),
    }
}

fn start_code(error: &StartError) -> u8 {
    match error {
        StartError::Bind { .. } | StartError::Client(_) => BAD_CONFIGURATION,
        StartError::Data(DataError::InUse(_)) => IN_USE,
        StartError::Data(DataError::Refused(_)) | StartError::Storage(StorageError::Refused(_)) => {
            DATA_REFUSED
        }
        StartError::Data(DataError::Io { .. })
        | StartError::Storage(StorageError::Failed(_))
        | StartError::System(_) => STORAGE_FAILED,
    }
}

fn check(data: &std::path::Path) -> ExitCode {
    match offline::check(data, &mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DATA_REFUSED),
        Err(offline::CheckError::Data(DataError::InUse(path))) => {
            fail(IN_USE, &DataError::InUse(path))
        }
        Err(error) => fail(DATA_REFUSED, &error),
    }
}

fn compact(data: &std::path::Path) -> ExitCode {
    let compacted = compact::compact(data, &mut std::io::stdout().lock());
    compacted.map_or_else(
        |error| {
            let code = match &error {
                CompactError::Data(DataError::InUse(_)) => IN_USE,
                CompactError::Data(DataError::Refused(_)) | CompactError::Refused(_) => {
                    DATA_REFUSED
                }
                CompactError::Data(DataError::Io { .. }) | CompactError::Failed(_) => {
                    STORAGE_FAILED
                }
            };
            fail(code, &error)
        },
        |()| ExitCode::SUCCESS,
    )
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "kvnode: {error}");
    ExitCode::from(code)
}
