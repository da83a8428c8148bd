//! The shard map: which slots belong to which shard, and where its nodes are.
//!
//! A [`ShardMap`] is an immutable snapshot with a version; a newer one replaces it whole. Its identity is
//! `version-hash`, the hash being that of its canonical form, so that two maps with one version and different
//! contents are noticed. Building one checks everything: slots without gap or overlap, names, numbers and
//! addresses used once. Reading `sharding.toml` is [`toml`]'s work, the JSON of `/cluster/map` [`json`]'s.

mod fields;
pub mod json;
pub mod toml;

use std::{fmt, str::FromStr};

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    key::Key,
    scheme::Scheme,
    slot::{SLOT_COUNT, Slot},
};

/// Where a node is reached: `host:port`.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::{Address, Scheme};
///
/// let node: Address = "localhost:8080".parse()?;
/// assert_eq!((node.host(), node.port()), ("localhost", 8080));
/// assert_eq!(node.to_url(Scheme::Https), "https://localhost:8080");
/// assert!("[::1]:8080".parse::<Address>().is_ok());
/// assert!("localhost".parse::<Address>().is_err()); // no port
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Text that is not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an address: {problem}; write host:port, for example localhost:8080 or [::1]:8080"
)]
pub struct AddressError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Address {
    /// The host: a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Base of this node's URLs, without a slash at its end.
    pub fn to_url(&self, scheme: Scheme) -> String {
        format!("{scheme}://{self}")
    }

    /// The host as a name or a bare IP address: without the brackets of an IPv6 address.
    pub fn bare_host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// A host and a port, nothing else: no scheme, user, path or space. A trailing dot or upper case in a name is
    /// kept out so that one node has one spelling.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = |problem| AddressError {
            text: text.to_owned(),
            problem,
        };
        if text.contains("://") {
            return Err(error("leave out the scheme"));
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| error("the port is missing"))?;
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error("the port is not a number"));
        }
        let port = port
            .parse()
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(|| error("the port is not 1 to 65535"))?;
        check_host(host).map_err(error)?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if let Some(inner) = host.strip_prefix('[') {
        let ip = inner.strip_suffix(']').ok_or("the bracket is not closed")?;
        return ip
            .parse::<std::net::Ipv6Addr>()
            .map(drop)
            .map_err(|_| "no IPv6 address in the brackets");
    }
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.' || b == b'_';
    match host {
        "" => Err("the host is missing"),
        _ if host.contains(':') => Err("an IPv6 address needs brackets"),
        _ if host.len() > 253 => Err("the host is longer than 253 bytes"),
        _ if !host.bytes().all(allowed) => Err("a host has only a-z, 0-9, '-', '_' and '.'"),
        _ if host.split('.').any(str::is_empty) => Err("the host has an empty label"),
        _ => Ok(()),
    }
}

/// Slots `first` to `last`, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotRange {
    /// The lowest slot.
    pub first: u16,
    /// The highest slot.
    pub last: u16,
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for SlotRange {
    type Err = String;

    /// `0-5460` or `9000`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits
                .then(|| part.parse::<u16>().ok())
                .flatten()
                .filter(|&slot| slot < SLOT_COUNT)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            (Some(_), Some(_)) => Err(format!(
                "{text:?} runs backwards; write the lower slot first"
            )),
            _ => Err(format!(
                "{text:?} is not a range of slots; write 0-5460 or 9000, slots being 0 to 16383"
            )),
        }
    }
}

/// A node's place in the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// Where it is reached.
    pub address: Address,
    /// Where it stands, for clients that prefer near nodes.
    pub zone: Option<String>,
}

/// What a node is to its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes the shard's writes.
    Primary,
    /// Pulls the primary's log, serves reads, refuses writes.
    Replica,
}

