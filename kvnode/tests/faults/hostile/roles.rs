//! E8: who may ask what. Every path and method of the API's description, asked by every kind of caller: each gets exactly
//! the code that a table here says, written without a look at the node's own.

use std::collections::BTreeSet;

use crate::support::{
    cluster::{Cluster, Shape},
    http::{Ask, Raw, head},
    report::{self, Row},
    tokens::{self, Entry, by, text_of},
};

const OVER: Entry = Entry {
    expires: Some("2020-01-01T00:00:00Z"),
    ..Entry::new("over", &["read", "write", "admin", "replicate", "node"])
};
const PREFIXED: Entry = Entry {
    prefixes: &["user:"],
    ..Entry::new("prefixed", &["read", "write"])
};
const ENTRIES: [Entry; 7] = [
    OVER,
    PREFIXED,
    Entry::new("read", &["read"]),
    Entry::new("write", &["write"]),
    Entry::new("admin", &["admin"]),
    Entry::new("replicate", &["replicate"]),
    Entry::new("node", &["node"]),
];

/// Callers without a token that counts, then the scopes, then one that is bound to a prefix.
const CALLERS: [&str; 9] = [
    "none",
    "wrong",
    "over",
    "read",
    "write",
    "admin",
    "replicate",
    "node",
    "prefixed",
];

/// Who may.
#[derive(Clone, Copy)]
enum Takes {
    /// Anybody, with or without a token.
    Nothing,
    /// Whoever has one of these scopes; the prefix does not matter.
    OneOf(&'static [&'static str]),
    /// The same, and the key or range is within the prefix.
    Within(&'static [&'static str]),
    /// The same, and it is not.
    Beyond(&'static [&'static str]),
    /// Both scopes, within the prefix.
    Both,
}

