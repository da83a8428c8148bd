//! Who makes histories: callers that ask one op after the other of one key, through kvclient or by plain HTTP.

use std::time::Duration;

use bytes::Bytes;
use kvclient::{
    Client, Consistency, DeleteOptions, Error, ErrorKind, GetOptions, Outcome, PutOptions,
    position::Position,
};

use super::{
    history::{Ended, Recorder},
    register::{Asked, OnlyIf, Told},
};
use crate::support::{
    cluster::Node,
    eventually,
    http::{self, Answer, Ask},
    library::library,
};

/// Puts are this far apart, so that increments of one never come to another.
const VALUE_STEP: i64 = 10_000;

/// How a caller reaches the node.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Client(Client, Consistency),
    /// `http://host:port`, and a client that gives up soon.
    Http(String, reqwest::Client),
}

/// A plain HTTP client that waits so long for an answer.
pub(super) fn http_client(within: Duration) -> reqwest::Client {
    library().timeout(within).build().expect("an HTTP client")
}

/// One who asks.
pub(super) struct Caller<'a> {
    pub(super) node: &'a Node,
    pub(super) key: &'a str,
    pub(super) recorder: &'a Recorder,
    pub(super) way: Way,
    pub(super) rng: fastrand::Rng,
    /// Number of the next value; values of different callers of a key differ.
    pub(super) next: i64,
    pub(super) callers: i64,
    /// The newest entry that it knows of.
    pub(super) known: Option<(i64, Position)>,
}

impl Caller<'_> {
    /// Asks until the key's history has so many answers.
    pub(super) async fn run(mut self, ops: usize) {
        while self.recorder.answered() < ops {
            let asked = self.choose();
            let op = self.recorder.called(asked);
            let ended = self.ask(asked).await;
            self.recorder.ended(op, ended);
            match ended {
                Ended::Told(Told::Found { value, at }) => self.known = Some((value, at)),
                Ended::NotApplied | Ended::Told(Told::Unknown) => self.wait_for_node().await,
                Ended::Told(_) => {}
            }
        }
    }

    async fn wait_for_node(&self) {
        eventually("the node answers again", async || {
            let answer = self.node.try_send(Ask::new("GET", "/readyz")).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    fn choose(&mut self) -> Asked {
        let is_known = match self.known {
            Some((value, at)) => OnlyIf::Is { value, at },
            None => OnlyIf::Absent,
        };
        match self.rng.usize(..100) {
            0..40 => Asked::Get,
            40..58 => self.put(OnlyIf::Always),
            58..66 => self.put(OnlyIf::Absent),
            66..80 => self.put(is_known),
            80..84 if is_known != OnlyIf::Absent => Asked::Delete { only_if: is_known },
            80..88 => Asked::Delete {
                only_if: OnlyIf::Always,
            },
            _ => Asked::Incr,
        }
    }

    fn put(&mut self, only_if: OnlyIf) -> Asked {
        self.next += self.callers;
        let value = self.next * VALUE_STEP;
        Asked::Put { value, only_if }
    }

    async fn ask(&self, asked: Asked) -> Ended {
        match &self.way {
            Way::Client(client, consistency) => {
                let told = through(client, *consistency, self.key, asked).await;
                told.unwrap_or_else(|error| failed(asked, &error))
            }
            Way::Http(base, client) => {
                let ask = plain(self.key, asked);
                match http::send(client, base, ask).await {
                    Ok(answer) => answered(asked, &answer),
                    Err(error) if error.is_connect() => Ended::NotApplied,
                    Err(_) => Ended::Told(Told::Unknown),
                }
            }
        }
    }
}

async fn through(
    client: &Client,
    consistency: Consistency,
    key: &str,
    asked: Asked,
) -> Result<Ended, Error> {
    Ok(Ended::Told(match asked {
        Asked::Get => {
            let options = GetOptions::new().consistency(consistency);
            match client.get_with(key, options).await? {
                Some(entry) => Told::Found {
                    value: number(&entry.value),
                    at: entry.position,
                },
                None => Told::Absent,
            }
        }
        Asked::Put { value, only_if } => {
            let options = match only_if {
                OnlyIf::Always => PutOptions::new(),
                OnlyIf::Absent => PutOptions::new().if_absent(),
                OnlyIf::Is { at, .. } => PutOptions::new().if_match(at),
            };
            let at = client.put_with(key, value.to_string(), options).await?;
            Told::Done {
                at: Some(at.position),
            }
        }
        Asked::Delete { only_if } => {
            let options = match only_if {
                OnlyIf::Is { at, .. } => DeleteOptions::new().if_match(at),
                OnlyIf::Always | OnlyIf::Absent => DeleteOptions::new(),
            };
            match client.delete_with(key, options).await? {
                Some(at) => Told::Done {
                    at: Some(at.position),
                },
                None => Told::Absent,
            }
        }
        Asked::Incr => Told::Counted {
            value: client.incr(key, 1).await?,
            at: None,
        },
    }))
}

/// An error says whether the write may have been done; of a read it says nothing.
fn failed(asked: Asked, error: &Error) -> Ended {
    match (error.kind(), error.outcome()) {
        (ErrorKind::Conflict, Outcome::NotApplied) => Ended::Told(Told::Refused {
            found: error.position(),
        }),
        (ErrorKind::Unavailable, Outcome::NotApplied) => Ended::NotApplied,
        (ErrorKind::Unavailable | ErrorKind::Conflict, Outcome::Unknown) => {
            Ended::Told(Told::Unknown)
        }
        _ => panic!("{asked:?}: {error}"),
    }
}

/// The op as a person with curl asks it.
fn plain(key: &str, asked: Asked) -> Ask {
    let uri = format!("/kv/{key}");
    let only_if = |ask: Ask, only_if| match only_if {
        OnlyIf::Always => ask,
        OnlyIf::Absent => ask.header("if-none-match", "*"),
        OnlyIf::Is { at, .. } => ask.header("if-match", at.to_etag()),
    };
    match asked {
        Asked::Get => Ask::new("GET", uri),
        Asked::Put {
            value,
            only_if: condition,
        } => only_if(Ask::new("PUT", uri).body(value.to_string()), condition),
        Asked::Delete { only_if: condition } => only_if(Ask::new("DELETE", uri), condition),
        Asked::Incr => Ask::new("POST", format!("{uri}?incr=1")),
    }
}

fn answered(asked: Asked, answer: &Answer) -> Ended {
    let etag = || {
        let etag = answer.header("etag");
        etag.map(|text| Position::from_etag(text).expect("an ETag is a position"))
    };
    let not_applied = answer.header("kv-applied") == Some("no");
    Ended::Told(match (asked, answer.status) {
        (Asked::Get, 200) => Told::Found {
            value: number(&answer.body),
            at: etag().expect("an entry has an ETag"),
        },
        (Asked::Get | Asked::Delete { .. }, 404) => Told::Absent,
        (Asked::Put { .. } | Asked::Delete { .. }, 204) => Told::Done {
            at: Some(answer.position()),
        },
        (Asked::Incr, 200) => Told::Counted {
            value: number(&answer.body),
            at: Some(answer.position()),
        },
        (Asked::Put { .. } | Asked::Delete { .. }, 412) => Told::Refused { found: etag() },
        (Asked::Get, 503) => return Ended::NotApplied,
        (_, 503) if not_applied => return Ended::NotApplied,
        (_, 503 | 504) => Told::Unknown,
        (asked, status) => panic!("{asked:?}: {status} {}", answer.text()),
    })
}

fn number(value: &Bytes) -> i64 {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok())
        .expect("all values are numbers")
}