impl Role {
    /// `primary` or `replica`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of slots, served by one primary and its replicas.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::shard_map::{Role, toml};
///
/// let text = "[[shards]]\nname = \"all\"\nidx = 0\naddress = \"a:1\"\nreplicas = [\"b:1\"]\n";
/// let map = toml::parse(text, "sharding.toml")?;
/// let shard = &map.shards()[0];
/// let nodes: Vec<String> = shard.nodes().map(|node| node.address.to_string()).collect();
/// assert_eq!(nodes, ["a:1", "b:1"]); // the primary first
/// assert_eq!(shard.role_of(&"b:1".parse()?), Some(Role::Replica));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub name: String,
    /// Its number.
    pub idx: u16,
    /// Its slots: sorted, merged, not empty.
    pub slots: Vec<SlotRange>,
    /// The node that takes its writes.
    pub primary: NodeEntry,
    /// The nodes that copy the primary.
    pub replicas: Vec<NodeEntry>,
}

impl Shard {
    /// All its nodes, the primary first.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeEntry> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// What the node at an address is to this shard.
    pub fn role_of(&self, address: &Address) -> Option<Role> {
        match self.nodes().position(|node| node.address == *address)? {
            0 => Some(Role::Primary),
            _ => Some(Role::Replica),
        }
    }

    /// Its slots as text: `0-5460,9000`.
    pub fn slots_text(&self) -> String {
        let ranges: Vec<String> = self.slots.iter().map(SlotRange::to_string).collect();
        ranges.join(",")
    }
}

/// Why shards do not make a map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Not one shard.
    #[error("the map has no shards")]
    NoShards,
    /// More shards than slots.
    #[error("the map has {0} shards, more than there are slots")]
    TooManyShards(usize),
    /// Two shards of one name.
    #[error("the name {name:?} is used twice")]
    DuplicateName {
        /// The name.
        name: String,
        /// The second shard's place in the list.
        shard: usize,
    },
    /// Two shards of one number.
    #[error("idx {idx} is used twice")]
    DuplicateIdx {
        /// The number.
        idx: u16,
        /// The second shard's place in the list.
        shard: usize,
    },
    /// Two nodes at one address.
    #[error("the address {address} is used twice; each node has its own")]
    DuplicateAddress {
        /// The address.
        address: Address,
        /// The second shard's place in the list.
        shard: usize,
    },
    /// Two shards own a slot.
    #[error("slot {slot} belongs to shard {first:?} already")]
    Overlap {
        /// The lowest such slot.
        slot: u16,
        /// The shard that has it.
        first: String,
        /// The second shard's place in the list.
        shard: usize,
    },
    /// A slot belongs to nobody.
    #[error("slots {0} belong to no shard; together the shards own exactly 0-16383")]
    Gap(SlotRange),
}

/// Slots -> shards -> addresses, at one version.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::{Key, shard_map::{Role, toml}};
///
/// let text = "
///     version = 2
///     [[shards]]
///     name = \"west\"
///     idx = 0
///     address = \"10.0.0.1:8080\"
///     replicas = [\"10.0.0.2:8080\"]
///     [[shards]]
///     name = \"east\"
///     idx = 1
///     address = \"10.0.0.3:8080\"
/// ";
/// let map = toml::parse(text, "sharding.toml")?;
/// assert_eq!((map.version(), map.shards().len(), map.nodes().count()), (2, 2, 3));
/// assert!(map.identity().starts_with("2-")); // and then a hash of the rest
/// assert_eq!(map.shards()[0].slots_text(), "0-8191"); // nobody says otherwise: even parts
/// let owner = map.shard_of(&Key::new("user:1")?);
/// let (found, role) = map.find(&owner.primary.address).expect("it is in there");
/// assert_eq!((found, role), (owner, Role::Primary));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ShardMap {
    version: u64,
    shards: Vec<Shard>,
    /// Place in `shards` of each slot's shard: a lookup is one load.
    owner: Box<[u16]>,
    identity: String,
}

