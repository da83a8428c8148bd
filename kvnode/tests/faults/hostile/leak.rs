//! E9: a node that sends clients elsewhere gets nobody's token for it. Whoever is named by a redirect and not by the map
//! is sent nothing at all.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use futures_util::StreamExt;
use kvclient::{Client, ClientBuilder, shard_map::toml};

use crate::support::{
    bar,
    cluster::{Node, map_text},
    key_in,
    library::library,
    ports::Port,
    report::{self, Row},
    tokens::{Doors, Entry, text_of},
};

const APP: Entry = Entry::new("app", &["read", "write"]);

/// Version of a map that no node's is newer than.
const KEPT: usize = 1_000;

/// What an op that strays may take.
const TIMEOUT: Duration = Duration::from_millis(600);

/// A listener that keeps what is sent to it. Ends with the process.
#[derive(Clone)]
struct Listener {
    address: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Listener {
    /// Answers every request with this.
    fn start(answer: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answer) = (Arc::clone(&kept), answer.clone());
                thread::spawn(move || serve(stream, &kept, &answer));
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> String {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// One answer for each head that comes; bodies are short and come with their heads.
fn serve(mut stream: TcpStream, heard: &Mutex<Vec<u8>>, answer: &str) {
    let mut part = [0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut part) {
        heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(&part[..count]);
        if part[..count].windows(4).any(|end| end == b"\r\n\r\n")
            && stream.write_all(answer.as_bytes()).is_err()
        {
            return;
        }
    }
}

fn redirect_to(address: &str) -> String {
    format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{address}/kv/k\r\nKv-Map-Version: 1-0\r\nContent-Length: 0\r\n\r\n"
    )
}

/// A node that belongs to the map and means harm, one that means none and has a wrong map, and whom they both name.
struct Strays {
    hostile: Listener,
    astray: Node,
    stranger: Listener,
    _dir: tempfile::TempDir,
}

impl Strays {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let stranger = Listener::start("HTTP/1.1 204 No Content\r\n\r\n".into());
        let hostile = Listener::start(redirect_to(&stranger.address));
        let port = Port::take();
        let own = format!("127.0.0.1:{}", port.number);
        let map = map_text(1, &[own, stranger.address.clone()], 1);
        let astray = Node::new(dir.path(), "astray", port, &map);
        let doors = Doors::new(dir.path(), &[APP]);
        astray.spawn(&doors.flags());
        astray.wait_ready().await;
        Self {
            hostile,
            astray,
            stranger,
            _dir: dir,
        }
    }

    /// A client whose map names the node given for both shards, so that everything goes there.
    fn client(second: &str) -> Client {
        let dead = Port::take();
        let dead = format!("127.0.0.1:{}", dead.number);
        let map = map_text(KEPT, &[dead, second.to_owned()], 1);
        let map = toml::parse(&map, "a map of the test").expect("a map");
        let token = text_of("app").parse().expect("a token");
        let builder = ClientBuilder::new(map).timeout(TIMEOUT).token(token);
        builder.build().expect("a client")
    }
}

/// Every kind of request that a client makes; how many ended.
async fn everything(client: &Client) -> usize {
    let key = key_in(1, 2, "k");
    let failed = [
        client.get(&key).await.is_err(),
        client.put(&key, "v").await.is_err(),
        client.put(&key, vec![7; 200_000]).await.is_err(),
        client.incr(&key, 1).await.is_err(),
        client.delete(&key).await.is_err(),
        client.get_many([&key]).await.is_err(),
        client.atomic().put(&key, "v").commit().await.is_err(),
        matches!(client.scan("k").next().await, Some(Err(_))),
    ];
    // A watch goes on trying; one try is enough here.
    let _ = tokio::time::timeout(TIMEOUT, client.watch("k").next()).await;
    let ended = failed.iter().filter(|failed| **failed).count();
    assert_eq!(ended, failed.len(), "{failed:?}");
    ended + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn e9_no_redirect_leads_a_token_out_of_the_map() {
    let mut row = Row::begin("E9");
    let strays = Strays::start().await;
    let rounds = if bar() { 20 } else { 1 };
    for _ in 0..rounds {
        for node in [&strays.hostile.address, &strays.astray.address] {
            row.rounds += everything(&Strays::client(node)).await;
        }
    }
    let shown = strays.hostile.heard().matches(&text_of("app")).count();
    assert!(shown > 0, "the node of the map was shown the token");
    assert_eq!(
        strays.stranger.heard(),
        "",
        "the stranger was sent something"
    );
    row.figures = format!(
        "{} ops of nine kinds, sent astray by a hostile node and by one with a wrong map; the node of the map was shown the \
         token {shown} times, the stranger 0 times, and was sent 0 bytes",
        row.rounds
    );
    row.save();
}

/// An HTTP client that follows with all its headers, as `curl -L --location-trusted` does.
#[tokio::test(flavor = "multi_thread")]
async fn e9_control_who_follows_with_his_headers_gives_the_token_away() {
    let strays = Strays::start().await;
    let token = format!("Bearer {}", text_of("app"));
    let client = library()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("an HTTP client");
    let ask = async |uri: String| {
        let request = client.get(uri).header("authorization", &token);
        request.send().await.expect("an answer")
    };
    let key = key_in(1, 2, "k");
    for node in [&strays.hostile.address, &strays.astray.address] {
        let answer = ask(format!("http://{node}/kv/{key}")).await;
        assert_eq!(answer.status(), 307);
        let location = answer.headers()["location"]
            .to_str()
            .expect("text")
            .to_owned();
        ask(location).await;
    }
    let found = strays.stranger.heard().matches(&text_of("app")).count();
    assert_eq!(found, 2);
    let found = format!("the stranger was shown the token {found} times in 2 redirects");
    report::save_control("E9", "only nodes of the map are followed to", &found);
}
