//! Whose key is it? Decided before anything else about a request, from the map alone.
//!
//! A node answers only for slots of its own shard. It never proxies: it names the shard's primary, also for reads,
//! since a person who just wrote must find what he wrote. A replica never says "not found" for a slot that is not
//! its shard's.

use kvclient::{
    key::Key,
    shard_map::{Address, Role, Shard, ShardMap},
    slot::Slot,
};

/// What a request wants of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To see it.
    Read,
    /// To change it.
    Write,
}

/// What to do with a request for a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It is ours.
    Serve,
    /// It is another shard's: this is that shard's primary.
    Redirect(&'a Address),
    /// It is our shard's, but this is a replica and the request writes: this is the primary.
    ReadOnly(&'a Address),
}

/// This node's place in the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Place of its shard in [`ShardMap::shards`].
    pub shard: usize,
    /// What it is to the shard.
    pub role: Role,
}

impl Place {
    /// Finds the node at `address`.
    pub fn find(map: &ShardMap, address: &Address) -> Option<Self> {
        map.shards().iter().enumerate().find_map(|(shard, entry)| {
            Some(Self {
                shard,
                role: entry.role_of(address)?,
            })
        })
    }
}

/// The shard that a node belongs to.
pub fn own_shard<'a>(map: &'a ShardMap, place: &Place) -> &'a Shard {
    &map.shards()[place.shard]
}

/// Decides about one key.
pub fn decide<'a>(key: &Key, access: Access, map: &'a ShardMap, me: &Place) -> Decision<'a> {
    let owner = map.shard_number(Slot::of(key));
    let primary = &map.shards()[owner].primary.address;
    match (owner == me.shard, me.role, access) {
        (false, _, _) => Decision::Redirect(primary),
        (true, Role::Replica, Access::Write) => Decision::ReadOnly(primary),
        (true, Role::Replica, Access::Read) | (true, Role::Primary, _) => Decision::Serve,
    }
}

#[cfg(test)]
mod tests {
    use kvclient::shard_map::{NodeEntry, even_slots};

    use super::*;

    fn map() -> ShardMap {
        let node = |port: u16| NodeEntry {
            address: format!("h:{port}").parse().expect("address"),
            zone: None,
        };
        let shard = |idx: u16| Shard {
            name: format!("s{idx}"),
            idx,
            slots: vec![even_slots(idx, 2)],
            primary: node(10 + idx),
            replicas: vec![node(20 + idx)],
        };
        ShardMap::new(1, vec![shard(0), shard(1)]).expect("a map")
    }

    #[test]
    fn every_case() {
        let map = map();
        let address = |text: &str| text.parse::<Address>().expect("address");
        // Slot 2760 of 16,384 is the first of two shards', slot 14,287 the second's.
        let (ours, theirs) = (
            Key::new("exampleKey").expect("key"),
            Key::new(vec![0]).expect("key"),
        );
        assert_eq!(
            (
                map.shard_number(Slot::of(&ours)),
                map.shard_number(Slot::of(&theirs))
            ),
            (0, 1)
        );
        let primary = Place::find(&map, &address("h:10")).expect("in the map");
        let replica = Place::find(&map, &address("h:20")).expect("in the map");
        assert_eq!((primary.role, replica.role), (Role::Primary, Role::Replica));
        assert_eq!(Place::find(&map, &address("h:99")), None);
        let (first, second) = (address("h:10"), address("h:11"));
        for (key, access, me, decision) in [
            (&ours, Access::Read, &primary, Decision::Serve),
            (&ours, Access::Write, &primary, Decision::Serve),
            (&ours, Access::Read, &replica, Decision::Serve),
            (&ours, Access::Write, &replica, Decision::ReadOnly(&first)),
            (&theirs, Access::Read, &primary, Decision::Redirect(&second)),
            (
                &theirs,
                Access::Write,
                &primary,
                Decision::Redirect(&second),
            ),
            (&theirs, Access::Read, &replica, Decision::Redirect(&second)),
            (
                &theirs,
                Access::Write,
                &replica,
                Decision::Redirect(&second),
            ),
        ] {
            assert_eq!(
                decide(key, access, &map, me),
                decision,
                "{key} {access:?} {me:?}"
            );
        }
    }
}