impl ShardMap {
    /// Checks shards and makes a map of them; they are ordered by idx.
    ///
    /// # Errors
    /// [`MapError`] names the first mistake.
    pub fn new(version: u64, mut shards: Vec<Shard>) -> Result<Self, MapError> {
        check_unique(&shards)?;
        let owner = owners(&shards)?;
        let mut order: Vec<usize> = (0..shards.len()).collect();
        order.sort_by_key(|&at| shards[at].idx);
        let mut place = vec![0_u16; shards.len()];
        for (new, &old) in order.iter().enumerate() {
            place[old] = u16::try_from(new).expect("no more shards than slots");
        }
        let owner = owner
            .into_iter()
            .map(|old| place[usize::from(old)])
            .collect();
        shards.sort_by_key(|shard| shard.idx);
        let identity = format!("{version}-{:016x}", xxh3_64(canonical(&shards).as_bytes()));
        Ok(Self {
            version,
            shards,
            owner,
            identity,
        })
    }

    /// Grows with each change of the map.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// `version-hash`: names this map and its contents.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The shards by idx.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Place in [`Self::shards`] of the shard that owns a slot.
    pub fn shard_number(&self, slot: Slot) -> usize {
        usize::from(self.owner[usize::from(slot.number())])
    }

    /// The shard that owns a slot.
    pub fn shard_of_slot(&self, slot: Slot) -> &Shard {
        &self.shards[self.shard_number(slot)]
    }

    /// The shard that owns a key.
    pub fn shard_of(&self, key: &Key) -> &Shard {
        self.shard_of_slot(Slot::of(key))
    }

    /// The shard and role of the node at an address.
    pub fn find(&self, address: &Address) -> Option<(&Shard, Role)> {
        self.shards
            .iter()
            .find_map(|shard| Some((shard, shard.role_of(address)?)))
    }

    /// All nodes of all shards, each shard's primary first.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeEntry> {
        self.shards.iter().flat_map(Shard::nodes)
    }
}

impl fmt::Debug for ShardMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardMap")
            .field("identity", &self.identity)
            .field("shards", &self.shards)
            .finish()
    }
}

/// The slots of shard number `idx` of `count` where nobody says otherwise: all `s` with
/// `floor(s * count / 16384) == idx`.
pub fn even_slots(idx: u16, count: u16) -> SlotRange {
    let first_of = |idx: u16| (u32::from(idx) * u32::from(SLOT_COUNT)).div_ceil(u32::from(count));
    let slot = |slot: u32| u16::try_from(slot).expect("at most 16384 for idx <= count");
    SlotRange {
        first: slot(first_of(idx)),
        last: slot(first_of(idx + 1) - 1),
    }
}

/// Sorts ranges and joins neighbours; overlaps stay visible.
pub(crate) fn normalize(mut ranges: Vec<SlotRange>) -> Vec<SlotRange> {
    ranges.sort();
    let mut merged: Vec<SlotRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.last + 1 == range.first => last.last = range.last,
            _ => merged.push(range),
        }
    }
    merged
}

fn check_unique(shards: &[Shard]) -> Result<(), MapError> {
    if shards.is_empty() {
        return Err(MapError::NoShards);
    }
    if shards.len() > usize::from(SLOT_COUNT) {
        return Err(MapError::TooManyShards(shards.len()));
    }
    let mut addresses = std::collections::HashSet::new();
    for (at, shard) in shards.iter().enumerate() {
        if shards[..at].iter().any(|other| other.name == shard.name) {
            return Err(MapError::DuplicateName {
                name: shard.name.clone(),
                shard: at,
            });
        }
        if shards[..at].iter().any(|other| other.idx == shard.idx) {
            return Err(MapError::DuplicateIdx {
                idx: shard.idx,
                shard: at,
            });
        }
        if let Some(node) = shard.nodes().find(|node| !addresses.insert(&node.address)) {
            return Err(MapError::DuplicateAddress {
                address: node.address.clone(),
                shard: at,
            });
        }
    }
    Ok(())
}

