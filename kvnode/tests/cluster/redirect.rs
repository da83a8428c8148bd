//! A node that is asked for another shard's key names the node to ask, and nothing that a request says changes which.

use kvclient::wire::redirect;

use crate::support::{
    cluster::{Cluster, Node, Shape},
    http::{Answer, Ask, Raw, curl, has_curl, head, raw},
};

async fn cluster() -> Cluster {
    Cluster::start(Shape {
        shards: 3,
        replicas: 1,
        ..Shape::default()
    })
    .await
}

/// Checks that an answer is a 307 to this node with this path and query.
fn assert_redirects(answer: &Answer, target: &Node, uri: &str, what: &str) {
    assert_eq!(answer.status, 307, "{what}: {}", answer.text());
    let location = format!("http://{}{uri}", target.address);
    assert_eq!(answer.header("location"), Some(location.as_str()), "{what}");
    assert!(
        answer.text().contains(&target.address),
        "{what}: {}",
        answer.text()
    );
    assert!(answer.header("kv-map-version").is_some(), "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_op_on_another_shards_key_is_redirected_to_its_primary() {
    let cluster = cluster().await;
    let key = cluster.key_in(2, "k");
    let owner = cluster.primary(2);
    owner.put(&key, "there").await;
    for node in [
        cluster.primary(0),
        cluster.replica(0, 0),
        cluster.replica(1, 0),
    ] {
        for (method, uri) in [
            ("GET", format!("/kv/{key}")),
            ("HEAD", format!("/kv/{key}")),
            ("PUT", format!("/kv/{key}?ttl=90s")),
            ("DELETE", format!("/kv/{key}")),
            ("POST", format!("/kv/{key}?incr=1")),
            ("POST", format!("/kv/{key}?persist")),
            ("GET", format!("/kv?key={key}")),
            ("PUT", format!("/kv?key={key}")),
            ("GET", format!("/get?key={key}")),
            ("GET", format!("/set?key={key}&value=x")),
            ("GET", format!("/delete?key={key}")),
        ] {
            let body = if method == "PUT" { "new" } else { "" };
            let length = body.len();
            let answer = raw(
                &node.address,
                head(method, &uri, &[("Content-Length", &length.to_string())]) + body,
            );
            let what = format!("{method} {uri} at {}", node.address);
            if method == "HEAD" {
                assert_eq!(answer.status, 307, "{what}");
            } else {
                assert_redirects(&answer, owner, &uri, &what);
            }
            let changes = !matches!(method, "GET" | "HEAD")
                || uri.contains("et?") && !uri.starts_with("/get")
                || uri.starts_with("/delete");
            assert_eq!(
                answer.header("kv-applied"),
                changes.then_some("no"),
                "{what}"
            );
        }
    }
    assert_eq!(
        owner.get(&key).await.as_deref(),
        Some(&b"there"[..]),
        "nobody forwarded"
    );
}

/// A missing key of another shard is not "not found": that is for its own nodes to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_own_a_slot_never_says_not_found() {
    let cluster = cluster().await;
    for asked in 0..3 {
        for shard in 0..3 {
            let key = cluster.key_in(shard, "absent");
            for node in [cluster.primary(asked), cluster.replica(asked, 0)] {
                for uri in [format!("/kv/{key}"), format!("/get?key={key}")] {
                    let expected = if asked == shard { 404 } else { 307 };
                    assert_eq!(
                        node.ask("GET", &uri).await.status,
                        expected,
                        "{uri} at {}",
                        node.address
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_a_request_changes_where_it_is_sent() {
    let cluster = cluster().await;
    let node = cluster.primary(0);
    let owner_of = |key: &[u8]| {
        let shard = crate::support::shard_of(key, 3);
        assert_ne!(shard, 0, "{}: choose another key", key.escape_ascii());
        cluster.primary(shard)
    };
    // The first key of each kind that is another shard's: its escaped form stays in the path as it came.
    for template in [
        "/kv/a%0d%0aLocation:%20http://evil@",
        "/kv//evil@",
        "/kv///evil@",
        "/kv/%2F%2Fevil@",
        "/kv/http://evil/@",
        "/kv/x%3F@",
        "/kv/%00%ff@",
        "/kv?key=%0d%0aX:y@",
        "/kv/@?ttl=9s",
        "/get?key=//evil@",
    ] {
        let (uri, key) = (0..)
            .map(|n| template.replace('@', &n.to_string()))
            .map(|uri| (uri.clone(), key_of(&uri)))
            .find(|(_, key)| crate::support::shard_of(key, 3) != 0)
            .expect("some key is another shard's");
        let method = if uri.contains("ttl") { "PUT" } else { "GET" };
        for headers in [
            &[][..],
            &[
                ("X-Forwarded-Host", "evil.example"),
                ("X-Forwarded-Proto", "https"),
            ],
            &[("Forwarded", "host=evil.example;proto=https")],
        ] {
            let answer = raw(&node.address, head(method, &uri, headers));
            assert_redirects(&answer, owner_of(&key), &uri, &uri);
            let location = answer.header("location").expect("a location");
            let target = redirect::target(kvclient::Scheme::Http, location).expect("a node");
            assert_eq!(target, owner_of(&key).to_address(), "{uri}");
        }
    }
    // An absolute request target names a host of its own; a foreign Host is no name of this node.
    let key = cluster.key_in(1, "k");
    for (request, status) in [
        (
            format!("GET /kv/{key} HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
            421,
        ),
        (
            format!("GET /kv/{key} HTTP/1.1\r\nHost: evil.example:80\r\n\r\n"),
            421,
        ),
        (
            format!("GET //evil.example/kv/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            404,
        ),
    ] {
        let answer = raw(&node.address, &request);
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(answer.header("location"), None, "{request}");
    }
    let absolute = format!("GET http://evil.example/kv/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = raw(&node.address, &absolute);
    if let Some(location) = answer.header("location") {
        assert_eq!(
            redirect::target(kvclient::Scheme::Http, location),
            Some(cluster.primary(1).to_address()),
            "{absolute}"
        );
    }
}

fn key_of(uri: &str) -> Vec<u8> {
    use kvclient::key::{Plus, unescape};
    let uri = uri.split("?ttl").next().expect("a part");
    let (escaped, plus) = match uri.split_once("key=") {
        Some((_, key)) => (key, Plus::Space),
        None => (&uri["/kv/".len()..], Plus::Literal),
    };
    unescape(escaped.as_bytes(), plus).expect("an escaped key")
}

/// The body is read and thrown away first, so that a client that sends before it reads sees the answer; the
/// connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_redirected_write_is_drained() {
    let cluster = cluster().await;
    let (far, near) = (cluster.key_in(1, "far"), cluster.key_in(0, "near"));
    let node = cluster.primary(0);
    let value = vec![b'x'; 1 << 20];
    let length = value.len().to_string();
    let mut connection = Raw::connect(&node.address);
    for _ in 0..3 {
        let uri = format!("/kv/{far}");
        connection.write(head("PUT", &uri, &[("Content-Length", &length)]));
        assert!(connection.write(&value), "the node reads on");
        let answer = connection.answer("PUT").expect("an answer");
        assert_redirects(&answer, cluster.primary(1), &uri, "with a body");
    }
    connection.write(head("PUT", &format!("/kv/{near}"), &[("Content-Length", "2")]) + "ok");
    assert_eq!(connection.answer("PUT").expect("an answer").status, 204);
    assert_eq!(cluster.primary(1).get(&far).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_serves_reads_and_names_its_primary_for_writes() {
    let cluster = cluster().await;
    let (primary, replica) = (cluster.primary(1), cluster.replica(1, 0));
    let key = cluster.key_in(1, "k");
    let position = primary.put(&key, "v").await;
    replica
        .wait_visible(position, "the replica has the write")
        .await;
    let read = replica.ask("GET", &format!("/kv/{key}")).await;
    assert_eq!((read.status, read.text().as_str()), (200, "v"));
    assert_eq!(
        (read.header("kv-role"), read.header("kv-shard")),
        (Some("replica"), Some("s1"))
    );
    assert_eq!(read.position(), position);
    assert!(read.header("kv-lag-ms").is_some());
    assert_eq!(
        replica.ask("GET", &format!("/get?key={key}")).await.text(),
        "v"
    );
    for (method, uri) in [
        ("PUT", format!("/kv/{key}")),
        ("DELETE", format!("/kv/{key}")),
        ("POST", format!("/kv/{key}?incr=1")),
        ("GET", format!("/set?key={key}&value=x")),
        ("GET", format!("/delete?key={key}")),
    ] {
        let answer = replica.send(Ask::new(method, &uri)).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (403, "read_only_replica"),
            "{uri}"
        );
        assert_eq!(answer.header("kv-applied"), Some("no"), "{uri}");
        let location = format!("http://{}{uri}", primary.address);
        assert_eq!(answer.header("location"), Some(location.as_str()), "{uri}");
        assert!(
            answer.text().contains(&primary.address),
            "{}",
            answer.text()
        );
    }
    assert_eq!(primary.get(&key).await.as_deref(), Some(&b"v"[..]));
}

/// What `curl -L` does with each way of sending a value: it arrives whole or not at all, never empty.
#[tokio::test(flavor = "multi_thread")]
async fn curl_keeps_its_body_through_a_redirect() {
    if !has_curl() {
        return;
    }
    let cluster = cluster().await;
    let file = cluster.dir().join("value");
    let large: String = "large value ".repeat(20_000);
    std::fs::write(&file, &large).expect("a file");
    let from_file = format!("@{}", file.display());
    for (name, arguments, value) in [
        ("put-data", &["-X", "PUT", "-d", "v=1"][..], "v=1"),
        (
            "put-binary",
            &["-X", "PUT", "--data-binary", "a\nb"],
            "a\nb",
        ),
        (
            "put-file",
            &["-X", "PUT", "--data-binary", &from_file],
            &large,
        ),
        ("upload", &["-T", &from_file[1..]], &large),
        (
            "chunked",
            &[
                "-X",
                "PUT",
                "-H",
                "Transfer-Encoding: chunked",
                "--data-binary",
                &from_file,
            ],
            &large,
        ),
        (
            "expect",
            &[
                "-X",
                "PUT",
                "-H",
                "Expect: 100-continue",
                "--data-binary",
                &from_file,
            ],
            &large,
        ),
        (
            "no-expect",
            &["-X", "PUT", "-H", "Expect:", "--data-binary", &from_file],
            &large,
        ),
        ("empty", &["-X", "PUT", "--data-binary", ""], ""),
    ] {
        for asked in 0..3 {
            let key = cluster.key_in(2, &format!("{name}{asked}-"));
            let url = format!("http://{}/kv/{key}", cluster.primary(asked).address);
            let mut all = vec!["-L", "-o", "/dev/null", "-w", "%{http_code}"];
            all.extend(arguments);
            all.push(&url);
            let status = curl(&all);
            assert_eq!(status, "204", "{name} at node {asked}");
            let stored = cluster.primary(2).get(&key).await;
            assert!(
                stored.as_deref() == Some(value.as_bytes()),
                "{name} at node {asked}: {stored:.60?}"
            );
            assert_eq!(
                curl(&["-L", &url]).as_bytes(),
                value.as_bytes(),
                "{name} read back"
            );
            let deleted = curl(&["-L", "-X", "DELETE", "-w", "%{http_code}", &url]);
            assert_eq!(deleted, "204", "{name} deleted");
            assert_eq!(cluster.primary(2).get(&key).await, None);
        }
    }
    // Without -L nothing is stored, and a person can read what to do.
    let key = cluster.key_in(1, "plain");
    let url = format!("http://{}/kv/{key}", cluster.primary(0).address);
    let said = curl(&["-X", "PUT", "--data-binary", "v", &url]);
    assert!(
        said.contains("curl -L") && said.contains(&cluster.primary(1).address),
        "{said}"
    );
    assert_eq!(cluster.primary(1).get(&key).await, None);
    for (path, text) in [
        ("set?value=x&key=", "stored"),
        ("get?key=", "x"),
        ("delete?key=", "deleted"),
    ] {
        let url = format!("http://{}/{path}{key}", cluster.primary(0).address);
        assert!(curl(&["-L", &url]).starts_with(text), "{path}");
    }
}
