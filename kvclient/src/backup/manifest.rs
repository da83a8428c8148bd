//! What a backup holds: `backup.json`, written last, so that what it names is there.
//!
//! One object: the shards, how far each reaches, and every file with its length and CRC32C. JSON, because people and
//! scripts look into it (`jq .shards[].last`). Its own checksum stands in `crc32c`, over the object without it as
//! serde writes it, so that a changed figure is noticed. Checksums are against damage, not against forgery.

use serde::{Deserialize, Serialize};

use crate::{
    position::{Lineage, Position},
    shard_map::{Shard, ShardMap},
    wire::log::Link,
};

/// The layout that this version writes and reads.
pub const FORMAT: u32 = 1;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Identity of the shard map when it was begun.
    pub map_version: String,
    /// How many shards that map has. Fewer in `shards`: it is not whole.
    pub shard_count: u16,
    /// The shards, in the order of their numbers.
    pub shards: Vec<ShardBackup>,
    /// CRC32C of all the rest, 8 hex digits.
    pub crc32c: String,
}

/// One shard's snapshot, and the log behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardBackup {
    /// Its number in the map.
    pub idx: u16,
    /// Its name.
    pub name: String,
    /// Its slots.
    pub slots: String,
    /// History of its log, as 32 hex digits.
    #[serde(with = "history_text")]
    pub history: u128,
    /// Reigns up to the end, as in a handshake.
    #[serde(with = "lineage_text")]
    pub lineage: Lineage,
    /// The earliest state in it: the end of the snapshot.
    #[serde(with = "position_text")]
    pub first: Position,
    /// Shard time there, Unix milliseconds.
    pub first_time_ms: u64,
    /// The latest state in it: the end of its log.
    #[serde(with = "position_text")]
    pub last: Position,
    /// Header CRC of the last frame, which the next one must name.
    pub last_crc: u32,
    /// Every write acknowledged up to this shard time is in it, Unix milliseconds.
    pub complete_until_ms: u64,
    /// Entries in the snapshot.
    pub entries: u64,
    /// Where in the snapshot file its frames begin, in bytes.
    pub frames_at: u64,
    /// The snapshot, as it came.
    pub snapshot: FileEntry,
    /// The frames behind it, as they came, oldest first.
    pub log: Vec<FileEntry>,
}

/// A file of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the shard's directory.
    pub name: String,
    /// Its length. What stands behind that is the rest of an interrupted run and counts for nothing.
    pub bytes: u64,
    /// CRC32C of so many bytes.
    pub crc32c: u32,
}

impl Manifest {
    /// A manifest without shards.
    pub fn new(map_version: String, shard_count: u16) -> Self {
        Self {
            format: FORMAT,
            map_version,
            shard_count,
            shards: Vec::new(),
            crc32c: String::new(),
        }
    }

    /// Whether every shard of the map is there.
    pub fn is_whole(&self) -> bool {
        self.shards.len() == usize::from(self.shard_count)
    }

    /// A shard by its number.
    pub fn shard(&self, idx: u16) -> Option<&ShardBackup> {
        self.shards.iter().find(|shard| shard.idx == idx)
    }

    /// Puts a shard in the place of what was known of it.
    pub fn set(&mut self, shard: ShardBackup) {
        self.shards.retain(|other| other.idx != shard.idx);
        self.shards.push(shard);
        self.shards.sort_by_key(|shard| shard.idx);
    }

