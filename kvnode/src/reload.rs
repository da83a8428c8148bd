//! A map read anew (SIGHUP): what may change while a node runs, and what may not. Pure, but for the swap.

use std::sync::Arc;

use kvclient::shard_map::{Address, ShardMap};

use crate::{ownership::Place, service::Service};

impl Service {
    /// Puts a newer map in force and returns its identity.
    ///
    /// # Errors
    /// Why not; the old map stays in force.
    pub fn reload(&self, map: ShardMap) -> Result<String, String> {
        check(&self.map.load(), &map, &self.config.address)?;
        let identity = map.identity().to_owned();
        self.map.store(Arc::new(map));
        // Who counts as a replica may have changed.
        self.progress.wake_waiting();
        Ok(identity)
    }
}

/// Addresses, zones and replica lists may change; slots, names and this node's role may not.
fn check(old: &ShardMap, new: &ShardMap, me: &Address) -> Result<(), String> {
    if new.version() < old.version() {
        return Err(format!(
            "its version is {}, older than {} in force",
            new.version(),
            old.version()
        ));
    }
    if new.version() == old.version() && new.identity() != old.identity() {
        return Err(format!(
            "it differs, but its version is {} as before; raise the version",
            new.version()
        ));
    }
    let names = |map: &ShardMap| -> Vec<(u16, String, String)> {
        map.shards()
            .iter()
            .map(|shard| (shard.idx, shard.name.clone(), shard.slots_text()))
            .collect()
    };
    if names(old) != names(new) {
        return Err(
            "it changes the shards, their names or slots; that would hide or strand data".into(),
        );
    }
    match (Place::find(old, me), Place::find(new, me)) {
        (Some(before), Some(after)) if before == after => Ok(()),
        (_, None) => Err(format!("{me} is no longer in it; stop this node instead")),
        _ => Err(format!(
            "it changes the role of {me}; stop the node and start it with --promote or --rejoin"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(version: u64, primary: &str, replica: &str, name: &str) -> ShardMap {
        let text = format!(
            "version = {version}\n[[shards]]\nname = \"{name}\"\nidx = 0\naddress = \"{primary}\"\nreplica = \"{replica}\"\n"
        );
        kvclient::shard_map::toml::parse(&text, "map.toml").expect("a map")
    }

    #[test]
    fn what_may_change() {
        let old = map(2, "h:1", "h:2", "a");
        let me: Address = "h:1".parse().expect("address");
        for (new, refusal) in [
            (map(2, "h:1", "h:2", "a"), None),
            (map(3, "h:1", "h:9", "a"), None),
            (map(1, "h:1", "h:2", "a"), Some("older")),
            (map(2, "h:1", "h:9", "a"), Some("raise the version")),
            (map(3, "h:1", "h:2", "b"), Some("names or slots")),
            (map(3, "h:2", "h:1", "a"), Some("role")),
            (map(3, "h:8", "h:9", "a"), Some("no longer in it")),
        ] {
            match (check(&old, &new, &me), refusal) {
                (Ok(()), None) => {}
                (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
                other => panic!("{new:?}: {other:?}"),
            }
        }
    }
}
