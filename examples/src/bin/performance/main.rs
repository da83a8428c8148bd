//! This store beside Redis, Valkey and etcd, on this machine, in one run; and what the machine can do at all.
//!
//! Starts every server itself, on free ports and in directories of its own, and stops what it started by process id,
//! also on Ctrl-C and when something fails. `bench.sh` runs it. One file in `rows/` for each kind of row.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod arena;
mod bench;
mod cluster;
mod contender;
mod load;
mod machine;
mod outcome;
mod peers;
mod ports;
mod process;
mod report;
mod rows;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use arena::Arena;
use bench::{Bench, Form, Programs, find};
use load::Load;
use outcome::Outcome;
use report::{Circumstances, Report};
use rows::{Row, Run};

/// Measures this store beside Redis, Valkey and etcd.
#[derive(Parser)]
#[command(after_help = "To run it: ./bench.sh")]
struct Args {
    /// Rows to measure, or groups of them (get, set): all if not given
    #[arg(long, value_name = "ID,...", value_delimiter = ',')]
    rows: Vec<String>,
    /// About a second for each row: shows that it works; the figures mean nothing
    #[arg(long)]
    short: bool,
    /// Turns of each side [default: 5; 1 with --short]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds of each measurement, after its warm-up [default: 4; 0.2 with --short]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// The node, built as users run it
    #[arg(long, value_name = "PATH")]
    kvnode: PathBuf,
    /// Where what came of the rows is kept; rows that are not measured stay in it
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// Page whose tables are written anew from that file
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Where servers keep their data while they run: on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// What was built, for the table
    #[arg(long, value_name = "TEXT", default_value = "unknown")]
    commit: String,
    /// Instead of the one in PATH
    #[arg(long, value_name = "PATH")]
    redis_server: Option<PathBuf>,
    /// Instead of the one in PATH
    #[arg(long, value_name = "PATH")]
    valkey_server: Option<PathBuf>,
    /// Instead of the one in PATH
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
    /// Instead of the one in PATH
    #[arg(long, value_name = "PATH")]
    wrk: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Whichever ends first; the other is dropped, and with it every server.
    let result = tokio::select! {
        result = run(&args) => result,
        result = interrupted() => result,
    };
    examples::finish(result)
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let rows = rows::named(&args.rows)?;
    let bench = args.bench()?;
    let run = Circumstances {
        commit: args.commit.clone(),
        machine: machine::describe(&args.dir),
        rounds: bench.rounds,
        seconds: bench.lasts.as_secs_f64(),
    };
    let mut report = Report::read(&args.json)?;
    let mut arena = None;
    for row in rows {
        println!("{}: {}", row.id, row.work);
        let outcome = measure(row, &bench, &mut arena).await?;
        print(&outcome);
        report.put(row, run.clone(), outcome);
        // After each row, so that a run that ends early has not been in vain.
        report.write(&args.json)?;
    }
    args.page
        .as_ref()
        .map_or(Ok(()), |page| report.write_page(page))
}

async fn measure(row: &Row, bench: &Bench, arena: &mut Option<Arena>) -> anyhow::Result<Outcome> {
    if matches!(row.run, Run::Alone(_)) {
        *arena = None;
    } else if arena.is_none() {
        *arena = Some(Arena::start(bench, &Load::to_fill(bench.keys())).await?);
    }
    match (&row.run, arena) {
        (Run::Contest(contest), Some(arena)) => contest.run(bench, arena).await,
        (Run::Arena(run), Some(arena)) => run(bench, arena).await,
        (Run::Alone(run), _) => run(bench).await,
        (Run::Contest(_) | Run::Arena(_), None) => unreachable!("started above"),
    }
}

fn print(outcome: &Outcome) {
    for line in &outcome.lines {
        let figures = line.figures.iter();
        let figures =
            figures.map(|figure| format!("{} {}", outcome::short(figure.median), figure.what));
        println!(
            "  {:<24} {}",
            line.name,
            figures.collect::<Vec<_>>().join("; ")
        );
    }
    for note in &outcome.notes {
        println!("  {note}");
    }
    let ratio = outcome
        .ratio
        .map_or(String::new(), |ratio| format!(", {ratio:.2} times"));
    let verdict = match outcome.reached {
        Some(true) => "reached",
        Some(false) => "not reached",
        None => "not judged",
    };
    println!(
        "  {} beside {}{ratio}: {verdict}",
        outcome.ours, outcome.against
    );
}

/// Ends with an error at the first signal to stop.
async fn interrupted() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    bail!("interrupted")
}

impl Args {
    fn bench(&self) -> anyhow::Result<Bench> {
        let (form, rounds, seconds) = match self.short {
            true => (Form::Short, 1, 0.2),
            false => (Form::Full, 5, 4.0),
        };
        anyhow::ensure!(
            self.kvnode.is_file(),
            "{} is not there",
            self.kvnode.display()
        );
        Ok(Bench {
            programs: Programs {
                kvnode: self.kvnode.clone(),
                redis: find(self.redis_server.as_deref(), "redis-server")?,
                valkey: find(self.valkey_server.as_deref(), "valkey-server")?,
                etcd: find(self.etcd.as_deref(), "etcd")?,
                wrk: find(self.wrk.as_deref(), "wrk")?,
                strace: find(None, "strace")?,
            },
            form,
            lasts: Duration::try_from_secs_f64(self.seconds.unwrap_or(seconds))?,
            rounds: self.rounds.unwrap_or(rounds).max(1),
            dir: self.dir.clone(),
        })
    }
}
