//! Nodes behind TLS: everything works as in the clear, and nobody is spoken to who has not proved who he is.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{collections::BTreeMap, time::Duration};

use futures_util::TryStreamExt;
use kvclient::{
    Address, Client, ClientBuilder, ErrorKind, Key, Outcome, Scheme, Tls,
    attempt::AttemptError,
    node_client::{NodeClient, NodeClientOptions},
    wire::batch::{Action, Op},
};
use support::{
    FakeNode, FakeShard, Reply,
    certificates::{Authority, Pair, Valid},
    map,
    tls::Front,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const SECOND: Duration = Duration::from_secs(1);

fn client(tls: Tls) -> NodeClient {
    let mut options = NodeClientOptions::default();
    options.connect_timeout = Duration::from_secs(5);
    options.tls = Some(tls);
    NodeClient::new(options).unwrap()
}

fn get() -> Op {
    Op::new(Key::new("a").unwrap(), Action::Get)
}

fn put(value: Vec<u8>) -> Op {
    let (value, ttl_ms) = (value.into(), None);
    Op::new(Key::new("a").unwrap(), Action::Put { value, ttl_ms })
}

/// What comes of one read.
async fn read(client: &NodeClient, node: &Address) -> Result<(), AttemptError> {
    client.get(node, &get(), 5 * SECOND).await.map(drop)
}

/// A store behind TLS, under a certificate for these names.
async fn behind_tls(authority: &Authority, names: &[&str]) -> (FakeNode, Front) {
    let node = FakeNode::start().await;
    let front = Front::before(&node.address, &authority.sign(names, Valid::Now)).await;
    (node, front)
}

#[tokio::test]
async fn small_and_large_ops_travel_through_tls_over_one_connection() {
    let authority = Authority::new("ours");
    let (node, front) = behind_tls(&authority, &["localhost"]).await;
    let client = client(authority.trusted());
    for len in [0, 1, 100, 16 << 10, 64 << 10, (64 << 10) + 1, 1 << 20] {
        let value = vec![b'v'; len];
        let ops = [put(value.clone()), get()];
        let answer = client
            .batch(&front.address, &ops, 5 * SECOND)
            .await
            .unwrap();
        assert_eq!(
            answer.results[1].value.as_deref(),
            Some(&value[..]),
            "{len}"
        );
        client
            .put(&front.address, &put(value.clone()), 5 * SECOND)
            .await
            .unwrap();
        let result = client
            .get(&front.address, &get(), 5 * SECOND)
            .await
            .unwrap();
        assert_eq!(result.value.as_deref(), Some(&value[..]), "{len}");
    }
    assert_eq!((node.connections(), front.handshakes()), (1, 1));
}

#[tokio::test]
async fn a_node_is_spoken_to_only_under_a_name_of_its_certificate() {
    let authority = Authority::new("ours");
    let (node, front) = behind_tls(&authority, &["localhost"]).await;
    let client = client(authority.trusted());
    read(&client, &front.address).await.unwrap();
    // The same node by number: the certificate does not say that this is its.
    let asked = node.ops().len();
    let error = read(&client, &front.by_number()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(error.to_string().contains("not valid for name"), "{error}");
    assert_eq!(node.ops().len(), asked, "nothing was sent");
    let (_node, by_number) = behind_tls(&authority, &["127.0.0.1"]).await;
    read(&client, &by_number.by_number()).await.unwrap();
    assert!(read(&client, &by_number.address).await.is_err());
}

#[tokio::test]
async fn foreign_and_expired_certificates_get_nothing() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let node = FakeNode::start().await;
    let client = client(ours.trusted());
    for (pair, why) in [
        (foreign.sign(&["localhost"], Valid::Now), "UnknownIssuer"),
        (ours.sign(&["localhost"], Valid::Formerly), "expired"),
        (ours.sign(&["elsewhere"], Valid::Now), "not valid for name"),
    ] {
        let front = Front::before(&node.address, &pair).await;
        let error = read(&client, &front.address).await.unwrap_err();
        assert!(matches!(error, AttemptError::NotConnected(_)), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(front.handshakes(), 0, "{why}");
    }
    assert!(node.ops().is_empty(), "nothing was sent to any of them");
}

#[tokio::test]
async fn a_node_in_the_clear_is_never_spoken_to_by_a_client_with_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let len = stream.read(&mut bytes).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        bytes.truncate(len);
        bytes
    });
    let client = client(Authority::new("ours").trusted());
    let error = read(&client, &address).await.unwrap_err();
    assert!(matches!(error, AttemptError::NotConnected(_)), "{error}");
    let heard = heard.await.unwrap();
    assert_eq!(heard.first(), Some(&22), "a handshake and nothing else");
    let text = String::from_utf8_lossy(&heard);
    assert!(!text.contains("/kv/") && !text.contains("HTTP"), "{text}");
}