fn owners(shards: &[Shard]) -> Result<Vec<u16>, MapError> {
    let mut owner: Vec<Option<u16>> = vec![None; usize::from(SLOT_COUNT)];
    for (at, shard) in shards.iter().enumerate() {
        let number = u16::try_from(at).expect("no more shards than slots");
        for slot in shard
            .slots
            .iter()
            .flat_map(|range| range.first..=range.last)
        {
            if let Some(first) = owner[usize::from(slot)].replace(number) {
                let first = shards[usize::from(first)].name.clone();
                return Err(MapError::Overlap {
                    slot,
                    first,
                    shard: at,
                });
            }
        }
    }
    if let Some(first) = owner.iter().position(Option::is_none) {
        let len = owner[first..]
            .iter()
            .take_while(|slot| slot.is_none())
            .count();
        let slot = |at: usize| u16::try_from(at).expect("slots are below 16384");
        return Err(MapError::Gap(SlotRange {
            first: slot(first),
            last: slot(first + len - 1),
        }));
    }
    Ok(owner.into_iter().flatten().collect())
}

/// The map as text in one form only: a line per shard, fields separated by tabs, lists in order.
fn canonical(shards: &[Shard]) -> String {
    let node = |node: &NodeEntry| {
        format!(
            "{}@{}",
            node.address,
            node.zone.as_deref().unwrap_or_default()
        )
    };
    let mut text = String::new();
    for shard in shards {
        let nodes: Vec<String> = shard.nodes().map(node).collect();
        text += &format!(
            "{}\t{:?}\t{}\t{}\n",
            shard.idx,
            shard.name,
            shard.slots_text(),
            nodes.join("\t")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(address: &str) -> NodeEntry {
        NodeEntry {
            address: address.parse().expect("address"),
            zone: None,
        }
    }

    fn shard(idx: u16, slots: SlotRange) -> Shard {
        Shard {
            name: format!("shard{idx}"),
            idx,
            slots: vec![slots],
            primary: node(&format!("localhost:{}", 8080 + idx)),
            replicas: vec![node(&format!("localhost:{}", 8180 + idx))],
        }
    }

    #[test]
    fn even_shares_are_those_of_the_formula() {
        for count in [1_u16, 2, 3, 5, 7, 100, 16_384] {
            for idx in 0..count {
                let range = even_slots(idx, count);
                for slot in [range.first, range.last] {
                    assert_eq!(
                        u32::from(slot) * u32::from(count) / 16_384,
                        u32::from(idx),
                        "{idx} of {count}"
                    );
                }
            }
            assert_eq!(even_slots(count - 1, count).last, SLOT_COUNT - 1);
        }
        assert_eq!(
            even_slots(0, 3),
            SlotRange {
                first: 0,
                last: 5461
            }
        );
    }

    #[test]
    fn maps_know_their_shards_in_any_order() {
        let shards: Vec<Shard> = (0..3)
            .rev()
            .map(|idx| shard(idx, even_slots(idx, 3)))
            .collect();
        let map = ShardMap::new(4, shards).expect("a map");
        for (number, shard) in map.shards().iter().enumerate() {
            assert_eq!(usize::from(shard.idx), number);
            let slot = Slot::new(shard.slots[0].last).expect("slot");
            assert_eq!(map.shard_of_slot(slot), shard);
        }
        let found = map
            .find(&"localhost:8181".parse().expect("address"))
            .expect("there");
        assert_eq!((found.0.idx, found.1), (1, Role::Replica));
        assert!(map.identity().starts_with("4-"));
    }

    #[test]
    fn contents_change_the_identity() {
        let one = ShardMap::new(1, vec![shard(0, even_slots(0, 1))]).expect("a map");
        let mut moved = shard(0, even_slots(0, 1));
        moved.replicas.clear();
        let other = ShardMap::new(1, vec![moved]).expect("a map");
        assert_ne!(one.identity(), other.identity());
        assert_eq!(one.identity(), "1-4cdb73d89470357f");
    }

    #[test]
    fn addresses() {
        for good in ["localhost:8080", "127.0.0.1:1", "[::1]:65535", "a-b.c_d:80"] {
            assert_eq!(good.parse::<Address>().expect(good).to_string(), good);
        }
        for bad in [
            "",
            "localhost",
            ":80",
            "a:0",
            "a:65536",
            "a:-1",
            "a:+1",
            "http://a:1",
            "a/b:1",
            "a@b:1",
            "::1:80",
            "[::1:80",
            "a..b:1",
            "A:1",
            "a b:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }
}
