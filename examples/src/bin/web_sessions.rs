//! A small web application that keeps its users' sessions in the store.
//!
//! What a browser's session holds (a name, a number of visits) is an entry with an expiry, read at whichever node is
//! least busy. Two cookies go to and fro: `sid` names the entry, and `seen` is the token of what this user has seen of
//! the store. With it every front end, of which there may be many, shows the user what the last request stored, though
//! reads go to replicas and the front ends know nothing of each other.
//!
//! A forged `seen` makes its owner's reads slow and nobody else's; a forged `sid` finds nothing.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, ResponseError,
    http::header,
    web::{Data, Form, get, post, resource},
};
use anyhow::Context;
use clap::Parser;
use examples::Cluster;
use kvclient::{Client, Consistency, Entry, ErrorKind, GetOptions, PutOptions, Session};
use serde::{Deserialize, Serialize};

/// How long a session lives after its last request.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Rounds of "read, change, store if nobody else did" before a request gives up.
const ROUNDS: usize = 10;

/// Serves a page that knows its visitors.
///
/// Open the address that it prints, or: curl --cookie-jar jar --cookie jar ADDRESS
#[derive(Parser)]
#[command(
    after_help = "To run it: ./launch.sh, then cargo run --release -p examples --bin web_sessions"
)]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Where to listen; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
}

/// What is kept of a user.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct User {
    name: String,
    visits: u64,
}

/// What the form on the page sends.
#[derive(Debug, Deserialize)]
struct Introduction {
    name: String,
}

/// A request as the store sees it: who, and what they have seen.
struct Visit {
    /// Names the entry; `None` before there is one.
    sid: Option<String>,
    kv: Client,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let kv = args.cluster.connect().await?;
    let app = move || {
        let page = resource("/").route(get().to(show)).route(post().to(rename));
        App::new().app_data(Data::new(kv.clone())).service(page)
    };
    let server = HttpServer::new(app).workers(2).shutdown_timeout(2);
    let server = server.bind(args.listen).with_context(|| {
        format!(
            "cannot listen on {}; name another address with --listen",
            args.listen
        )
    })?;
    for address in server.addrs() {
        println!("open http://{address}/ and stop with Ctrl-C");
    }
    Ok(server.run().await?)
}

async fn show(request: HttpRequest, kv: Data<Client>) -> Result<HttpResponse, Failed> {
    let mut visit = Visit::of(&request, &kv);
    let user = visit.update(|user| user.visits += 1).await?;
    Ok(visit.page(&user))
}

async fn rename(
    request: HttpRequest,
    kv: Data<Client>,
    form: Form<Introduction>,
) -> Result<HttpResponse, Failed> {
    let mut visit = Visit::of(&request, &kv);
    let name: String = form.name.chars().take(40).collect();
    let user = visit.update(|user| user.name.clone_from(&name)).await?;
    Ok(visit.page(&user))
}

impl Visit {
    fn of(request: &HttpRequest, kv: &Client) -> Self {
        let sid = cookie(request, "sid").filter(|sid| is_sid(sid));
        let seen = cookie(request, "seen").and_then(|token| Session::from_token(token).ok());
        Self {
            sid: sid.map(str::to_owned),
            kv: kv.with_session(seen.unwrap_or_default()),
        }
    }

    /// Changes what is kept of the user: two requests of one browser at the same time both count.
    async fn update(&mut self, change: impl Fn(&mut User)) -> Result<User, Failed> {
        for _ in 0..ROUNDS {
            let (sid, entry) = self.load().await?;
            let mut user: User = match &entry {
                Some(entry) => serde_json::from_slice(&entry.value)?,
                None => User::default(),
            };
            change(&mut user);
            let options = PutOptions::new().ttl(LIFETIME);
            let options = match &entry {
                Some(entry) => options.if_match(entry.position),
                None => options.if_absent(),
            };
            let value = serde_json::to_vec(&user)?;
            match self.kv.put_with(key(&sid), value, options).await {
                Ok(_) => {
                    self.sid = Some(sid);
                    return Ok(user);
                }
                // Somebody was faster. The next read shows what they wrote: a conflict counts as seen.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failed("too many requests of one browser at once".into()))
    }

    /// The user's entry, from any node that has what this user has seen. A `sid` that names none is not taken over: a
    /// planted cookie would let somebody else in on the session.
    async fn load(&self) -> Result<(String, Option<Entry>), Failed> {
        let primary = GetOptions::new().consistency(Consistency::Primary);
        if let Some(sid) = &self.sid {
            // A browser that lost its `seen` may meet a node that has not heard of the session yet.
            for options in [GetOptions::new(), primary] {
                if let Some(entry) = self.kv.get_with(key(sid), options).await? {
                    return Ok((sid.clone(), Some(entry)));
                }
            }
        }
        Ok((new_sid()?, None))
    }

    fn page(&self, user: &User) -> HttpResponse {
        let name = match user.name.as_str() {
            "" => "stranger".to_owned(),
            name => escape(name),
        };
        let body = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sessions</title>\
             <p>Hello, {name}. Visits: {}.</p>\
             <form method=\"post\"><label>Your name <input name=\"name\"></label> <button>Save</button></form>\n",
            user.visits
        );
        let cookie = |name: &str, value: &str| {
            let age = LIFETIME.as_secs();
            format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax")
        };
        HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .append_header((header::CACHE_CONTROL, "no-store"))
            .append_header((
                header::SET_COOKIE,
                cookie("sid", self.sid.as_deref().unwrap_or_default()),
            ))
            .append_header((
                header::SET_COOKIE,
                cookie("seen", &self.kv.session().to_token()),
            ))
            .body(body)
    }
}

fn cookie<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let cookies = request.headers().get(header::COOKIE)?.to_str().ok()?;
    let mut pairs = cookies
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// 128 random bits: who can guess one reads somebody else's session.
fn new_sid() -> Result<String, Failed> {
    let number = getrandom::u64().and_then(|high| Ok((high, getrandom::u64()?)));
    let (high, low) = number.map_err(|error| Failed(error.to_string()))?;
    Ok(format!("{high:016x}{low:016x}"))
}

fn key(sid: &str) -> String {
    format!("web_sessions:{sid}")
}

fn is_sid(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn escape(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    escaped.replace('>', "&gt;").replace('"', "&quot;")
}

/// Why a request cannot be answered.
#[derive(Debug)]
struct Failed(String);

impl From<kvclient::Error> for Failed {
    fn from(error: kvclient::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Failed {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("a stored session does not decode: {error}"))
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl ResponseError for Failed {
    fn error_response(&self) -> HttpResponse {
        // Why is for the log alone: it names nodes and keys.
        eprintln!("{self}");
        HttpResponse::ServiceUnavailable().body("Not now; try again in a moment.\n")
    }
}
