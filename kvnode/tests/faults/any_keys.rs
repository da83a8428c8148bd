//! D7: a key is any 1 to 511 bytes. However it is written and sent, by curl, by the client, straight or through a
//! redirect, it names the same slot and the same entry.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use kvclient::{
    Client,
    key::{Key, escape},
    shard_map::toml,
    slot::Slot,
};

use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    http::{curl, has_curl, head, raw},
    report::{self, Row},
    seeded, shard_of,
};

/// Keys that one run of curl asks for.
const PAGE: usize = 500;

/// What URLs, shells, paths and texts make something of.
const SPECIAL: &[&str] = &[
    "/", "//", ".", "..", "/../", "/./", "%", "%2F", "%2f", "%00", "%25", "?", "#", "&", "=", "+",
    " ", ";", ":", "@", "\\", "{", "}", "{a}", "[", "]", "*", "\"", "'", "<", ">", "|", "^", "`",
    "~", "\r\n", "\t", "\0", "é", "e\u{301}", "ß", "漢字", "🦀", "\u{202e}", "\u{feff}",
];

#[tokio::test(flavor = "multi_thread")]
async fn d7_any_key_is_the_same_by_every_way() {
    if !has_curl() {
        report::save_skipped("D7", "curl is not installed");
        return;
    }
    let mut row = Row::begin("D7");
    let count = if bar() { 10_000 } else { 400 };
    let keys = keys(&mut seeded(), count);
    let nodes = Nodes::start().await;
    for (at, page) in keys.chunks(PAGE).enumerate() {
        nodes.store(at * PAGE, page).await;
    }
    let mut wrong = Vec::new();
    for (at, page) in keys.chunks(PAGE).enumerate() {
        nodes.compare(at * PAGE, page, &mut wrong).await;
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
    row.rounds = count;
    row.writes.acked = count;
    row.figures = format!(
        "{count} keys of 1 to 511 bytes, stored by 4 ways and read by 6, of which 4 through a redirect: 0 differ in value or slot"
    );
    row.save();
}

/// Keys that are put into a URL as they are.
#[tokio::test(flavor = "multi_thread")]
async fn d7_control_keys_that_are_not_escaped_are_others() {
    let nodes = Nodes::start().await;
    let keys = keys(&mut seeded(), 400);
    // Others cannot stand in a request line at all.
    let fits = |key: &&Vec<u8>| key.iter().all(u8::is_ascii_graphic);
    let (mut sent, mut wrong) = (0, 0);
    for key in keys.iter().filter(fits) {
        let text = String::from_utf8_lossy(key);
        let value = format!("value of {text}");
        nodes.client.put(key, value.clone()).await.expect("stored");
        let owner = nodes.owner(key);
        let found = raw(&owner.address, head("GET", &format!("/kv/{text}"), &[]));
        sent += 1;
        wrong += usize::from(found.text() != value);
    }
    assert!(wrong > 0, "of {sent}");
    let found = format!("{wrong} of {sent} keys of printable characters named no entry or another");
    report::save_control("D7", "escaping: keys stand in the URL as they are", &found);
}

/// So many different keys: every byte alone, the longest, and mixtures of all that is special and any bytes.
fn keys(rng: &mut fastrand::Rng, count: usize) -> Vec<Vec<u8>> {
    let mut keys: BTreeSet<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    keys.extend(SPECIAL.iter().map(|text| text.as_bytes().to_vec()));
    keys.extend([
        vec![b'k'; 511],
        vec![0xff; 511],
        vec![0; 511],
        b"%2F".repeat(170),
    ]);
    while keys.len() < count {
        let length = match rng.usize(..20) {
            0 => rng.usize(400..=511),
            _ => rng.usize(2..40),
        };
        let mut key = Vec::new();
        while key.len() < length {
            match rng.usize(..3) {
                0 => key.push(rng.u8(..)),
                1 => key.push(u8::try_from(rng.char('!'..='~')).expect("ASCII")),
                _ => key.extend_from_slice(SPECIAL[rng.usize(..SPECIAL.len())].as_bytes()),
            }
        }
        key.truncate(511);
        keys.insert(key);
    }
    let mut keys: Vec<Vec<u8>> = keys.into_iter().collect();
    rng.shuffle(&mut keys);
    keys
}

struct Nodes {
    cluster: Cluster,
    client: Client,
}

impl Nodes {
    async fn start() -> Self {
        let cluster = Cluster::start(Shape {
            shards: 3,
            ..Shape::default()
        })
        .await;
        let map = toml::parse(&cluster.map, "the nodes' map").expect("a map");
        let client = Client::builder(map).timeout(Duration::from_secs(20));
        Self {
            client: client.build().expect("a client"),
            cluster,
        }
    }

    fn owner(&self, key: &[u8]) -> &Node {
        self.cluster.primary(shard_of(key, 3))
    }

    /// A node that redirects whoever asks it for the key.
    fn other(&self, key: &[u8]) -> &Node {
        self.cluster.primary((shard_of(key, 3) + 1) % 3)
    }

    /// Stores `value N` under each key, by four ways in turn.
    async fn store(&self, first: usize, keys: &[Vec<u8>]) {
        let mut by_curl = Vec::new();
        for (n, key) in (first..).zip(keys) {
            let value = value(n);
            let uri = match n % 4 {
                0 => {
                    self.client
                        .put(key, value)
                        .await
                        .expect("stored by the client");
                    continue;
                }
                1 => {
                    let uri = format!("/kv/{}", escape_all(key));
                    let length = value.len().to_string();
                    let put = head("PUT", &uri, &[("Content-Length", &length)]) + &value;
                    let answer = raw(&self.owner(key).address, put);
                    assert_eq!(answer.status, 204, "{}", key.escape_ascii());
                    continue;
                }
                2 => format!("/kv/{}", escape(key)),
                _ => format!("/kv?key={}", escape_query(key)),
            };
            let url = format!("http://{}{uri}", self.other(key).address);
            by_curl.push(format!(
                "url = \"{url}\"\nrequest = PUT\ndata-binary = \"{value}\"\n"
            ));
        }
        let said = self.curl(&by_curl, "%{http_code}\\n");
        assert!(said.lines().all(|line| line == "204"), "{said}");
        assert_eq!(said.lines().count(), by_curl.len());
    }

    /// Reads each key by every way.
    async fn compare(&self, first: usize, keys: &[Vec<u8>], wrong: &mut Vec<String>) {
        let mut check = |way: &str, key: &[u8], found: &str, expected: &str| {
            if found != expected {
                let key = key.escape_ascii();
                wrong.push(format!("{key} by {way}: {found:?} instead of {expected:?}"));
            }
        };
        for (n, key) in (first..).zip(keys) {
            let value = value(n);
            let found = self.client.get(key).await.expect("an answer");
            let found = found.map(|found| String::from_utf8_lossy(&found).into_owned());
            check("the client", key, &found.unwrap_or_default(), &value);
            let uri = format!("/kv/{}", escape(key));
            let found = raw(&self.owner(key).address, head("GET", &uri, &[]));
            check("its node", key, &found.text(), &value);
            let key = Key::new(key.clone()).expect("a key");
            let route = self.client.route(&key).expect("a route");
            let slot = Slot::of_bytes(key.as_bytes()).number();
            check(
                "route",
                key.as_bytes(),
                &route.slot.number().to_string(),
                &slot.to_string(),
            );
        }
        for (way, uri) in [
            (
                "curl, escaped path",
                (|key| format!("/kv/{}", escape(key))) as fn(&[u8]) -> String,
            ),
            ("curl, all escaped", |key| {
                format!("/kv/{}", escape_all(key))
            }),
            ("curl, query", |key| {
                format!("/kv?key={}", escape_query(key))
            }),
            ("curl, /get", |key| {
                format!("/get?key={}", escape_query(key))
            }),
        ] {
            let url = |key: &Vec<u8>| {
                format!("url = \"http://{}{}\"\n", self.other(key).address, uri(key))
            };
            let said = self.curl(&keys.iter().map(url).collect::<Vec<_>>(), "\\n");
            assert_eq!(said.lines().count(), keys.len(), "{way}");
            for ((n, key), found) in (first..).zip(keys).zip(said.lines()) {
                check(way, key, found, &value(n));
            }
        }
        let url = |key: &Vec<u8>| {
            format!(
                "url = \"http://{}/route?key={}\"\n",
                self.other(key).address,
                escape_query(key)
            )
        };
        let said = self.curl(&keys.iter().map(url).collect::<Vec<_>>(), "\\n");
        let answers = said.lines().filter(|line| !line.is_empty());
        assert_eq!(answers.clone().count(), keys.len());
        for (key, line) in keys.iter().zip(answers) {
            let route: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let slot = Slot::of_bytes(key).number();
            check(
                "curl, /route",
                key,
                &route["slot"].to_string(),
                &slot.to_string(),
            );
        }
    }

    /// One run of curl with these transfers; what it printed, each followed by `write_out`.
    fn curl(&self, transfers: &[String], write_out: &str) -> String {
        let common = format!(
            "location\nsilent\ngloboff\npath-as-is\nnoproxy = \"*\"\nwrite-out = \"{write_out}\"\n"
        );
        let sections: Vec<String> = transfers
            .iter()
            .map(|transfer| format!("{common}{transfer}"))
            .collect();
        let file = self.cluster.dir().join("transfers");
        fs::write(&file, sections.join("next\n")).expect("a file");
        run(&file)
    }
}

fn run(transfers: &Path) -> String {
    curl(&["--max-time", "60", "-K", &transfers.display().to_string()])
}

fn value(n: usize) -> String {
    format!("value {n}")
}

/// Every byte escaped.
fn escape_all(key: &[u8]) -> String {
    key.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// Bytes in a query: a space may be a plus.
fn escape_query(key: &[u8]) -> String {
    escape(key).replace("%20", "+")
}