/// Method, path of the description, the request for it, its code for those who may, and who may.
type Line = (&'static str, &'static str, &'static str, u16, Takes);

const READ: &[&str] = &["read"];
const WRITE: &[&str] = &["write"];
const STATE: Takes = OneOf(&["read", "replicate", "node"]);
const COPIES: Takes = OneOf(&["replicate", "node"]);

use Takes::{Beyond, Both, Nothing, OneOf, Within};

const LINES: &[Line] = &[
    ("GET", "/kv/{key}", "/kv/user:1", 200, Within(READ)),
    ("GET", "/kv/{key}", "/kv/shop:1", 200, Beyond(READ)),
    ("HEAD", "/kv/{key}", "/kv/user:1", 200, Within(READ)),
    ("HEAD", "/kv/{key}", "/kv/shop:1", 200, Beyond(READ)),
    ("PUT", "/kv/{key}", "/kv/user:1", 204, Within(WRITE)),
    ("PUT", "/kv/{key}", "/kv/shop:1", 204, Beyond(WRITE)),
    ("DELETE", "/kv/{key}", "/kv/user:none", 404, Within(WRITE)),
    ("DELETE", "/kv/{key}", "/kv/none", 404, Beyond(WRITE)),
    (
        "POST",
        "/kv/{key}",
        "/kv/user:1?persist",
        204,
        Within(WRITE),
    ),
    ("POST", "/kv/{key}", "/kv/shop:1?ttl=1h", 204, Beyond(WRITE)),
    ("POST", "/kv/{key}", "/kv/user:1?incr=0", 200, Both),
    ("GET", "/kv", "/kv?key=user:1", 200, Within(READ)),
    ("GET", "/kv", "/kv?key=shop:1", 200, Beyond(READ)),
    ("GET", "/kv", "/kv?prefix=user:", 200, Within(READ)),
    ("GET", "/kv", "/kv?prefix=us", 200, Beyond(READ)),
    ("GET", "/kv", "/kv", 200, Beyond(READ)),
    ("HEAD", "/kv", "/kv?prefix=user:", 200, Within(READ)),
    ("PUT", "/kv", "/kv?key=user:1", 204, Within(WRITE)),
    ("DELETE", "/kv", "/kv?key=none", 404, Beyond(WRITE)),
    ("POST", "/kv", "/kv?key=user:1&persist", 204, Within(WRITE)),
    ("POST", "/batch", "/batch", 200, OneOf(&["read", "write"])),
    (
        "GET",
        "/watch",
        "/watch?prefix=user:&after=x",
        400,
        OneOf(READ),
    ),
    ("HEAD", "/watch", "/watch?prefix=user:", 200, Within(READ)),
    ("HEAD", "/watch", "/watch", 200, Beyond(READ)),
    ("GET", "/get", "/get?key=user:1", 200, Within(READ)),
    ("GET", "/get", "/get?key=shop:1", 200, Beyond(READ)),
    ("HEAD", "/get", "/get?key=user:1", 200, Within(READ)),
    ("GET", "/set", "/set?key=user:1&value=1", 200, Within(WRITE)),
    ("GET", "/set", "/set?key=shop:1&value=1", 200, Beyond(WRITE)),
    (
        "GET",
        "/delete",
        "/delete?key=user:none",
        404,
        Within(WRITE),
    ),
    ("GET", "/delete", "/delete?key=none", 404, Beyond(WRITE)),
    ("GET", "/route", "/route?key=shop:1", 200, STATE),
    ("HEAD", "/route", "/route?key=shop:1", 200, STATE),
    ("GET", "/cluster/map", "/cluster/map", 200, STATE),
    ("HEAD", "/cluster/map", "/cluster/map", 200, STATE),
    ("GET", "/cluster/status", "/cluster/status", 200, STATE),
    ("HEAD", "/cluster/status", "/cluster/status", 200, STATE),
    ("GET", "/status", "/status", 200, STATE),
    ("HEAD", "/status", "/status", 200, STATE),
    ("GET", "/status/history", "/status/history", 200, STATE),
    ("HEAD", "/status/history", "/status/history", 200, STATE),
    ("GET", "/status/sums", "/status/sums", 200, Beyond(READ)),
    ("HEAD", "/status/sums", "/status/sums", 200, Beyond(READ)),
    ("GET", "/metrics", "/metrics", 200, STATE),
    ("HEAD", "/metrics", "/metrics", 200, STATE),
    ("GET", "/log", "/log?after=0", 200, COPIES),
    ("HEAD", "/log", "/log?after=0", 200, COPIES),
    ("GET", "/snapshot", "/snapshot", 200, COPIES),
    ("HEAD", "/snapshot", "/snapshot", 200, COPIES),
    ("GET", "/healthz", "/healthz", 200, Nothing),
    ("HEAD", "/healthz", "/healthz", 200, Nothing),
    ("GET", "/readyz", "/readyz", 200, Nothing),
    ("HEAD", "/readyz", "/readyz", 200, Nothing),
    ("GET", "/openapi.json", "/openapi.json", 200, Nothing),
    ("HEAD", "/openapi.json", "/openapi.json", 200, Nothing),
    ("GET", "/", "/", 200, Nothing),
    ("HEAD", "/", "/", 200, Nothing),
    ("GET", "/page/{file}", "/page/main.js", 200, Nothing),
    ("HEAD", "/page/{file}", "/page/main.js", 200, Nothing),
];

/// The code that a caller gets.
fn expected(caller: &str, status: u16, takes: Takes) -> u16 {
    let has = |scopes: &[&str]| match caller {
        "prefixed" => scopes.iter().any(|scope| ["read", "write"].contains(scope)),
        scope => scopes.contains(&scope),
    };
    let may = match takes {
        Nothing => return status,
        OneOf(scopes) | Within(scopes) => has(scopes),
        Beyond(scopes) => has(scopes) && caller != "prefixed",
        Both => caller == "prefixed",
    };
    match (caller, may) {
        ("none" | "wrong" | "over", _) => 401,
        (_, true) => status,
        (_, false) => 403,
    }
}

fn ask(line: &Line, caller: &str) -> Ask {
    let (method, _, uri, ..) = *line;
    let ask = Ask::new(method, uri);
    let ask = match method {
        "PUT" => ask.body("7"),
        "POST" if uri == "/batch" => ask
            .header("content-type", "application/x-ndjson")
            .body("{\"op\":\"get\",\"key\":\"user:1\"}\n"),
        _ => ask,
    };
    match caller {
        "none" => ask,
        name => by(name, ask),
    }
}

/// Cells asked, and those that answered otherwise than the table says.
async fn matrix(cluster: &Cluster) -> (usize, Vec<String>) {
    let node = cluster.primary(0);
    let (mut cells, mut wrong) = (0, Vec::new());
    for line in LINES {
        for caller in CALLERS {
            let (method, _, uri, status, takes) = *line;
            let expected = expected(caller, status, takes);
            // Each cell finds the same entries.
            for key in ["user:1", "shop:1"] {
                let put = Ask::new("PUT", format!("/kv/{key}")).body("7");
                assert_eq!(node.send(by("write", put)).await.status, 204);
            }
            let found = node.send(ask(line, caller)).await.status;
            cells += 1;
            if found != expected {
                wrong.push(format!(
                    "{method} {uri} by {caller}: {found}, not {expected}"
                ));
            }
        }
    }
    (cells, wrong)
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_every_caller_gets_exactly_what_his_token_says() {
    let mut row = Row::begin("E8");
    let (cluster, _doors) = tokens::start(Shape::default(), &ENTRIES).await;
    let node = cluster.primary(0);
    let description = node.ask("GET", "/openapi.json").await.json();
    let described: BTreeSet<(String, String)> = description["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let listed = LINES
        .iter()
        .map(|line| (line.0.to_owned(), line.1.to_owned()));
    assert_eq!(
        listed.collect::<BTreeSet<_>>(),
        described,
        "each path and method has a line"
    );
    let (cells, wrong) = matrix(&cluster).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    let spellings = other_spellings(&cluster);
    row.rounds = cells + spellings;
    row.figures = format!(
        "{} requests by {} callers: {cells} cells, each with its exact code; {spellings} other ways to give a token, 0 let in",
        LINES.len(),
        CALLERS.len()
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_control_a_node_that_asks_nobody_is_found() {
    let shape = Shape {
        faults: "off=tokens",
        ..Shape::default()
    };
    let (cluster, _doors) = tokens::start(shape, &ENTRIES).await;
    let (cells, wrong) = matrix(&cluster).await;
    assert!(wrong.len() > cells / 3, "{wrong:#?}");
    let found = format!(
        "{} of {cells} cells let in whom they should not",
        wrong.len()
    );
    report::save_control("E8", "callers are asked for a token", &found);
}

/// Requests that carry a good token where none belongs, or in a way that two readers could take differently.
fn other_spellings(cluster: &Cluster) -> usize {
    let address = &cluster.primary(0).address;
    let token = text_of("read");
    let bearer = format!("Bearer {token}");
    let requests = [
        head("GET", &format!("/status?access_token={token}"), &[]),
        head("GET", &format!("/status?token={token}"), &[]),
        head("GET", "/status", &[("Cookie", &format!("token={token}"))]),
        head("GET", "/status", &[("Kv-Token", &token)]),
        head("GET", "/status", &[("X-Authorization", &bearer)]),
        head("GET", "/status", &[("Proxy-Authorization", &bearer)]),
        head("GET", "/status", &[("Authorization", &token)]),
        head(
            "GET",
            "/status",
            &[("Authorization", &format!("Basic {token}"))],
        ),
        head(
            "GET",
            "/status",
            &[("Authorization", &format!("Bearer {token}, Bearer {token}"))],
        ),
        head(
            "GET",
            "/status",
            &[("Authorization", &format!("Bearer {token} x"))],
        ),
        head(
            "GET",
            "/status",
            &[("Authorization", &format!("Bearer \"{token}\""))],
        ),
        head(
            "GET",
            "/status",
            &[("Authorization", &format!("Bearer{token}"))],
        ),
        head(
            "GET",
            "/status",
            &[("Authorization", &bearer), ("Authorization", &bearer)],
        ),
        head(
            "GET",
            "/status",
            &[("Authorization", &bearer), ("Authorization", "Bearer x")],
        ),
        head(
            "GET",
            "/status",
            &[("Authorization", &format!("Bearer {}", token.to_uppercase()))],
        ),
        head(
            "GET",
            "/status",
            &[(
                "Authorization",
                &format!("Bearer {}", &token[..token.len() - 1]),
            )],
        ),
        format!("GET http://user:{token}@localhost/status HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ];
    let count = requests.len();
    for request in requests {
        let mut connection = Raw::connect(address);
        connection.write(&request);
        let status = connection.answer("GET").map(|answer| answer.status);
        assert!(
            matches!(status, Some(401 | 421 | 400)),
            "{request}: {status:?}"
        );
    }
    count
}
