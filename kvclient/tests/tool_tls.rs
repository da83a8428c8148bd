//! The tool `kv` with nodes that speak TLS, and the certificates that it makes for a trial.
#![allow(clippy::unwrap_used, reason = "only tests come here")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use kvclient::{Scheme, Tls};
use support::{
    certificates::{Authority, Pair, Valid},
    map,
    tls::Front,
    tool::{Ran, Tool},
};

const WRONG: i32 = 2;

fn pair(dir: &Path, name: &str) -> Pair {
    let read = |name: String| fs::read_to_string(dir.join(name)).unwrap();
    Pair {
        certificate: read(format!("{name}.pem")),
        key: read(format!("{name}-key.pem")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_for_a_trial_serve_nodes_and_clients() {
    let kv = Tool::start(1, 0).await;
    let made = kv.run(&["cert", "dev", "certs", "--host", "db.example.org"]);
    assert_eq!(made.code, 0, "{made:?}");
    let kvnode = "kvnode --tls-cert certs/node.pem --tls-key certs/node-key.pem --tls-client-ca certs/ca.pem";
    assert!(made.text().contains(kvnode), "{made:?}");
    let dir = kv.file("certs");
    for (name, mode) in [
        ("ca.pem", 0o644),
        ("node-key.pem", 0o600),
        ("client-key.pem", 0o600),
    ] {
        let found = fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
    // Nothing is ever overwritten.
    let before = pair(&dir, "node").certificate;
    let again = kv.run(&["cert", "dev", "certs"]);
    assert!(
        again.code == WRONG && again.said.contains("certs/ca.pem is there"),
        "{again:?}"
    );
    assert_eq!(pair(&dir, "node").certificate, before);

    let node = kv.cluster.primary(0);
    let front = Front::asking(&node.address, &pair(&dir, "node"), &dir.join("ca.pem")).await;
    node.set_map(&map(3, &[vec![front.address.clone()]]));
    let url = front.address.to_url(Scheme::Https);
    let (ca, cert, key) = ("certs/ca.pem", "certs/client.pem", "certs/client-key.pem");
    let typed = ["--ca", ca, "--cert", cert, "--key", key, "--node", &url];
    let with = |words: &[&str]| kv.run(&[&typed[..], words].concat());
    assert_eq!(with(&["put", "a", "1"]).code, 0);
    assert_eq!(with(&["get", "a"]).text(), "1");
    assert!(with(&["map"]).text().contains(&front.address.to_string()));
    let by_variables = kv
        .command(&["--node", &url, "get", "a"])
        .envs([("KV_CA", ca), ("KV_CERT", cert), ("KV_KEY", key)])
        .output();
    assert_eq!(Ran::of(by_variables.unwrap()).text(), "1");
    // The nodes' certificate serves between nodes too, under each of its names.
    let trusting = Tls::trusting_file(dir.join("ca.pem")).unwrap();
    let shown = pair(&dir, "node");
    trusting
        .with_identity_pem(shown.certificate, shown.key)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_wrongly_about_certificates_is_told() {
    let kv = Tool::start(1, 0).await;
    let authority = Authority::new("ours");
    let one = authority.sign(&["a"], Valid::Now);
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("a.pem", one.certificate),
        ("a-key.pem", one.key),
    ] {
        fs::write(kv.file(name), text).unwrap();
    }
    for (words, said) in [
        ("--cert a.pem --key a-key.pem get a", "needs --ca"),
        ("--ca ca.pem --cert a.pem get a", "needs --key"),
        ("--ca ca.pem --key a-key.pem get a", "needs --cert"),
        ("--ca gone.pem get a", "gone.pem: cannot be read"),
        ("--ca a-key.pem get a", "a-key.pem: holds no certificate"),
        ("--node https://localhost:1 get a", "--ca FILE"),
        (
            "--ca ca.pem --node http://localhost:1 get a",
            "write https://",
        ),
        ("cert dev certs --host a_b..c", "not a host name"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let ran = kv.run(&words);
        assert!(
            ran.code == WRONG && ran.said.contains(said),
            "{words:?}: {ran:?}"
        );
    }
    // A node in the clear is not spoken to.
    let ran = kv.run(&["--ca", "ca.pem", "--timeout", "300ms", "put", "a", "1"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(kv.cluster.primary(0).ops().is_empty());
}
