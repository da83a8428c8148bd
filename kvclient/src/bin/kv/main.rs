//! `kv`: the store from a terminal or a script.
//!
//! Each command is a short program over [`kvclient::Client`], as any user could write it. Results go to standard output,
//! everything else to standard error; how it went is the exit code, see [`exit`].

mod args;
mod backup;
mod bench;
mod cert;
mod connect;
mod doctor;
mod entries;
mod exit;
mod failure;
mod history;
mod lines;
mod man;
mod map;
mod nodes_say;
mod numbers;
mod out;
mod route;
mod scan;
mod session_file;
mod status;
mod stop;
mod terms;
mod text;
mod tls;
mod token;
mod top;
mod undo;
mod verify;
mod watch;

use std::{io::IsTerminal, process::ExitCode};

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use tokio::runtime::Builder;

use crate::{
    args::{Cli, Command},
    connect::Connected,
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.output.verbose);
    let format = match cli.output.json {
        true => Format::Json,
        false => Format::Text,
    };
    let mut out = Out::new(format);
    let ran = in_runtime(&cli, &mut out);
    let flushed = out.flush();
    let exit = ran.and_then(|exit| flushed.map(|()| exit));
    let exit = exit.unwrap_or_else(|failure| {
        out.failed(&failure);
        failure.exit()
    });
    ExitCode::from(exit.code())
}

/// One thread is enough: what a command does at once waits for the network. Only a measurement is about more.
fn in_runtime(cli: &Cli, out: &mut Out) -> Result<Exit, Failure> {
    let mut builder = match &cli.command {
        Command::Bench(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Local(error.to_string()))?;
    let exit = runtime.block_on(run(cli, out));
    // A name that is being looked up must not keep the program from ending.
    runtime.shutdown_background();
    exit
}

async fn run(cli: &Cli, out: &mut Out) -> Result<Exit, Failure> {
    // These need no cluster.
    match &cli.command {
        Command::Completions { shell } => return completions(*shell, out),
        Command::Man { dir } => return man::man(dir, out),
        Command::Cert(command) => return cert::cert(command, out),
        Command::Token(command) => return token::token(command, out),
        Command::Backup(args) if args.verify => return backup::verify(args, out),
        _ => {}
    }
    let connected = Connected::new(cli).await?;
    let ran = command(cli, &connected, out).await;
    let history = connected.history().unwrap_or_default();
    history.lines().for_each(|line| out.note(line));
    // Of two failures the first is the one to tell. The second is no wrong usage: what was asked for is done.
    let saved = connected.save_session().map_err(Failure::afterwards);
    ran.and_then(|exit| saved.map(|()| exit))
}

async fn command(cli: &Cli, connected: &Connected, out: &mut Out) -> Result<Exit, Failure> {
    let kv = match cli.command.ack() {
        Some(who) => &connected.kv.with_ack(who.0),
        None => &connected.kv,
    };
    let format = cli.output.key_format;
    let key = |typed| format.parse(typed).map_err(Failure::Usage);
    let keys = |typed| format.parse_all(typed).map_err(Failure::Usage);
    match &cli.command {
        Command::Get { keys: typed } => entries::get(kv, &keys(typed)?, out).await,
        Command::Put(args) => entries::put(kv, &key(&args.key)?, args, out).await,
        Command::Delete(args) => entries::delete(kv, &keys(&args.keys)?, args, out).await,
        Command::Incr { key: typed, by, .. } => entries::incr(kv, &key(typed)?, *by, out).await,
        Command::Touch {
            key: typed, ttl, ..
        } => {
            let key = key(typed)?;
            entries::was_there(&key, kv.touch(&key, *ttl).await?, out)
        }
        Command::Persist { key: typed, .. } => {
            let key = key(typed)?;
            entries::was_there(&key, kv.persist(&key).await?, out)
        }
        Command::Route { key: typed } => route::route(kv, &key(typed)?, out),
        Command::Scan(args) => scan::scan(kv, args, format, out).await,
        Command::Watch(args) => watch::watch(connected, args, format, out).await,
        Command::History { key: typed } => history::history(kv, &key(typed)?, out).await,
        Command::Undo(args) => undo::undo(kv, args, format, out).await,
        Command::Bench(args) => bench::bench(connected, kv, args, out).await,
        Command::Backup(args) => backup::back_up(connected, args, out).await,
        Command::Restore(args) => backup::restore(connected, args, out).await,
        Command::Export(args) => lines::export(kv, args, format, out).await,
        Command::Import(args) => lines::import(kv, args, out).await,
        Command::Status => status::status(connected, out).await,
        Command::Map => map::map(connected, out).await,
        Command::Top(args) => top::top(connected, args, out).await,
        Command::Doctor => doctor::doctor(connected, out).await,
        Command::Verify(args) => verify::verify(connected, args, out).await,
        Command::Cert(command) => cert::cert(command, out),
        Command::Token(command) => token::token(command, out),
        Command::Completions { shell } => completions(*shell, out),
        Command::Man { dir } => man::man(dir, out),
    }
}

fn completions(shell: Shell, out: &mut Out) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kv", &mut script);
    out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

fn start_logging(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => "kvclient=debug",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .log_internal_errors(false)
        .init();
}
