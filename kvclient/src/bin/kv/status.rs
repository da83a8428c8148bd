//! `kv status`: how every node is doing, by its own word.
//!
//! All nodes of the newest map are asked at once for `/status`; its `state` is what `/readyz` answers with.

use futures_util::future::join_all;
use kvclient::{
    ShardMap,
    attempt::AttemptError,
    shard_map::{NodeEntry, Shard},
    wire::route,
};
use serde_json::Value;

use crate::{
    connect::Connected,
    exit::Exit,
    failure::Failure,
    nodes_say::Asker,
    out::{Format, Out},
    text::escaped,
};

const READY: &str = "ready";
const HEAD: [&str; 8] = [
    "NODE", "SHARD", "ROLE", "STATE", "DURABLE", "LAG", "MAP", "VERSION",
];

/// A node of the map, and what it says.
struct Said {
    address: String,
    shard: String,
    role: &'static str,
    status: Result<Value, AttemptError>,
}

/// Prints a line for each node; says no if one of them does not answer or is not ready.
pub(crate) async fn status(connected: &Connected, out: &mut Out) -> Result<Exit, Failure> {
    let asker = Asker::new(connected)?;
    let (seed, maps) = (connected.kv.map(), asker.maps(&connected.kv).await);
    let newest = maps.newest().filter(|map| map.version() > seed.version());
    let all = ask_all(&asker, newest.unwrap_or(&seed)).await;
    match out.format {
        Format::Json => print_json(&all, out)?,
        Format::Text => out.text(&table(&all))?,
    }
    out.flush()?;
    if out.format == Format::Text {
        troubles(&all).iter().for_each(|trouble| out.note(trouble));
    }
    Ok(match all.iter().all(Said::is_ready) {
        true => Exit::Done,
        false => Exit::No,
    })
}

async fn ask_all(asker: &Asker, map: &ShardMap) -> Vec<Said> {
    let nodes = map.shards().iter();
    let nodes = nodes.flat_map(|shard| shard.nodes().map(move |node| (shard, node)));
    join_all(nodes.map(|(shard, node)| ask(asker, shard, node))).await
}

async fn ask(asker: &Asker, shard: &Shard, node: &NodeEntry) -> Said {
    Said {
        address: node.address.to_string(),
        shard: shard.name.clone(),
        role: shard
            .role_of(&node.address)
            .map_or("", |role| role.as_str()),
        status: asker.document(&node.address, route::STATUS).await,
    }
}

impl Said {
    fn field(&self, name: &str) -> Option<&Value> {
        let value = self.status.as_ref().ok()?.get(name);
        value.filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.field(name)?.as_str()
    }

    fn is_ready(&self) -> bool {
        self.text("state") == Some(READY)
    }

    /// One word; the whole story is told below the table.
    fn state(&self) -> &'static str {
        match &self.status {
            Err(_) => "no answer",
            Ok(_) if self.is_ready() => READY,
            Ok(_) => "not ready",
        }
    }

    fn lag(&self) -> Option<String> {
        let ms = self.field("lag_ms")?.as_u64()?;
        let records = self.field("lag_records").and_then(Value::as_u64);
        Some(match (self.role, records) {
            ("primary", _) => return None,
            (_, Some(records @ 1..)) => format!("{ms} ms, {records} records"),
            _ => format!("{ms} ms"),
        })
    }

    fn row(&self) -> [String; HEAD.len()] {
        let text = |name| escaped(self.text(name).unwrap_or("-").as_bytes());
        [
            self.address.clone(),
            self.shard.clone(),
            self.text("role")
                .map_or(self.role.to_owned(), |role| escaped(role.as_bytes())),
            self.state().to_owned(),
            text("durable"),
            self.lag().unwrap_or_else(|| "-".to_owned()),
            text("map_version"),
            text("version"),
        ]
    }
}

fn print_json(all: &[Said], out: &mut Out) -> Result<(), Failure> {
    for said in all {
        out.json(|line| {
            let line = line
                .field("node", &said.address)
                .field("ready", said.is_ready());
            match &said.status {
                Ok(status) => line.field("status", status),
                Err(error) => line
                    .field("shard", &said.shard)
                    .field("role", said.role)
                    .field("error", error.to_string()),
            }
        })?;
    }
    Ok(())
}

fn table(all: &[Said]) -> String {
    let head = HEAD.map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head)
        .chain(all.iter().map(Said::row))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What does not fit into a cell: why a node is not ready, and what else is wrong with it.
fn troubles(all: &[Said]) -> Vec<String> {
    let trouble = |said: &Said| {
        let why = match &said.status {
            Err(error) => error.to_string(),
            Ok(_) if said.is_ready() => {
                return said.text("pull_trouble").map(|why| {
                    format!(
                        "{}: its last pull brought nothing: {}",
                        said.address,
                        escaped(why.as_bytes())
                    )
                });
            }
            Ok(_) => said
                .text("state")
                .unwrap_or("it does not say why")
                .to_owned(),
        };
        Some(format!("{}: {}", said.address, escaped(why.as_bytes())))
    };
    all.iter().filter_map(trouble).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(role: &'static str, status: Result<Value, AttemptError>) -> Said {
        Said {
            address: "h:1".into(),
            shard: "a".into(),
            role,
            status,
        }
    }

    #[test]
    fn a_table_for_people() {
        let primary = json!({
            "role": "primary", "state": "ready", "durable": "1.9", "lag_ms": 0, "lag_records": 0,
            "map_version": "1-ab", "version": "0.1.0",
        });
        let replica =
            json!({ "role": "replica", "state": "copying\u{1b}", "lag_ms": 12, "lag_records": 3 });
        let all = [
            said("primary", Ok(primary)),
            said("replica", Ok(replica)),
            said("replica", Err(AttemptError::TimedOut)),
        ];
        assert_eq!(
            table(&all),
            "NODE  SHARD  ROLE     STATE      DURABLE  LAG               MAP   VERSION\n\
             h:1   a      primary  ready      1.9      -                 1-ab  0.1.0\n\
             h:1   a      replica  not ready  -        12 ms, 3 records  -     -\n\
             h:1   a      replica  no answer  -        -                 -     -\n"
        );
        assert_eq!(
            troubles(&all),
            ["h:1: copying\\x1b", "h:1: no answer in time"]
        );
        assert!(all[0].is_ready() && !all[1].is_ready() && !all[2].is_ready());
    }

    #[test]
    fn nodes_that_say_something_else_are_not_ready() {
        for status in [
            json!(null),
            json!([]),
            json!({ "state": 7 }),
            json!("ready"),
        ] {
            let said = said("primary", Ok(status));
            assert!(!said.is_ready());
            assert_eq!(said.row()[3], "not ready");
        }
    }
}
