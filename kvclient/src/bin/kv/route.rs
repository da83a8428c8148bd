//! `kv route`: who has a key, by the map.

use kvclient::Client;

use crate::{
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
};

/// Prints slot and shard of a key, and the nodes that have it. Asks nobody.
pub(crate) fn route(kv: &Client, key: &[u8], out: &mut Out) -> Result<Exit, Failure> {
    let route = kv.route(key)?;
    let map = kv.map();
    let replicas: Vec<String> = route.replicas.iter().map(ToString::to_string).collect();
    match out.format {
        Format::Json => out.json(|line| {
            line.bytes("key", key)
                .field("slot", route.slot.number())
                .field("shard", &route.shard)
                .field("primary", route.primary.to_string())
                .field("replicas", &replicas)
                .field("map_version", map.identity())
        })?,
        Format::Text => out.text(&format!(
            "slot      {}\nshard     {}\nprimary   {}\nreplicas  {}\nmap       {}\n",
            route.slot,
            route.shard,
            route.primary,
            if replicas.is_empty() {
                "-".to_owned()
            } else {
                replicas.join(" ")
            },
            map.identity(),
        ))?,
    }
    Ok(Exit::Done)
}
