//! What a newcomer sees of each program before there is a cluster.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

const PROGRAMS: &[&str] = &[
    env!("CARGO_BIN_EXE_quickstart"),
    env!("CARGO_BIN_EXE_counter"),
    env!("CARGO_BIN_EXE_read_your_writes"),
    env!("CARGO_BIN_EXE_sessions"),
    env!("CARGO_BIN_EXE_live_feed"),
    env!("CARGO_BIN_EXE_custom_policy"),
    env!("CARGO_BIN_EXE_web_sessions"),
    env!("CARGO_BIN_EXE_explain"),
    env!("CARGO_BIN_EXE_measure"),
    env!("CARGO_BIN_EXE_bulk_load"),
];

#[test]
fn help_shows_how_to_run_it() {
    for program in PROGRAMS {
        let help = Command::new(program).arg("--help").output().unwrap();
        let text = String::from_utf8(help.stdout).unwrap();
        let name = Path::new(program).file_stem().unwrap().to_str().unwrap();
        let line = format!("cargo run --release -p examples --bin {name}");
        assert!(text.contains(&line), "{program}: {text}");
        assert!(text.contains("--map <FILE>"), "{program}: {text}");
    }
}

#[test]
fn without_a_cluster_each_says_so_in_one_line() {
    // Nobody listens on port 1.
    let map = scratch(
        "nobody.toml",
        "[[shards]]\nname = \"a\"\nidx = 0\naddress = \"localhost:1\"\n",
    );
    for program in PROGRAMS {
        let failed = run(program, &map);
        assert_eq!(failed.status.code(), Some(1), "{program}");
        assert_eq!(
            String::from_utf8(failed.stderr).unwrap(),
            "error: no cluster answers at localhost:1; start one with ./launch.sh\n",
            "{program}"
        );
    }
}

#[test]
fn a_missing_map_is_named_with_its_cause() {
    for program in PROGRAMS {
        let failed = run(program, Path::new("no/such.toml"));
        assert_eq!(failed.status.code(), Some(1), "{program}");
        let text = String::from_utf8(failed.stderr).unwrap();
        assert_eq!(text.lines().count(), 2, "{program}: {text}");
        assert!(text.starts_with("error: cannot read the shard map no/such.toml"));
        assert!(text.contains("No such file"), "{program}: {text}");
    }
}

#[test]
fn nothing_to_count_is_refused() {
    let counter = env!("CARGO_BIN_EXE_counter");
    for arguments in [["--tasks", "0"], ["--steps", "0"], ["--tasks", "-1"]] {
        let refused = Command::new(counter).args(arguments).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
    }
}

/// Runs a program as somebody would who debugs another one: backtraces are on.
fn run(program: &str, map: &Path) -> Output {
    let records = scratch("records.tsv", "key\tvalue\n");
    let mut command = Command::new(program);
    command.arg("--map").arg(map);
    if program.contains("bulk_load") {
        command.arg(records);
    }
    command
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn scratch(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Several tests write the same text; none of them may see half of it.
    let whole = path.with_extension(format!("{:?}", std::thread::current().id()));
    std::fs::write(&whole, text).unwrap();
    std::fs::rename(&whole, &path).unwrap();
    path
}
