//! `kv export`, `kv import` and the checks of `kv backup` as a script sees them, against scripted nodes.

#![allow(clippy::unwrap_used, reason = "only tests come here")]

mod support;

use std::{collections::BTreeMap, fs};

use kvclient::wire::{
    batch::{Action, Condition},
    error::{Applied, ErrorCode},
};
use support::{FakeShard, refused, stored, tool::Tool};

/// Entries with every kind of bytes, served as scans.
async fn filled() -> (Tool, BTreeMap<Vec<u8>, Vec<u8>>) {
    let kv = Tool::start(2, 0).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let entries: BTreeMap<Vec<u8>, Vec<u8>> = [
        (&b"user:1"[..], &b"Ada"[..]),
        (b"user:2", b""),
        (b"k\xff\n", &all_bytes),
        ("\u{e9}\"\u{0}".as_bytes(), b"{\"a\":1}\n"),
    ]
    .map(|(key, value)| (key.to_vec(), value.to_vec()))
    .into();
    let map = kv.cluster.map(1);
    for shard in 0..2 {
        let served = FakeShard::of(&map, shard, &entries);
        kv.cluster
            .primary(shard)
            .script_streams(move |request| served.answer(request));
    }
    (kv, entries)
}

/// What the nodes were asked to store.
fn put(kv: &Tool) -> BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)> {
    let ops = (0..2).flat_map(|shard| kv.cluster.primary(shard).ops());
    let stored = ops.filter_map(|op| match op.action {
        Action::Put { value, ttl_ms } => {
            Some((op.key.as_bytes().to_vec(), (value.to_vec(), ttl_ms)))
        }
        _ => None,
    });
    stored.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_imported_byte_for_byte() {
    let (kv, entries) = filled().await;
    let export = kv.run(&["export"]);
    assert_eq!((export.code, export.said.as_str()), (0, "kv: 4 entries\n"));
    assert_eq!(export.text().lines().count(), 4);
    assert!(
        export
            .text()
            .contains("{\"key\":\"user:1\",\"value\":\"Ada\"}\n"),
        "{export:?}"
    );
    let to_file = kv.run(&["export", "--file", "all.ndjson"]);
    assert_eq!((to_file.code, to_file.text()), (0, ""));
    assert_eq!(fs::read(kv.file("all.ndjson")).unwrap(), export.out);
    // Nothing is overwritten by an export.
    assert_eq!(kv.code(&["export", "--file", "all.ndjson"]), 2);

    for arguments in [&["import", "all.ndjson"][..], &["import"], &["import", "-"]] {
        let import = kv.feed(arguments, &export.out);
        assert_eq!(import.code, 0, "{import:?}");
        assert!(
            import.said.starts_with("kv: 4 stored, 0 skipped"),
            "{import:?}"
        );
        let expected = entries.iter().map(|(k, v)| (k.clone(), (v.clone(), None)));
        assert_eq!(put(&kv), expected.collect());
        (0..2).for_each(|shard| kv.cluster.primary(shard).forget_ops());
    }
    let some = kv.run(&["export", "--prefix", "user:"]);
    assert_eq!(some.text().lines().count(), 2, "{some:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_stays_the_moment_that_it_was() {
    let kv = Tool::start(2, 0).await;
    let far = std::time::SystemTime::now() + std::time::Duration::from_secs(3_600);
    let far = far
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let lines = format!(
        "{{\"key\":\"over\",\"value\":\"v\",\"expires_at_ms\":5}}\n{{\"key\":\"far\",\"value\":\"v\",\"expires_at_ms\":{far}}}\n"
    );
    let import = kv.feed(&["import", "--json"], lines.as_bytes());
    assert_eq!(
        import.text(),
        "{\"stored\":1,\"skipped\":0,\"expired\":1}\n"
    );
    let put = put(&kv);
    let (_, ttl_ms) = &put[&b"far"[..]];
    assert!(
        (3_500_000..=3_600_000).contains(&ttl_ms.unwrap()),
        "{ttl_ms:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_wrong_is_named_and_what_stands_before_it_is_stored() {
    let kv = Tool::start(2, 0).await;
    let lines = "{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"b\",\"valeu\":\"2\"}\n{\"key\":\"c\",\"value\":\"3\"}\n";
    let import = kv.feed(&["import"], lines.as_bytes());
    assert_eq!(import.code, 2, "{import:?}");
    assert!(
        import
            .said
            .contains("standard input: line 3: unknown field `valeu`"),
        "{import:?}"
    );
    assert!(import.said.contains("1 stored"), "{import:?}");
    assert_eq!(put(&kv).into_keys().collect::<Vec<_>>(), [b"a".to_vec()]);
    let missing = kv.run(&["import", "nowhere"]);
    assert_eq!(missing.code, 2);
    assert!(
        missing.said.contains("nowhere: No such file"),
        "{missing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_there_is_replaced_or_left() {
    let kv = Tool::start(1, 0).await;
    let node = kv.cluster.primary(0);
    node.script(|op| match (op.key.as_bytes(), &op.terms.condition) {
        (b"there", Some(Condition::Absent)) => {
            refused(ErrorCode::PreconditionFailed, Some(Applied::No))
        }
        _ => stored(7),
    });
    let lines = b"{\"key\":\"there\",\"value\":\"1\"}\n{\"key\":\"new\",\"value\":\"2\"}\n";
    let skip = kv.feed(&["import", "--on-conflict", "skip"], lines);
    assert!(skip.said.starts_with("kv: 1 stored, 1 skipped"), "{skip:?}");
    let replace = kv.feed(&["import"], lines);
    assert!(
        replace.said.starts_with("kv: 2 stored, 0 skipped"),
        "{replace:?}"
    );
    node.script(|_| refused(ErrorCode::NoSpace, Some(Applied::No)));
    let full = kv.feed(&["import", "--timeout", "300ms"], lines);
    assert_eq!(full.code, 6, "{full:?}");
    assert!(full.said.contains("line 1 could not be stored"), "{full:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_lines_on_a_key_stays() {
    let kv = Tool::start(1, 0).await;
    let lines: String = (0..50)
        .map(|n| format!("{{\"key\":\"k\",\"value\":\"{n}\"}}\n"))
        .collect();
    assert_eq!(kv.feed(&["import"], lines.as_bytes()).code, 0);
    let values: Vec<String> = kv
        .cluster
        .primary(0)
        .ops()
        .iter()
        .map(|op| match &op.action {
            Action::Put { value, .. } => String::from_utf8(value.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(values, expected);
}

/// What is no backup is said to be none, without a node being asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_backup_is_not_taken_for_one() {
    let kv = Tool::start(1, 0).await;
    for command in [
        &["backup", "nowhere", "--verify"][..],
        &["restore", "nowhere"],
    ] {
        let none = kv.run(command);
        assert_eq!(none.code, 2, "{none:?}");
        assert_eq!(none.said, "kv: nowhere holds no backup\n");
    }
    fs::create_dir_all(kv.file("half/shard-0")).unwrap();
    let half = kv.run(&["backup", "half", "--verify"]);
    assert_eq!(half.code, 2);
    assert!(
        half.said
            .contains("half holds half a backup: 0 of its shards"),
        "{half:?}"
    );
    fs::create_dir(kv.file("torn")).unwrap();
    fs::write(kv.file("torn/backup.json"), "{\"format\": 1").unwrap();
    let torn = kv.run(&["restore", "torn"]);
    assert_eq!(torn.code, 6);
    assert!(torn.said.contains("torn/backup.json: "), "{torn:?}");
    for (arguments, told) in [
        (
            &["restore", "d", "--to-time", "yesterday"][..],
            "is no time",
        ),
        (&["restore", "d", "--to-position", "1.2"], "names no shard"),
        (
            &[
                "restore",
                "d",
                "--to-position",
                "s=1.2",
                "--to-time",
                "2026-11-26T12:05:09Z",
            ],
            "cannot be used with",
        ),
        (
            &["backup", "d", "--verify", "--follow"],
            "cannot be used with",
        ),
    ] {
        let wrong = kv.run(arguments);
        assert_eq!(wrong.code, 2, "{wrong:?}");
        assert!(wrong.said.contains(told), "{wrong:?}");
    }
    assert!(!kv.file("d").exists(), "nothing was made");
}