    /// The text of the file.
    pub fn encode(&self) -> Vec<u8> {
        let sealed = Self {
            crc32c: self.checksum(),
            ..self.clone()
        };
        let mut text = serde_json::to_vec_pretty(&sealed).expect("texts and numbers become JSON");
        text.push(b'\n');
        text
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            let format = manifest.format;
            return Err(format!(
                "it has format {format}, this version reads {FORMAT}"
            ));
        }
        if manifest.checksum() != manifest.crc32c {
            return Err("its checksum is wrong: it was damaged or changed".to_owned());
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks that its shards are those of a map.
    ///
    /// # Errors
    /// What differs.
    pub fn check_map(&self, map: &ShardMap) -> Result<(), String> {
        let there = map.shards().len();
        if usize::from(self.shard_count) != there {
            let count = self.shard_count;
            return Err(format!("it has {count} shards, this cluster has {there}"));
        }
        for ShardBackup {
            idx, name, slots, ..
        } in &self.shards
        {
            let mut shards = map.shards().iter();
            let is_it = |shard: &Shard| {
                (shard.idx, &shard.name, &shard.slots_text()) == (*idx, name, slots)
            };
            if !shards.any(is_it) {
                return Err(format!(
                    "its shard {idx} is {name} with slots {slots}, which this cluster does not have"
                ));
            }
        }
        Ok(())
    }

    fn checksum(&self) -> String {
        let bare = Self {
            crc32c: String::new(),
            ..self.clone()
        };
        let text = serde_json::to_vec(&bare).expect("texts and numbers become JSON");
        format!("{:08x}", crc32c::crc32c(&text))
    }

    /// What a right checksum does not say.
    fn check(&self) -> Result<(), String> {
        let is_sorted = self.shards.windows(2).all(|two| two[0].idx < two[1].idx);
        if !is_sorted || self.shards.len() > usize::from(self.shard_count) {
            return Err("its shards are not one of each".to_owned());
        }
        let mut files = self.shards.iter().flat_map(ShardBackup::files);
        match files.find(|file| !is_plain(&file.name)) {
            Some(file) => Err(format!("{:?} is no name of a file", file.name)),
            None => Ok(()),
        }
    }
}

impl ShardBackup {
    /// Its files, the snapshot first.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        std::iter::once(&self.snapshot).chain(&self.log)
    }

    /// What the next frame has to follow.
    pub fn end(&self) -> Link {
        Link {
            position: self.last,
            crc: self.last_crc,
        }
    }
}

/// Nothing that leads out of the directory.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

mod position_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::position::Position;

    pub(super) fn serialize<S: Serializer>(at: &Position, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Position, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

mod history_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(history: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{history:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let history = is_hex
            .then(|| u128::from_str_radix(&text, 16).ok())
            .flatten();
        history.ok_or_else(|| D::Error::custom("a history has 32 hex digits"))
    }
}

mod lineage_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::{
        position::Lineage,
        wire::log::{lineage_from_text, lineage_to_text},
    };

    pub(super) fn serialize<S: Serializer>(lineage: &Lineage, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&lineage_to_text(lineage))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Lineage, D::Error> {
        let text = String::deserialize(from)?;
        lineage_from_text(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Reign;

    pub(super) fn manifest() -> Manifest {
        let mut lineage = Lineage::new();
        let reign = Reign {
            epoch: 1,
            first_seq: 1,
            reign_id: 9,
        };
        lineage.push(reign).expect("the first");
        let file = |name: &str| FileEntry {
            name: name.to_owned(),
            bytes: 77,
            crc32c: 5,
        };
        let mut manifest = Manifest::new("1-ab".to_owned(), 1);
        manifest.set(ShardBackup {
            idx: 0,
            name: "s0".to_owned(),
            slots: "0-16383".to_owned(),
            history: 5,
            lineage,
            first: Position::new(1, 4),
            first_time_ms: 6,
            last: Position::new(1, 9),
            last_crc: 7,
            complete_until_ms: 8,
            entries: 2,
            frames_at: 70,
            snapshot: file("snapshot-1.4"),
            log: vec![file("log-5")],
        });
        manifest
    }

    #[test]
    fn a_manifest_comes_back() {
        let read = Manifest::decode(&manifest().encode()).expect("as written");
        assert_eq!(read.shards, manifest().shards);
        assert!(read.is_whole());
        // Written again it is the same file.
        assert_eq!(read.encode(), manifest().encode());
    }

    #[test]
    fn cut_anywhere_it_is_no_manifest() {
        let text = manifest().encode();
        for len in 0..text.len() - 2 {
            assert!(Manifest::decode(&text[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_changed_byte_changes_nothing_or_is_refused() {
        let text = manifest().encode();
        for at in 0..text.len() {
            for flip in [1, 2, 16, 128] {
                let mut changed = text.clone();
                changed[at] ^= flip;
                if let Ok(read) = Manifest::decode(&changed) {
                    assert_eq!(read.shards, manifest().shards, "byte {at}");
                }
            }
        }
    }

    #[test]
    fn names_do_not_lead_out_of_the_directory() {
        for name in ["../x", "/etc/x", "a/b", ".x", "", "a\\b"] {
            let mut bad = manifest();
            bad.shards[0].snapshot.name = name.to_owned();
            let error = Manifest::decode(&bad.encode()).expect_err(name);
            assert!(error.contains("no name of a file"), "{error}");
        }
    }
}
