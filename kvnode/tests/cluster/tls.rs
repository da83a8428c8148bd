//! Nodes with TLS: what they show, whom they let in, and that nothing is ever said in the clear.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    io::{ErrorKind as IoErrorKind, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use kvclient::{
    Ack, Client, ErrorKind, GetOptions, Key, PutOptions,
    attempt::AttemptError,
    node_client::{NodeClient, NodeClientOptions},
    wire::{
        batch::{Action, Op},
        error::ErrorCode,
    },
};
use rustix::process::Signal;

use super::support::{
    certificates::{Authority, Valid},
    cluster::{Cluster, Node, Shape},
    eventually,
    http::curl,
    tls::{Certificates, NODE_NAMES, client, flags, node_client, ready, spawn, write_pair},
    tokens::{Doors, Entry, text_of},
};

const SECOND: Duration = Duration::from_secs(1);

/// A cluster with TLS that serves.
async fn serving(shape: Shape) -> (Cluster, Certificates) {
    let cluster = Cluster::prepare(shape);
    let certificates = Certificates::make(cluster.dir());
    for node in cluster.nodes() {
        spawn(node, &flags(cluster.dir(), "node"));
    }
    let asker = node_client(certificates.tls());
    for node in cluster.nodes() {
        ready(&asker, node).await;
    }
    (cluster, certificates)
}

fn get() -> Op {
    Op::new(Key::new("a").unwrap(), Action::Get)
}

/// curl that trusts the authority and shows the client's certificate.
fn curl_as_client(dir: &Path, arguments: &[&str]) -> String {
    curl_as(dir, "client", arguments)
}

