//! Loads a file of records and, with `--verify`, compares every record on every node of its shard.
//!
//! One line is one record: its key is one of its columns (TSV, or any other separator) or one of its fields
//! (NDJSON), its value the whole line as it is, without the line's end.
//!
//! ```sh
//! cargo run --release -p examples --bin bulk_load -- --separator ';' --verify examples/data/unicode-sample.txt
//! ```
//!
//! Nodes may be killed and started again meanwhile. kvclient repeats what it knows to be safe to repeat; what it
//! reports as unavailable, outcome unknown included, is put again here: a plain put of the same value may happen
//! twice without harm.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod records;
mod verify;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use clap::{Parser, ValueEnum};
use examples::Cluster;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use indicatif::{ProgressBar, ProgressStyle};
use kvclient::{Client, ErrorKind};

use records::Record;

/// Pause before an op is repeated: a node that was killed needs about as long to start.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// Loads a file of records, one a line.
///
/// The key is a column or field of the line, the value the whole line. Of lines with the same key the last one
/// counts.
#[derive(Parser)]
#[command(after_help = "\
To run it: ./launch.sh, then
  cargo run --release -p examples --bin bulk_load -- \\
    --separator ';' --verify examples/data/unicode-sample.txt")]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// The file; -, or nothing if something is piped in: standard input
    file: Option<PathBuf>,
    /// How a line is read
    #[arg(long, value_enum, default_value_t = Format::Columns)]
    format: Format,
    /// What separates columns [default: a tab]
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "\t",
        hide_default_value = true
    )]
    separator: String,
    /// The key: a column's number from 1 on, or, of NDJSON, a field's name [default: 1 or key]
    #[arg(long, value_name = "NUMBER|FIELD")]
    key_column: Option<String>,
    /// Put before every key
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,
    /// Puts and gets under way at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    in_flight: usize,
    /// How long to wait for nodes that do not answer, or lag
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
    /// Afterwards, compare every record on every node of its shard
    #[arg(long)]
    verify: bool,
    /// Compare only, load nothing
    #[arg(long)]
    verify_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns with a separator between them
    Columns,
    /// One JSON object a line
    Ndjson,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let records = records::read(&args)?;
    let kv = args.cluster.connect().await?;
    if !args.verify_only {
        load(&kv, &records, &args).await?;
    }
    if args.verify || args.verify_only {
        let differences = verify::count_differences(&kv, &records, &args).await?;
        ensure!(
            differences == 0,
            "the cluster does not have what the file says"
        );
    }
    Ok(())
}

async fn load(kv: &Client, records: &[Record], args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    let bar = progress("loading", records.len());
    let repeated = AtomicU64::new(0);
    stream::iter(records)
        .map(|record| async {
            let repeats = put(kv, record, Duration::from_secs(args.patience)).await?;
            repeated.fetch_add(repeats, Ordering::Relaxed);
            bar.inc(1);
            anyhow::Ok(())
        })
        .buffer_unordered(args.in_flight.max(1))
        .try_for_each(|()| future::ready(Ok(())))
        .await?;
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "stored {} records in {seconds:.2} s ({:.0} a second), {} puts repeated",
        records.len(),
        records.len() as f64 / seconds,
        repeated.into_inner()
    );
    Ok(())
}

/// Stores a record, and says how often the put had to be repeated.
async fn put(kv: &Client, record: &Record, patience: Duration) -> anyhow::Result<u64> {
    let until = Instant::now() + patience;
    let mut repeats = 0;
    loop {
        match kv.put(&record.key, record.value.clone()).await {
            Ok(_) => return Ok(repeats),
            Err(error) if may_pass(error.kind()) && Instant::now() < until => repeats += 1,
            Err(error) => {
                return Err(anyhow!(error).context(format!("cannot store {}", record.key)));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the same op may succeed a little later.
pub(crate) fn may_pass(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Misrouted)
}

/// Drawn on standard error, and only if that is a terminal.
pub(crate) fn progress(what: &'static str, len: usize) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}")
            .expect("the template is a constant");
    ProgressBar::new(len as u64)
        .with_style(style)
        .with_message(what)
}