#[tokio::test]
async fn a_redirect_into_the_clear_is_refused() {
    let authority = Authority::new("ours");
    let (node, front) = behind_tls(&authority, &["localhost"]).await;
    let (other, other_front) = behind_tls(&authority, &["localhost"]).await;
    let clear = other.address.clone();
    let map = map(
        1,
        &[
            vec![front.address.clone()],
            vec![other_front.address.clone()],
        ],
    );
    let kv = Client::builder(map.clone())
        .tls(authority.trusted())
        .timeout(SECOND)
        .build()
        .unwrap();
    // `Moved` says http://, to an address that a client without TLS would take.
    node.script(move |_| Reply::Moved(clear.clone()));
    let large = vec![b'x'; 128 << 10];
    let error = kv.put(support::key_of(&map, 0), large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misrouted, "{error}");
    assert!(other.ops().is_empty() && other.connections() == 0);
}

#[tokio::test]
async fn a_certificate_is_shown_to_nodes_that_ask_for_one() {
    let (authority, clients) = (Authority::new("ours"), Authority::new("clients"));
    let node = FakeNode::start().await;
    let pair = authority.sign(&["localhost"], Valid::Now);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), clients.pem()).unwrap();
    let front = Front::asking(&node.address, &pair, file.path()).await;
    let shown = |pair: &Pair| {
        let tls = authority.trusted();
        tls.with_identity_pem(&pair.certificate, &pair.key).unwrap()
    };
    let known = client(shown(&clients.sign(&["me"], Valid::Now)));
    read(&known, &front.address).await.unwrap();
    let asked = node.ops().len();
    let foreign = client(shown(&authority.sign(&["me"], Valid::Now)));
    let nobody = client(authority.trusted());
    for client in [foreign, nobody] {
        let error = client
            .put(&front.address, &put(b"v".to_vec()), SECOND)
            .await;
        let error = error.unwrap_err();
        // The node says so only after the request is on its way; what it says proves that it did not read it.
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        assert!(error.to_string().contains("refuses"), "{error}");
    }
    assert_eq!(node.ops().len(), asked);
}

#[tokio::test]
async fn newer_authorities_count_from_the_next_op_on() {
    let (older, newer) = (Authority::new("older"), Authority::new("newer"));
    let (node, front) = behind_tls(&older, &["localhost"]).await;
    node.set_map(&map(1, &[vec![front.address.clone()]]));
    let tls = older.trusted();
    let client = client(tls.clone());
    read(&client, &front.address).await.unwrap();
    front.shows(&newer.sign(&["localhost"], Valid::Now));
    read(&client, &front.address).await.unwrap();
    assert_eq!(front.handshakes(), 1, "the connection is kept");
    tls.adopt(&newer.trusted());
    read(&client, &front.address).await.unwrap();
    assert_eq!(
        front.handshakes(),
        2,
        "one that was made by the older is not"
    );
    let known = async || client.cluster_map(&front.address, None, SECOND).await;
    known().await.unwrap();
    known().await.unwrap();
    assert_eq!(
        front.handshakes(),
        3,
        "documents have a connection of theirs"
    );
    tls.adopt(&older.trusted());
    assert!(read(&client, &front.address).await.is_err());
    let error = known().await.unwrap_err();
    assert!(matches!(error, AttemptError::NotConnected(_)), "{error}");
}

