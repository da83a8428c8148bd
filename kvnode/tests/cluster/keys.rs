//! A key is bytes: the same slot and the same value by raw path, query, batch and redirect.

use kvclient::{
    key::{Key, escape},
    slot::Slot,
    wire::batch::{Action, Op},
};

use crate::support::{
    cluster::{Cluster, Shape},
    http::{head, raw},
    seeded, shard_of,
};

/// Every byte escaped.
fn escape_all(key: &[u8]) -> String {
    key.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// Bytes in a query: a space may be a plus.
fn escape_query(key: &[u8]) -> String {
    escape(key).replace("%20", "+")
}

fn awkward() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = [
        &b"plain"[..],
        b"a/b",
        b"/",
        b"//",
        b"/a/",
        b"a//b",
        b"a+b",
        b"a b",
        b"a%b",
        b"%00",
        b"\0",
        b"a\0b",
        b"\xff",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\r\n",
        b"Location: x",
        b"?",
        b"a?key=b",
        b"#",
        b"a#b",
        b"&",
        b"key=a&key=b",
        b";",
        b"\\",
        b"..%2f",
        b".",
        b"..",
        b"a/../b",
        b"./a",
        b"{user:1}:cart",
        b"{}",
        b"\x1b[2J",
        "schlüssel".as_bytes(),
        "\u{202e}txt".as_bytes(),
        "é".as_bytes(),
        "e\u{301}".as_bytes(),
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    keys.extend((0..=255).map(|byte| vec![byte]));
    keys.push(vec![b'k'; 511]);
    keys.push(vec![0xff; 511]);
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_entry_by_every_path() {
    let mut rng = seeded();
    let cluster = Cluster::start(Shape {
        shards: 3,
        ..Shape::default()
    })
    .await;
    let mut keys = awkward();
    keys.extend((0..100).map(|_| (0..rng.usize(1..40)).map(|_| rng.u8(..)).collect()));
    keys.sort();
    keys.dedup();
    for (n, key) in keys.iter().enumerate() {
        let shard = shard_of(key, 3);
        let (owner, other) = (cluster.primary(shard), cluster.primary((shard + 1) % 3));
        let shown = key.escape_ascii().to_string();
        let value = format!("value {n}");
        // Raw bytes on the wire: no client between this text and the node.
        let path = format!("/kv/{}", escape_all(key));
        let put = head(
            "PUT",
            &path,
            &[("Content-Length", &value.len().to_string())],
        ) + &value;
        assert_eq!(raw(&owner.address, put).status, 204, "{shown}");
        for uri in [
            path.clone(),
            format!("/kv/{}", escape(key)),
            format!("/kv?key={}", escape_all(key)),
            format!("/kv?key={}", escape_query(key)),
            format!("/get?key={}", escape_query(key)),
        ] {
            let answer = raw(&owner.address, head("GET", &uri, &[]));
            assert_eq!(
                (answer.status, answer.text()),
                (200, value.clone()),
                "{shown} by {uri}"
            );
            let redirected = raw(&other.address, head("GET", &uri, &[]));
            assert_eq!(redirected.status, 307, "{shown} by {uri}");
            let location = redirected.header("location").expect("a location");
            let rest = location.strip_prefix(&format!("http://{}", owner.address));
            assert_eq!(rest, Some(uri.as_str()), "{shown}");
        }
        let route = raw(
            &other.address,
            head("GET", &format!("/route?key={}", escape_query(key)), &[]),
        );
        assert_eq!(
            route.json()["slot"],
            Slot::of_bytes(key).number(),
            "{shown}"
        );
        assert_eq!(route.json()["shard"], format!("s{shard}"), "{shown}");
        match std::str::from_utf8(key) {
            Ok(text) => assert_eq!(route.json()["key"], text, "{shown}"),
            Err(_) => assert!(route.json()["key_b64"].is_string(), "{shown}"),
        }
        // What kvclient makes of it.
        let op = Op::new(Key::copy_from(key).expect("a key"), Action::Get);
        let result = &owner.batch(std::slice::from_ref(&op)).await[0];
        assert_eq!(
            result.value.as_deref(),
            Some(value.as_bytes()),
            "{shown} in a batch"
        );
        assert_eq!(
            other.batch(std::slice::from_ref(&op)).await[0].status,
            307,
            "{shown} in a batch"
        );
        let answer = owner.ask("GET", &op.key.to_uri()).await;
        assert_eq!(answer.text(), value, "{shown} by {}", op.key.to_uri());
    }
    // No two keys were taken for one: each still has its own value.
    for (n, key) in keys.iter().enumerate() {
        let owner = cluster.primary(shard_of(key, 3));
        let answer = raw(
            &owner.address,
            head("GET", &format!("/kv/{}", escape_all(key)), &[]),
        );
        assert_eq!(
            answer.text(),
            format!("value {n}"),
            "{}",
            key.escape_ascii()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_none() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let (longest, too_long) = ("k".repeat(511), "k".repeat(512));
    let (escaped, escaped_too_long) = ("%ff".repeat(511), "%ff".repeat(512));
    for (uri, status, code) in [
        ("/kv/".to_owned(), 400, "key_empty"),
        ("/kv?key=".into(), 400, "key_empty"),
        ("/kv?key".into(), 400, "key_empty"),
        (format!("/kv/{longest}"), 204, ""),
        (format!("/kv/{too_long}"), 414, "key_too_long"),
        (format!("/kv?key={too_long}"), 414, "key_too_long"),
        (format!("/kv/{escaped}"), 204, ""),
        (format!("/kv/{escaped_too_long}"), 414, "key_too_long"),
        ("/kv/%".into(), 400, "bad_escape"),
        ("/kv/a%4".into(), 400, "bad_escape"),
        ("/kv/%zz".into(), 400, "bad_escape"),
        ("/kv/%+1".into(), 400, "bad_escape"),
        ("/kv?key=%g0".into(), 400, "bad_escape"),
        ("/kv?key=a&key=b".into(), 400, "bad_parameter"),
        ("/kv?key=a&k%65y=b".into(), 400, "bad_parameter"),
        ("/kv/a?key=b".into(), 400, "bad_parameter"),
        ("/kv/a?ttl=9s&ttl=9s".into(), 400, "bad_parameter"),
        ("/kv/a?tll=9s".into(), 400, "bad_parameter"),
        ("/kv/a?incr=1".into(), 400, "bad_parameter"),
    ] {
        let before = node.at("durable").await;
        let answer = raw(
            &node.address,
            head("PUT", &uri, &[("Content-Length", "1")]) + "v",
        );
        assert_eq!(answer.status, status, "{uri}: {}", answer.text());
        if status != 204 {
            assert_eq!(answer.error(), code, "{uri}");
            assert_eq!(answer.header("kv-applied"), Some("no"), "{uri}");
            assert_eq!(
                node.at("durable").await,
                before,
                "{uri}: nothing is written"
            );
        }
    }
    for (uri, code) in [
        (format!("/get?key={too_long}"), "key_too_long"),
        (format!("/set?value=v&key={too_long}"), "key_too_long"),
        (format!("/delete?key={too_long}"), "key_too_long"),
        (format!("/route?key={too_long}"), "key_too_long"),
        ("/get?key=a&key=b".into(), "bad_parameter"),
        ("/route?key=%2".into(), "bad_escape"),
    ] {
        assert_eq!(
            raw(&node.address, head("GET", &uri, &[])).error(),
            code,
            "{uri}"
        );
    }
}