/// The same with the certificate of this name.
fn curl_as(dir: &Path, name: &str, arguments: &[&str]) -> String {
    let file = |name: String| dir.join(name).display().to_string();
    let (cert, key) = (format!("{name}.pem"), format!("{name}-key.pem"));
    let (ca, cert, key) = (file("ca.pem".to_owned()), file(cert), file(key));
    let mut all = vec!["--cacert", &ca, "--cert", &cert, "--key", &key];
    all.extend(arguments);
    curl(&all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_replicates_through_tls_and_clients_find_everything() {
    let (cluster, certificates) = serving(Shape::pair()).await;
    let kv = client(&cluster, certificates.tls());
    let on_both = PutOptions::new().ack(Ack::All);
    for n in 0..50_usize {
        let value = vec![b'v'; n * 5_000];
        kv.put_with(format!("user:{n:02}"), value, on_both)
            .await
            .unwrap();
    }
    let replica = cluster.replica(0, 0).to_address();
    let found = kv
        .get_with("user:49", GetOptions::new().node(replica))
        .await
        .unwrap();
    assert_eq!(found.unwrap().value.len(), 49 * 5_000);
    let status = node_client(certificates.tls())
        .get_json(&cluster.primary(0).to_address(), "/cluster/status", SECOND)
        .await
        .unwrap();
    let text = status.to_string();
    assert_eq!(text.matches("\"state\":\"ready\"").count(), 2, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_or_a_foreign_one_gets_nothing() {
    let (cluster, certificates) = serving(Shape::pair()).await;
    let primary = cluster.primary(0).to_address();
    let nobody = node_client(certificates.authority.trusted());
    let foreign = Authority::new("foreign").sign(NODE_NAMES, Valid::Now);
    let tls = certificates.authority.trusted();
    let foreign = node_client(
        tls.with_identity_pem(&foreign.certificate, &foreign.key)
            .unwrap(),
    );
    let client = node_client(certificates.tls());

    let result = nobody.get(&primary, &get(), SECOND).await.unwrap();
    assert_eq!(
        (result.status, result.error_code()),
        (401, Some(ErrorCode::Unauthorized))
    );
    let error = foreign.get(&primary, &get(), SECOND).await.unwrap_err();
    assert!(matches!(error, AttemptError::NotConnected(_)), "{error}");
    // A client is no node: it may not copy a shard.
    let refused = client
        .get_json(&primary, "/log?after=0", SECOND)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("replicate"), "{refused}");
    // No token would help here, so none is asked for.
    let ca = cluster.dir().join("ca.pem").display().to_string();
    let status = format!("https://{primary}/status");
    let answer = curl(&["-i", "--cacert", &ca, &status]);
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("needs a client certificate"), "{answer}");
    assert!(!answer.contains("www-authenticate"), "{answer}");
    let nobodys = Client::builder(kvclient::shard_map::toml::parse(&cluster.map, "m").unwrap())
        .tls(certificates.authority.trusted())
        .build()
        .unwrap();
    let error = nobodys.put("a", "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    // Health is for everybody who speaks TLS.
    let dir = cluster.dir().join("ca.pem").display().to_string();
    let readyz = format!("https://{primary}/readyz");
    assert!(curl(&["--cacert", &dir, &readyz]).contains("ready"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_certificate_names_no_node_copies_nothing() {
    let cluster = Cluster::prepare(Shape::pair());
    let certificates = Certificates::make(cluster.dir());
    let stranger = certificates.authority.sign(&["elsewhere"], Valid::Now);
    write_pair(cluster.dir(), "stranger", &stranger);
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    spawn(primary, &flags(cluster.dir(), "node"));
    let asker = node_client(certificates.tls());
    ready(&asker, primary).await;
    spawn(replica, &flags(cluster.dir(), "stranger"));
    let metrics = format!("https://{}/metrics", primary.address);
    eventually("its pulls are refused", async || {
        let text = curl_as_client(cluster.dir(), &[&metrics]);
        text.contains("reason=\"forbidden_scope\"").then_some(())
    })
    .await;
    let status = asker
        .get_json(&primary.to_address(), "/status", SECOND)
        .await
        .unwrap();
    assert_eq!(
        status["replicas"].as_array().map(Vec::len),
        Some(0),
        "{status}"
    );
    // With a certificate of its own it is level at once.
    replica.stop().await;
    spawn(replica, &flags(cluster.dir(), "node"));
    ready(&asker, replica).await;
}

/// The certificate of any node of the map was good for the pulls of every other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_only_for_the_host_that_its_certificate_names() {
    let cluster = Cluster::prepare(Shape::pair());
    let certificates = Certificates::make(cluster.dir());
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let elsewhere = replica.address.replace("127.0.0.1", "localhost");
    let map = cluster.map.replace(&replica.address, &elsewhere);
    assert_ne!(map, cluster.map);
    fs::write(&primary.map, map).unwrap();
    spawn(primary, &flags(cluster.dir(), "node"));
    ready(&node_client(certificates.tls()), primary).await;
    for name in ["127.0.0.1", "localhost"] {
        let pair = certificates.authority.sign(&[name], Valid::Now);
        write_pair(cluster.dir(), name, &pair);
    }
    let said_to = |name: &str, uri: &str, node: &str| {
        let url = format!("https://{}{uri}", primary.address);
        let named = format!("kv-node-address: {node}");
        let (id, lineage) = ("kv-node-id: 00000000000000ff", "kv-lineage;");
        let crc = "kv-last-crc: 00000000";
        let headers = ["-H", &named, "-H", id, "-H", lineage, "-H", crc];
        curl_as(
            cluster.dir(),
            name,
            &[&["-i"], &headers[..], &[&url]].concat(),
        )
    };
    for uri in ["/log?after=0&max_bytes=1&wait_ms=0", "/snapshot"] {
        let refused = said_to("127.0.0.1", uri, &elsewhere);
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
        assert!(refused.contains("forbidden_scope"), "{refused}");
        assert!(refused.contains("is for IpAddress(127.0.0.1)"), "{refused}");
    }
    // A pull of who has nothing yet is answered with frames.
    let pull = "/log?after=0&max_bytes=1&wait_ms=0";
    for node in [elsewhere.as_str(), "backup.invalid:1"] {
        let answered = said_to("localhost", pull, node);
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    }
}

/// Nodes show each other certificates, clients bring tokens: what most clusters will want.
#[tokio::test(flavor = "multi_thread")]
async fn where_tokens_are_known_they_say_who_may_what() {
    let cluster = Cluster::prepare(Shape::pair());
    let certificates = Certificates::make(cluster.dir());
    let reader = Entry::new("reader", &["read"]);
    let app = Entry::new("app", &["read", "write"]);
    let doors = Doors::new(cluster.dir(), &[reader, app]);
    // No token of their own: a certificate is what nodes have.
    let mut flags = flags(cluster.dir(), "node");
    flags.extend(["--tokens".to_owned(), doors.tokens.display().to_string()]);
    for node in cluster.nodes() {
        spawn(node, &flags);
    }
    let mut options = NodeClientOptions::default();
    options.tls = Some(certificates.authority.trusted());
    options.token = Some(text_of("app").parse().unwrap());
    let asker = NodeClient::new(options).unwrap();
    for node in cluster.nodes() {
        ready(&asker, node).await;
    }
    let on_both = PutOptions::new().ack(Ack::All);
    let map = || kvclient::shard_map::toml::parse(&cluster.map, "m").unwrap();
    let with_both = Client::builder(map())
        .tls(certificates.tls())
        .token(text_of("app").parse().unwrap());
    let with_both = with_both.build().unwrap();
    with_both.put_with("a", "v", on_both).await.unwrap();
    for tls in [certificates.authority.trusted(), certificates.tls()] {
        let kv = Client::builder(map())
            .tls(tls)
            .token(text_of("reader").parse().unwrap());
        let kv = kv.build().unwrap();
        assert_eq!(kv.get("a").await.unwrap().as_deref(), Some(&b"v"[..]));
        let error = kv.put("a", "w").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "a reader is one: {error}");
    }
    // A certificate alone, that of no node, lets a connection be made and nothing more.
    for tls in [certificates.authority.trusted(), certificates.tls()] {
        let nobody = Client::builder(map()).tls(tls);
        let error = nobody.build().unwrap().get("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("needs a token"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_say_https_and_curl_follows_them() {
    let shape = Shape {
        shards: 2,
        ..Shape::default()
    };
    let (cluster, _certificates) = serving(shape).await;
    let key = cluster.key_in(1, "k");
    let (wrong, right) = (&cluster.primary(0).address, &cluster.primary(1).address);
    let url = format!("https://{wrong}/kv/{key}");
    let answer = curl_as_client(cluster.dir(), &["-i", "-X", "PUT", "-d", "v", &url]);
    assert!(
        answer.contains(&format!("location: https://{right}/kv/{key}")),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("Ask https://{right}, or")),
        "{answer}"
    );
    curl_as_client(
        cluster.dir(),
        &["-L", "-X", "PUT", "--data-binary", "v", &url],
    );
    assert_eq!(curl_as_client(cluster.dir(), &["-L", &url]), "v");
}

/// A request in the clear, and versions before 1.2, end at once, and without a word of HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_of_today_ends_cleanly() {
    let (cluster, certificates) = serving(Shape::default()).await;
    let node = cluster.primary(0);
    let said_to = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(&node.address).unwrap();
        stream.set_read_timeout(Some(5 * SECOND)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != IoErrorKind::ConnectionReset => panic!("{error}"),
            _ => answer,
        }
    };
    let clear = said_to(b"GET /kv/a HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(!clear.starts_with(b"HTTP"), "{}", clear.escape_ascii());
    // TLS 1.0 and 1.1 are refused for their version: with 1.2 the same words are the beginning of a handshake.
    const PROTOCOL_VERSION: &[u8] = &[2, 70];
    for minor in [1, 2] {
        let answer = said_to(&hello(minor));
        assert_eq!(answer.first(), Some(&ALERT), "{answer:?}");
        assert!(answer.ends_with(PROTOCOL_VERSION), "{answer:?}");
    }
    let mut stream = TcpStream::connect(&node.address).unwrap();
    stream.write_all(&hello(3)).unwrap();
    let mut kind = [0];
    stream.read_exact(&mut kind).unwrap();
    assert_eq!(kind, [HANDSHAKE]);
    // Who connects and says nothing, or half of it, holds up nobody.
    let mut silent: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(&node.address).unwrap())
        .collect();
    for stream in &mut silent[..150] {
        stream.write_all(&hello(3)[..20]).unwrap();
    }
    let asker = node_client(certificates.tls());
    asker
        .get_json(&node.to_address(), "/status", 4 * SECOND)
        .await
        .unwrap();
    let stream = &mut silent[0];
    stream.set_read_timeout(Some(20 * SECOND)).unwrap();
    let ended = stream.read(&mut [0]);
    assert!(
        !matches!(ended, Ok(1..)),
        "a handshake has its time: {ended:?}"
    );
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// The first words of a handshake of TLS 1.`minor - 1`: one suite, two curves, one kind of signature.
fn hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]); // random
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression
    body.extend([0, 18]); // bytes of extensions
    body.extend([0, 10, 0, 6, 0, 4, 0, 0x1d, 0, 0x17]); // curves: x25519, P-256
    body.extend([0, 13, 0, 4, 0, 2, 4, 3]); // signatures: ECDSA with P-256 and SHA-256
    let len = u8::try_from(body.len()).unwrap();
    let mut record = vec![HANDSHAKE, 3, 1, 0, len + 4, 1, 0, 0, len];
    record.extend(body);
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_are_seen_by_new_connections_while_a_writer_loses_nothing() {
    let (cluster, certificates) = serving(Shape::default()).await;
    let (node, dir) = (cluster.primary(0), cluster.dir());
    let kv = Arc::new(client(&cluster, certificates.tls()));
    let writer = tokio::spawn({
        let kv = Arc::clone(&kv);
        async move {
            for n in 0..400_u32 {
                kv.put("n", n.to_string()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    // Both authorities count for callers; the node's own certificate is by the newer one.
    let newer = Authority::new("newer");
    let expected = newer.sign(NODE_NAMES, Valid::Now);
    fs::write(
        dir.join("ca.pem"),
        certificates.authority.pem() + &newer.pem(),
    )
    .unwrap();
    write_pair(dir, "node", &expected);
    let by_newer = || {
        let tls = newer.trusted();
        let client = &certificates.client;
        node_client(
            tls.with_identity_pem(&client.certificate, &client.key)
                .unwrap(),
        )
    };
    let address = node.to_address();
    assert!(by_newer().get(&address, &get(), SECOND).await.is_err());
    node.signal(Signal::HUP);
    eventually("new connections see the new certificate", async || {
        by_newer()
            .get(&address, &get(), SECOND)
            .await
            .ok()
            .map(drop)
    })
    .await;
    // A broken pair changes nothing and is told.
    fs::write(dir.join("node.pem"), "torn").unwrap();
    node.signal(Signal::HUP);
    eventually("it is told", async || {
        let said = node.said();
        said.contains("the certificates are not reloaded")
            .then_some(())
    })
    .await;
    // It serves with what it has, and says so.
    let status = by_newer()
        .get_json(&address, "/status", SECOND)
        .await
        .unwrap();
    let trouble = status["certificates_trouble"].as_str().unwrap();
    assert!(trouble.contains("node.pem"), "{trouble}");
    assert_eq!(status["state"], "ready", "{status}");
    by_newer().get(&address, &get(), SECOND).await.unwrap();
    writer.await.unwrap();
    assert_eq!(kv.get("n").await.unwrap().as_deref(), Some(&b"399"[..]));
}

/// Connections that were open went on for as long as they liked, under an authority that was taken away.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_taken_away_is_gone_from_open_connections() {
    let (cluster, certificates) = serving(Shape::default()).await;
    let (node, dir) = (cluster.primary(0), cluster.dir());
    let newer = Authority::new("newer");
    let both = certificates.authority.pem() + &newer.pem();
    fs::write(dir.join("both.pem"), both).unwrap();
    let mut flags = flags(dir, "node");
    flags.extend([
        "--tls-ca".to_owned(),
        dir.join("both.pem").display().to_string(),
    ]);
    node.stop().await;
    spawn(node, &flags);
    let asker = node_client(certificates.tls());
    ready(&asker, node).await;
    let address = node.to_address();
    let pair = newer.sign(&["client"], Valid::Now);
    write_pair(dir, "newer", &pair);
    fs::write(dir.join("newer-ca.pem"), newer.pem()).unwrap();
    fs::copy(dir.join("newer-ca.pem"), dir.join("ca.pem")).unwrap();
    node.signal(Signal::HUP);
    let refused = eventually("the open connection is told", async || {
        asker.get_json(&address, "/status", SECOND).await.err()
    })
    .await;
    let text = refused.to_string();
    assert!(text.contains("no longer counts"), "{text}");
    assert!(text.contains("UnknownIssuer"), "{text}");
    // It has ended: the next one is refused in its handshake.
    let next = asker.get_json(&address, "/status", SECOND).await;
    assert!(
        matches!(next, Err(AttemptError::NotConnected(_))),
        "{next:?}"
    );
    let by_newer = certificates.authority.trusted();
    let by_newer = by_newer
        .with_identity_pem(&pair.certificate, &pair.key)
        .unwrap();
    ready(&node_client(by_newer), node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_when_a_node_with_tls_is_killed_and_comes_back() {
    let (cluster, certificates) = serving(Shape::default()).await;
    let node = cluster.primary(0);
    let kv = client(&cluster, certificates.tls());
    let mut last = None;
    for n in 0..60_u32 {
        if n % 20 == 10 {
            node.kill();
            spawn(node, &flags(cluster.dir(), "node"));
        }
        last = Some(kv.put("n", n.to_string()).await.unwrap().position);
    }
    assert_eq!(kv.get("n").await.unwrap().as_deref(), Some(&b"59"[..]));
    assert_eq!(last.map(|position| position.epoch), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_certificate_ends_is_told_before() {
    let (cluster, _certificates) = serving(Shape::default()).await;
    let node = cluster.primary(0);
    let metrics = format!("https://{}/metrics", node.address);
    let text = curl_as_client(cluster.dir(), &[&metrics]);
    // The last day of 2099.
    let line = text
        .lines()
        .find(|line| line.starts_with("kv_tls_certificate_expiry_timestamp_seconds "))
        .unwrap();
    let seconds: f64 = line.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(seconds, 4_102_358_400.0, "{line}");
    assert!(!node.said().contains("valid until"), "{}", node.said());
    // One that has ended is no reason not to start: the node says so, and clients refuse it.
    let ended = Authority::new("ours").sign(NODE_NAMES, Valid::Formerly);
    write_pair(cluster.dir(), "node", &ended);
    node.stop().await;
    spawn(node, &flags(cluster.dir(), "node"));
    eventually("it says so", async || {
        node.said()
            .contains("was valid until 2021-01-01T00:00:00Z")
            .then_some(())
    })
    .await;
    // Nobody should be sent there: he would refuse it.
    let unverified = |uri: &str| {
        let url = format!("https://{}{uri}", node.address);
        curl_as_client(cluster.dir(), &["--insecure", "-i", &url])
    };
    eventually("it is not ready, and says why", async || {
        let answer = unverified("/readyz");
        let is_told = answer.contains("was valid until 2021-01-01T00:00:00Z");
        (answer.starts_with("HTTP/1.1 503") && is_told).then_some(())
    })
    .await;
    let status = unverified("/status");
    assert!(status.contains("\"certificates_trouble\":"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_with_certificates_are_refused_at_the_start() {
    let cluster = Cluster::prepare(Shape::default());
    let (dir, node) = (cluster.dir(), cluster.primary(0));
    let certificates = Certificates::make(dir);
    let open = dir.join("open-key.pem");
    fs::write(&open, &certificates.client.key).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o640)).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    let (map, data) = (
        node.map.display().to_string(),
        node.data.display().to_string(),
    );
    let pair = ["--tls-cert", "node.pem", "--tls-key", "node-key.pem"];
    for (flags, words) in [
        (vec!["--tls-cert", "node.pem"], "also needs --tls-key"),
        (vec!["--tls-client-ca", "ca.pem"], "also needs --tls-cert"),
        (pair.to_vec(), "also needs --tls-client-ca"),
        (
            vec![
                "--tls-cert",
                "client.pem",
                "--tls-key",
                "open-key.pem",
                "--tls-ca",
                "ca.pem",
            ],
            "chmod 600",
        ),
        (
            vec![
                "--tls-cert",
                "node.pem",
                "--tls-key",
                "client-key.pem",
                "--tls-ca",
                "ca.pem",
            ],
            "is not the key of the certificate in",
        ),
        (
            vec![
                "--tls-cert",
                "gone.pem",
                "--tls-key",
                "node-key.pem",
                "--tls-ca",
                "ca.pem",
            ],
            "gone.pem: cannot be read",
        ),
        // TLS alone asks nobody who he is.
        (
            [&pair[..], &["--tls-ca", "ca.pem", "--listen", "0.0.0.0:0"]].concat(),
            "nobody is asked",
        ),
        (
            [
                &pair[..],
                &["--tls-client-ca", "ca.pem", "--insecure-no-auth"],
            ]
            .concat(),
            "leave one of them out",
        ),
    ] {
        let flags: Vec<String> = flags
            .iter()
            .map(|word| match word.ends_with(".pem") {
                true => file(word),
                false => (*word).to_owned(),
            })
            .collect();
        let mut all = vec![
            "--config",
            &map,
            "--address",
            &node.address,
            "--data",
            &data,
        ];
        all.extend(flags.iter().map(String::as_str));
        let (code, said) = Node::run(&all);
        assert_eq!(code, 2, "{flags:?}: {said}");
        assert!(said.contains(words), "{flags:?}: {said}");
        assert!(!said.contains("PRIVATE KEY"), "{said}");
    }
}
