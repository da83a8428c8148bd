//! `kv bench`: how much a cluster does, under the core workloads of YCSB.
//!
//! First the keys are stored that are not there ([`load`]); then tasks make ops ([`run`]), of kinds and on keys that the
//! workload draws ([`workload`], [`keys`]), as fast as they can or at a rate ([`pace`]); in the end it is told what was
//! measured ([`report`]), also after Ctrl-C. Ops that fail are counted by their reason, and the exit code is that of the
//! worst of them.

pub(crate) mod args;
mod keys;
mod load;
mod pace;
mod record;
mod report;
mod run;
mod table;
pub(crate) mod workload;
mod zipf;

use std::pin::pin;

use bytes::Bytes;
use fastrand::Rng;
use kvclient::Client;

use self::{
    args::BenchArgs,
    load::Loaded,
    pace::Limits,
    report::{Report, Terms},
    run::{Measured, Plan, Progress},
    workload::Workload,
};
use crate::{
    connect::Connected,
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
    stop::stopped,
};

/// Measures a workload, cleans up, or both.
pub(crate) async fn bench(
    connected: &Connected,
    kv: &Client,
    args: &BenchArgs,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let exit = match args.workload {
        Some(workload) => measure(connected, kv, args, workload, out).await?,
        None => Exit::Done,
    };
    if args.clean_up {
        // What was measured is told first, whatever becomes of this.
        out.flush()?;
        let removed = kv.delete_prefix(keys::PREFIX).await?;
        out.note(&format!("removed {removed} keys"));
    }
    Ok(exit)
}

async fn measure(
    connected: &Connected,
    kv: &Client,
    args: &BenchArgs,
    workload: Workload,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let plan = plan(args, workload);
    let Some(loaded) = prepare(kv, &plan, out).await? else {
        return Ok(Exit::Interrupted);
    };
    let measured = run::run(kv, plan.clone(), out).await?;
    let terms = Terms {
        consistency: connected.consistency,
        ack: args.ack.ack.and_then(|who| who.0),
    };
    let report = Report::new(&plan, terms, loaded, &measured);
    match out.format {
        Format::Text => out.text(&table::text(&report))?,
        Format::Json => out.object(&report)?,
    }
    Ok(exit(&measured))
}

fn plan(args: &BenchArgs, workload: Workload) -> Plan {
    let seed = args.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    // Text, so that somebody who looks at an entry sees something.
    let mut rng = Rng::with_seed(seed);
    let value: String = (0..args.value_bytes).map(|_| rng.alphanumeric()).collect();
    Plan {
        workload,
        distribution: args.distribution.unwrap_or(workload.distribution()),
        keys: args.keys,
        value: Bytes::from(value),
        tasks: args.tasks as usize,
        seed,
        limits: Limits {
            warm_up: args.warm_up,
            duration: args.duration,
            ops: args.ops,
            rate: args.rate,
        },
        progress: match args.quiet {
            true => Progress::Hidden,
            false => Progress::Shown,
        },
    }
}

/// Sees to it that the keys are there; `None`: somebody said stop.
async fn prepare(kv: &Client, plan: &Plan, out: &mut Out) -> Result<Option<Loaded>, Failure> {
    if plan.progress.is_seen() {
        out.note(&format!(
            "{} keys: storing those that are missing",
            plan.keys
        ));
    }
    let loading = pin!(load::load(kv, plan.keys, &plan.value));
    let loaded = tokio::select! {
        biased;
        told = stopped() => return told.map(|()| None),
        loaded = loading => loaded?,
    };
    if plan.progress.is_seen() {
        let Loaded { stored, removed } = loaded;
        out.note(&format!(
            "stored {stored}, removed {removed} that an earlier run had added"
        ));
    }
    Ok(Some(loaded))
}

/// The code of the worst that happened.
fn exit(measured: &Measured) -> Exit {
    if measured.was_interrupted {
        return Exit::Interrupted;
    }
    let exits = measured.tally.failures().map(|(_, failures)| failures.exit);
    exits.fold(Exit::Done, Exit::and)
}
