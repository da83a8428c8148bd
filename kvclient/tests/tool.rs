//! The tool `kv` as a script sees it: what it prints, where, and its exit code, against scripted nodes.

#![allow(clippy::unwrap_used, reason = "only tests come here")]

mod support;

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    process::Child,
    sync::Arc,
};

use kvclient::wire::{
    batch::{Ack, Action, OpResult},
    error::{Applied, ErrorCode},
};
use rustix::process::{Pid, Signal, kill_process};
use support::{
    FakeLog, FakeShard, Reply, StreamReply, refused, stored,
    tool::{Ran, Tool},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_comes_and_goes() {
    let kv = Tool::start(2, 0).await;
    let put = kv.run(&["put", "a", "1"]);
    assert_eq!((put.code, put.text()), (0, "1.1\n"), "{put:?}");
    // As it is: no line end is added.
    assert_eq!(kv.run(&["get", "a"]).text(), "1");
    assert_eq!(kv.run(&["incr", "a"]).text(), "2\n");
    assert_eq!(kv.run(&["incr", "a", "-5"]).text(), "-3\n");
    let several = kv.run(&["get", "a", "none"]);
    assert_eq!((several.code, several.text()), (1, "a\t-3\n"));
    assert_eq!(several.said, "kv: absent: none\n");
    let json = kv.run(&["get", "--json", "a", "none"]);
    assert!(
        json.text()
            .starts_with("{\"key\":\"a\",\"value\":\"-3\",\"position\":\"1.")
    );
    assert!(
        json.text()
            .ends_with("{\"key\":\"none\",\"absent\":true}\n")
    );
    assert_eq!(kv.code(&["touch", "a", "90s"]), 0);
    assert_eq!(kv.code(&["persist", "none"]), 1);
    assert_eq!(kv.code(&["delete", "a"]), 0);
    assert_eq!(kv.code(&["delete", "a"]), 1);
    // Empty and absent differ.
    assert_eq!(kv.feed(&["put", "empty"], b"").code, 0);
    let empty = kv.run(&["get", "empty"]);
    assert_eq!((empty.code, empty.text()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_are_keys_and_values() {
    use std::os::unix::ffi::OsStrExt;
    let kv = Tool::start(1, 0).await;
    let value: Vec<u8> = (0..=255).collect();
    kv.cluster.primary(0).script({
        let value = value.clone();
        move |op| {
            assert_eq!(op.key.as_bytes(), b"k\xff");
            let Reply::Answer(mut result) = support::found("", 7) else {
                unreachable!("found is an answer")
            };
            if let Action::Put { value: sent, .. } = &op.action {
                assert_eq!(sent[..], value[..]);
                return stored(7);
            }
            result.value = Some(value.clone().into());
            Reply::Answer(result)
        }
    });
    std::fs::write(kv.file("value"), &value).unwrap();
    let key = OsStr::from_bytes(b"k\xff");
    let put: [&OsStr; 4] = ["put".as_ref(), key, "--file".as_ref(), "value".as_ref()];
    assert_eq!(kv.run(&put).code, 0);
    assert_eq!(
        kv.feed(&["put", "--key-format", "hex", "6bff", "-"], &value)
            .code,
        0
    );
    assert_eq!(kv.run(&["get".as_ref(), key]).out, value);
    assert_eq!(
        kv.run(&["get", "--key-format", "escaped", "k\\xff"]).out,
        value
    );
    let json = kv.run(&["get", "--json", "--key-format", "base64", "a/8="]);
    assert!(
        json.text()
            .starts_with("{\"key_b64\":\"a/8=\",\"value_b64\":\"AAEC"),
        "{json:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_say_what_to_do() {
    let kv = Tool::start(1, 0).await;
    for (code, applied, exit) in [
        (ErrorCode::TooLarge, Some(Applied::No), 2),
        (ErrorCode::PreconditionFailed, Some(Applied::No), 3),
        (ErrorCode::TooFewReplicas, Some(Applied::No), 4),
        (ErrorCode::AckTimeout, Some(Applied::Unknown), 5),
        (ErrorCode::NoSpace, Some(Applied::No), 6),
        (ErrorCode::Forbidden, Some(Applied::No), 6),
    ] {
        kv.cluster
            .primary(0)
            .script(move |_| refused(code, applied));
        let put = kv.run(&["put", "k", "v", "--timeout", "300ms"]);
        assert_eq!(put.code, exit, "{code:?}: {put:?}");
        assert!(put.said.starts_with("kv: put \"k\": "), "{put:?}");
        assert_eq!(put.said.lines().count(), 1, "{put:?}");
    }
    // Who answers there may be no node: a terminal must not obey what it says.
    kv.cluster.primary(0).script(|_| {
        let message = "go\u{1b}]0;away\u{7}";
        Reply::Answer(OpResult::refused(
            ErrorCode::Forbidden,
            message,
            Some(Applied::No),
        ))
    });
    let put = kv.run(&["put", "k", "v", "--timeout", "300ms"]);
    assert!(put.said.contains("go\\x1b]0;away\\x07\n"), "{put:?}");
    let json = kv.run(&["put", "k", "v", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&json.said).unwrap();
    assert_eq!(error["error"], "denied");
    assert_eq!(error["exit_code"], 6);
    assert_eq!(error["key"], "k");
    // Of several keys an unknown outcome counts most.
    kv.cluster.primary(0).script(|op| match op.key.as_bytes() {
        b"full" => refused(ErrorCode::NoSpace, Some(Applied::No)),
        _ => refused(ErrorCode::AckTimeout, Some(Applied::Unknown)),
    });
    assert_eq!(
        kv.code(&["delete", "full", "unknown", "--timeout", "300ms"]),
        5
    );
    kv.cluster.primary(0).stop();
    let nobody = kv.run(&["get", "k", "--timeout", "300ms"]);
    assert_eq!(nobody.code, 4);
    assert!(
        nobody.said.contains("is the cluster running?"),
        "{nobody:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_says_who_must_have_it() {
    let kv = Tool::start(1, 0).await;
    let node = kv.cluster.primary(0);
    node.script(|op| {
        let Reply::Answer(mut result) = stored(7) else {
            unreachable!("it is an answer");
        };
        result.value = matches!(op.action, Action::Incr { .. }).then(|| "1".into());
        Reply::Answer(result)
    });
    for (ack, expected) in [
        ("primary", None),
        ("2", Some(Ack::Replicas(2))),
        ("majority", Some(Ack::Majority)),
        ("all", Some(Ack::All)),
    ] {
        for command in ["put k v", "delete k l", "incr k", "touch k 9s", "persist k"] {
            node.forget_ops();
            let mut arguments: Vec<&str> = command.split(' ').collect();
            arguments.extend(["--ack", ack]);
            let ran = kv.run(&arguments);
            assert_eq!(ran.code, 0, "{command} {ack}: {ran:?}");
            let acks: Vec<_> = node.ops().iter().map(|op| op.terms.ack).collect();
            assert!(!acks.is_empty());
            assert!(
                acks.iter().all(|sent| *sent == expected),
                "{command} {ack}: {acks:?}"
            );
        }
    }
    node.forget_ops();
    assert_eq!(kv.code(&["put", "k", "v", "--ack", "0"]), 2);
    assert_eq!(kv.code(&["get", "k", "--ack", "1"]), 2);
    assert!(node.ops().is_empty());
    let help = kv.run(&["put", "--help"]);
    let help = help.text();
    for part in ["--ack <WHO>", "majority", "(exit 4)", "(exit 5)"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told() {
    let kv = Tool::start(1, 0).await;
    for (arguments, told) in [
        (&["get"][..], "Usage: kv get"),
        (&["get", ""], "the key is empty"),
        (&["put", "k", "--file", "nowhere"], "nowhere: No such file"),
        (&["put", "k", "--file", "/dev/zero"], "at most 16 MiB"),
        (&["delete", "a", "b", "--if-match", "1.2"], "for one key"),
        (&["get", "k", "--map", "nowhere"], "nowhere: No such file"),
        (
            &["get", "k", "--map", "sharding.toml", "--node", "h:1"],
            "cannot be used with",
        ),
        (&["get", "--key-format", "hex", "xyz"], "hex digits"),
        (&["scan", "--after", "!"], "not the token of a scan"),
        (
            &["get", "k", "--session-file", "sharding.toml"],
            "not a session token",
        ),
        (&["get", "k", "--node", "https://h:1"], "connect"),
    ] {
        let ran = kv.run(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.said.contains(told), "{arguments:?}: {ran:?}");
    }
    let mut elsewhere = kv.command(&["get", "k"]);
    let ran = Ran::of(elsewhere.current_dir("/").output().unwrap());
    assert_eq!(ran.code, 2);
    let told =
        "kv: no sharding.toml here: name it with --map FILE, or a node with --node HOST:PORT\n";
    assert_eq!(ran.said, told);
    assert_eq!(kv.cluster.primary(0).ops(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_comes_from_a_file_or_a_node() {
    let kv = Tool::start(2, 1).await;
    let map = kv.cluster.map(1);
    let (node, other) = (kv.cluster.primary(0), kv.cluster.primary(1));
    node.set_map(&map);
    let address = node.address.to_string();
    let route = ["route", "{user:1}:cart"];
    let by_file = kv.run(&route);
    assert_eq!(by_file.code, 0);
    assert!(
        by_file.text().contains("\nprimary   127.0.0.1:"),
        "{by_file:?}"
    );
    let mut by_node = kv.command(&route);
    let by_node = Ran::of(
        by_node
            .current_dir("/")
            .env("KV_NODE", &address)
            .output()
            .unwrap(),
    );
    assert_eq!(by_file.text(), by_node.text(), "{by_node:?}");

    // One node answers: that is the map in force, and the file's too.
    let same = kv.run(&["map"]);
    assert!(
        same.text().contains(&format!("# {}\n", map.identity())),
        "{same:?}"
    );
    assert!(!same.said.contains("sharding.toml"), "{same:?}");
    assert_eq!(same.said.matches("does not say").count(), 3, "{same:?}");
    other.set_map(&kv.cluster.map(2));
    let newer = kv.run(&["map"]);
    assert!(newer.text().contains("\nversion = 2\n"), "{newer:?}");
    assert!(
        newer.said.contains("kv: sharding.toml is older: 1-"),
        "{newer:?}"
    );
    assert!(
        newer.said.contains(&format!("kv: {address} is older: 1-")),
        "{newer:?}"
    );

    // Scripted nodes have no status.
    let status = kv.run(&["status"]);
    assert_eq!(status.code, 1);
    assert_eq!(status.text().matches("no answer").count(), 4, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_is_whole_or_says_that_it_is_not() {
    let kv = Tool::start(2, 0).await;
    let map = kv.cluster.map(1);
    let entries = (0..40).map(|n| (format!("k{n:02}").into_bytes(), b"a\tb\n".to_vec()));
    let entries = entries.collect();
    for shard in 0..2 {
        let scripted = FakeShard::of(&map, shard, &entries);
        let node = kv.cluster.primary(shard);
        node.script_streams(move |request| scripted.answer(request));
    }
    let all = kv.run(&["scan"]);
    assert_eq!((all.code, all.said.as_str()), (0, ""));
    let lines: Vec<String> = (0..40).map(|n| format!("k{n:02}\ta\\tb\\n")).collect();
    assert_eq!(all.text().lines().collect::<Vec<_>>(), lines);
    let first = kv.run(&["scan", "--keys-only", "--limit", "2"]);
    assert_eq!(first.text(), "k00\nk01\n");
    let token = first.said.trim_end().rsplit(' ').next().unwrap().to_owned();
    let rest = kv.run(&["scan", "--json", "--limit", "1", "--after", &token]);
    assert!(
        rest.text()
            .starts_with("{\"key\":\"k02\",\"value\":\"a\\tb\\n\",\"position\":\"1.")
    );
    // A shard that cannot be read: what came before is there, and how to go on.
    let node = kv.cluster.primary(1);
    node.script_streams(|_| StreamReply::Http(500, String::new()));
    let broken = kv.run(&["scan", "--timeout", "300ms"]);
    assert_eq!(broken.code, 4, "{broken:?}");
    assert!(broken.said.contains("shard shard1"), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_ends_it_quietly() {
    let kv = Tool::start(1, 0).await;
    let entries = (0..50_000).map(|n| (format!("k{n:05}").into_bytes(), vec![b'v'; 100]));
    let scripted = FakeShard::of(&kv.cluster.map(1), 0, &entries.collect());
    kv.cluster
        .primary(0)
        .script_streams(move |request| scripted.answer(request));
    let mut child = kv.command(&["scan"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("k00000\t"));
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.said.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_one_key_is_printed() {
    let kv = Tool::start(1, 0).await;
    let log = Arc::new(FakeLog::new("shard0"));
    let told = log.clone();
    let primary = kv.cluster.primary(0);
    primary.script_streams(move |request| told.answer_level(request));
    log.put("a", "1 2");
    log.put("ab", "another key");
    log.add(
        "expire",
        "{\"key\":\"a\",\"expires_at_ms\":9,\"time_ms\":1001}",
    );
    log.add(
        "delete",
        "{\"key\":\"a\",\"by_expiry\":true,\"time_ms\":86400000}",
    );
    let past = kv.run(&["history", "a"]);
    let lines = [
        "1.1\t1970-01-01T00:00:00.007Z\tput\t1 2",
        "1.3\t1970-01-01T00:00:01.001Z\texpire\t9",
        "1.4\t1970-01-02T00:00:00.000Z\tdelete\texpired",
    ];
    assert_eq!((past.code, past.text()), (0, &*(lines.join("\n") + "\n")));
    assert_eq!(past.said, "", "the log goes back to its beginning");
    let json = kv.run(&["history", "--json", "a"]);
    let first = "{\"position\":\"1.1\",\"change\":\"put\",\"key\":\"a\",\"value\":\"1 2\",\"time_ms\":7,\"shard\":\"shard0\"}";
    assert_eq!(json.text().lines().next(), Some(first));
    let nobody = kv.run(&["history", "nobody"]);
    assert_eq!((nobody.code, nobody.text()), (1, ""));
    assert_eq!(nobody.said.lines().count(), 1, "{nobody:?}");

    // Only told, without --yes.
    let undo = kv.run(&["undo", "--prefix", "a", "--to", "1970-01-01T00:00:02Z"]);
    assert_eq!(
        (undo.code, undo.text()),
        (0, ""),
        "it would have expired: {undo:?}"
    );
    let undo = kv.run(&["undo", "--prefix", "a", "--to", "kv1_0.1.1"]);
    assert_eq!((undo.code, undo.text()), (0, "put\ta\t1 2\ndelete\tab\t\n"));
    assert_eq!(
        undo.said,
        "kv: 2 keys would be put back; with --yes they are\n"
    );
    assert_eq!(kv.code(&["undo", "--prefix", "a", "--to", "soon"]), 2);
    assert_eq!(
        kv.code(&["undo", "--to", "10m"]),
        2,
        "all keys are named: --prefix ''"
    );
}

/// A session's token names the shards that it has seen; of the others everything would have been undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_leaves_a_shard_out_undoes_nothing() {
    let kv = Tool::start(2, 0).await;
    let undo = kv.run(&["undo", "--prefix", "", "--to", "kv1_0.1.5", "--yes"]);
    assert_eq!((undo.code, undo.text()), (2, ""));
    assert!(undo.said.contains("shard1"), "{undo:?}");
}

/// A log that begins later than the moment does not say what changed before it begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_before_the_log_begins_is_told() {
    let kv = Tool::start(1, 0).await;
    let log = Arc::new(FakeLog::new("shard0"));
    let told = log.clone();
    let primary = kv.cluster.primary(0);
    primary.script_streams(move |request| told.answer_cut(request));
    for value in ["1", "2"] {
        let data = format!("{{\"key\":\"a\",\"value\":\"{value}\",\"time_ms\":5000}}");
        log.add("put", &data);
    }
    let undo = kv.run(&["undo", "--prefix", "a", "--to", "1970-01-01T00:00:02Z"]);
    assert_eq!((undo.code, undo.text()), (1, "unknown\ta\t\n"), "{undo:?}");
    assert!(
        undo.said.contains("shard0: the log begins later"),
        "{undo:?}"
    );
    let undo = kv.run(&["undo", "--prefix", "a", "--to", "1970-01-01T00:00:06Z"]);
    assert_eq!((undo.code, undo.text()), (0, ""), "{undo:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_where_it_ended() {
    let kv = Tool::start(1, 0).await;
    let log = Arc::new(FakeLog::new("shard0"));
    log.serve(kv.cluster.primary(0));
    log.put("a", "before");
    let mut child = kv.command(&["watch", "--count", "2"]).spawn().unwrap();
    let mut said = listens(&mut child);
    log.put("a", "1");
    log.add("delete", "{\"key\":\"b\",\"by_expiry\":true,\"time_ms\":7}");
    let mut last = String::new();
    said.read_line(&mut last).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(
        (ran.code, ran.text()),
        (0, "put\ta\t1\ndelete\tb\texpired\n")
    );
    assert_eq!(last, "kv: go on with --from kv1_0.1.3\n");

    log.put("c", "3");
    let mut child = kv
        .command(&["watch", "--json", "--from", "kv1_0.1.3"])
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert_eq!(
        line,
        "{\"change\":\"put\",\"key\":\"c\",\"value\":\"3\",\"time_ms\":7,\"shard\":\"shard0\",\
         \"position\":\"1.4\",\"token\":\"kv1_0.1.4\"}\n"
    );
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0);
    assert!(
        ran.said.ends_with("kv: go on with --from kv1_0.1.4\n"),
        "{ran:?}"
    );
}

/// Waits until a watch listens.
fn listens(child: &mut Child) -> BufReader<std::process::ChildStderr> {
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("kv: watching from kv1"), "{line}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_file_makes_reads_show_what_was_written() {
    let kv = Tool::start(1, 1).await;
    assert_eq!(kv.code(&["put", "a", "1", "--session-file", "s"]), 0);
    assert_eq!(
        std::fs::read_to_string(kv.file("s")).unwrap(),
        "kv1_0.1.1\n"
    );
    for node in &kv.cluster.shards[0] {
        node.script(|op| {
            assert_eq!(op.terms.min_position.map(|at| at.seq), Some(1));
            support::found("1", 1)
        });
    }
    let get = kv.run(&["get", "a", "--session-file", "s", "--explain"]);
    assert_eq!((get.code, get.text()), (0, "1"), "{get:?}");
    assert!(get.said.contains("get \"a\" -> 127.0.0.1:"), "{get:?}");
    assert!(get.said.contains("(shard0), chosen: 200 in "), "{get:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_explains_itself() {
    let kv = Tool::start(1, 0).await;
    let help = kv.run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.text().contains("Exit codes:"), "{help:?}");
    assert!(kv.run(&["--version"]).text().starts_with("kv "));
    let pages = kv.file("deep/man1");
    let made = kv.run(&["man".as_ref(), pages.as_os_str()]);
    assert_eq!(made.code, 0, "{made:?}");
    for (page, part) in [
        ("kv.1", "Exit codes"),
        ("kv-put.1", "if\\-absent"),
        ("kv-man.1", "manual pages"),
    ] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(
            text.contains(".TH") && text.contains(part),
            "{page}: {text}"
        );
    }
    assert_eq!(kv.code(&["man", "sharding.toml/man1"]), 2);
    for shell in ["bash", "zsh", "fish"] {
        let mut command = kv.command(&["completions", shell]);
        let ran = Ran::of(command.current_dir("/").output().unwrap());
        assert_eq!(ran.code, 0);
        assert!(ran.text().contains("session-file"), "{shell}");
    }
}