#[tokio::test]
async fn a_client_that_is_busy_while_nodes_come_and_go_loses_nothing() {
    let authority = Authority::new("ours");
    let node = FakeNode::start().await;
    let pair = authority.sign(&["localhost"], Valid::Now);
    let front = Front::before(&node.address, &pair).await;
    let kv = Client::builder(map(1, &[vec![front.address.clone()]]))
        .tls(authority.trusted())
        .pauses(Duration::from_millis(5), Duration::from_millis(20))
        .build()
        .unwrap();
    for n in 0..50_u32 {
        if n % 10 == 5 {
            // Every connection breaks, some of them with a request under way.
            node.stop();
            tokio::task::yield_now().await;
            node.listen();
        }
        kv.put("n", n.to_string()).await.unwrap();
        let found = kv.get("n").await.unwrap().unwrap();
        assert_eq!(found, n.to_string().as_bytes());
    }
}

#[tokio::test]
async fn scans_travel_through_tls_too() {
    let authority = Authority::new("ours");
    let (node, front) = behind_tls(&authority, &["localhost"]).await;
    let map = map(1, &[vec![front.address.clone()]]);
    let entries: BTreeMap<_, _> = (0..500_usize)
        .map(|n| (format!("user:{n:03}").into_bytes(), vec![b'v'; n]))
        .collect();
    let shard = FakeShard::of(&map, 0, &entries);
    node.script_streams(move |request| shard.answer(request));
    let kv = Client::builder(map)
        .tls(authority.trusted())
        .build()
        .unwrap();
    for _ in 0..3 {
        let found: Vec<_> = kv.scan("user:").try_collect().await.unwrap();
        assert_eq!(found.len(), entries.len());
        for entry in &found {
            let value = &entries[entry.key.as_bytes()];
            assert_eq!(entry.value.as_deref(), Some(&value[..]));
        }
    }
    assert_eq!(
        front.handshakes(),
        1,
        "a stream read to its end gives its connection back"
    );
}

#[tokio::test]
async fn a_cluster_with_tls_is_found_by_any_of_its_nodes() {
    let authority = Authority::new("ours");
    let (node, front) = behind_tls(&authority, &["localhost"]).await;
    node.set_map(&map(3, &[vec![front.address.clone()]]));
    let with = |tls| {
        let mut options = NodeClientOptions::default();
        options.tls = tls;
        options
    };
    let seed = front.address.to_url(Scheme::Https);
    let builder = ClientBuilder::connect_with([&seed], with(Some(authority.trusted())));
    let kv = builder.await.unwrap().build().unwrap();
    kv.put("a", "v").await.unwrap();
    assert_eq!(kv.map().version(), 3);
    for (seed, tls) in [
        (seed, None),
        (
            front.address.to_url(Scheme::Http),
            Some(authority.trusted()),
        ),
    ] {
        let error = ClientBuilder::connect_with([seed], with(tls))
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[test]
fn mistakes_in_certificates_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let authority = Authority::new("ours");
    let (one, other) = (
        authority.sign(&["a"], Valid::Now),
        authority.sign(&["b"], Valid::Now),
    );
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("one.pem", one.certificate),
        ("one-key.pem", one.key),
        ("other-key.pem", other.key),
        ("torn.pem", "-----BEGIN CERTIFICATE-----\nMII".to_owned()),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    for (file, why) in [
        ("gone.pem", "cannot be read"),
        ("one-key.pem", "holds no certificate"),
        ("torn.pem", "no PEM"),
    ] {
        let error = Tls::trusting_file(path(file)).unwrap_err();
        assert!(
            error.file.ends_with(file) && error.problem.contains(why),
            "{error}"
        );
    }
    let tls = Tls::trusting_file(path("ca.pem")).unwrap();
    for (certificate, key, file, why) in [
        (
            "one.pem",
            "other-key.pem",
            "other-key.pem",
            "not the key of the certificate in",
        ),
        ("one.pem", "ca.pem", "ca.pem", "holds no private key"),
        (
            "one-key.pem",
            "one-key.pem",
            "one-key.pem",
            "holds no certificate",
        ),
    ] {
        let error = tls
            .clone()
            .with_identity_files(path(certificate), path(key))
            .unwrap_err();
        assert!(
            error.file.ends_with(file) && error.problem.contains(why),
            "{error}"
        );
    }
    tls.with_identity_files(path("one.pem"), path("one-key.pem"))
        .unwrap();
}
