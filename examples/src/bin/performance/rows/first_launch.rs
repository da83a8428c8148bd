//! How long the first `./launch.sh` takes, from nothing but the sources and the packages they need.

use std::{fs, path::Path, process::Command, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, sleep};

use crate::{
    bench::{Bench, Form},
    cluster::map_text,
    outcome::{Figure, Line, Outcome, short},
    ports,
    process::Process,
};

const SHARDS: usize = 3;
const NODES_A_SHARD: usize = 2;

/// What it says once all can be used.
const READY: &str = "nodes are ready";

const POLL: Duration = Duration::from_millis(100);

pub(super) fn run(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench).boxed()
}

async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    let dir = bench.directory()?;
    let map = dir.path().join("sharding.toml");
    let ports = ports::free(SHARDS * NODES_A_SHARD)?;
    fs::write(&map, map_text(&ports, NODES_A_SHARD))?;
    let setting = match bench.form {
        Form::Full => format!("CARGO_TARGET_DIR={}", dir.path().join("target").display()),
        // Builds nothing: shows that the row works.
        Form::Short => format!("KVNODE_BIN={}", bench.programs.kvnode.display()),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch.sh");
    let mut command = Command::new("env");
    command.arg(setting).arg(script);
    command.arg(&map).arg(dir.path().join("data"));

    let said = dir.path().join("launch.log");
    let began = Instant::now();
    let mut launch = Process::start("launch.sh", command, said.clone())?;
    while !fs::read_to_string(&said)?.contains(READY) {
        launch.check()?;
        sleep(POLL).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let status = launch.stop().await?;
    anyhow::ensure!(status.success(), "launch.sh stopped with {status}");

    let line = Line {
        name: format!("{} nodes", ports.len()),
        figures: vec![Figure::new("s until all are ready", [seconds])],
    };
    Ok(Outcome {
        ours: format!("{} s", short(seconds)),
        against: "nobody".to_owned(),
        lines: vec![line],
        ..Outcome::default()
    })
}
