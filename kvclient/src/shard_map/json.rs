//! The map as JSON: what `GET /cluster/map` answers.
//!
//! Unknown fields are ignored, so that older clients read newer maps; everything else is checked as in a file.

use serde::{Deserialize, Serialize};

use super::{MapError, NodeEntry, Shard, ShardMap, SlotRange, normalize};

#[derive(Serialize, Deserialize)]
struct JsonMap {
    version: u64,
    #[serde(default)]
    identity: String,
    shards: Vec<JsonShard>,
}

#[derive(Serialize, Deserialize)]
struct JsonShard {
    name: String,
    idx: u16,
    slots: Vec<String>,
    primary: JsonNode,
    replicas: Vec<JsonNode>,
}

#[derive(Serialize, Deserialize)]
struct JsonNode {
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
}

/// JSON that is not a map.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or a field is missing or of another type.
    #[error("the map's JSON cannot be read: {0}")]
    Syntax(#[from] serde_json::Error),
    /// An address or a range of slots is malformed.
    #[error("the map's JSON has a bad field: {0}")]
    Field(String),
    /// The shards do not make a map.
    #[error("the map does not hold together: {0}")]
    Map(#[from] MapError),
}

/// Writes a map.
pub fn encode(map: &ShardMap) -> String {
    let node = |node: &NodeEntry| JsonNode {
        address: node.address.to_string(),
        zone: node.zone.clone(),
    };
    let shard = |shard: &Shard| JsonShard {
        name: shard.name.clone(),
        idx: shard.idx,
        slots: shard.slots.iter().map(SlotRange::to_string).collect(),
        primary: node(&shard.primary),
        replicas: shard.replicas.iter().map(node).collect(),
    };
    let json = JsonMap {
        version: map.version(),
        identity: map.identity().to_owned(),
        shards: map.shards().iter().map(shard).collect(),
    };
    serde_json::to_string(&json).expect("strings and numbers always serialise")
}

/// Reads and checks a map.
///
/// # Errors
/// [`JsonError`]: the map is not to be used; keep the one in force.
pub fn decode(text: &[u8]) -> Result<ShardMap, JsonError> {
    let json: JsonMap = serde_json::from_slice(text)?;
    let shards = json
        .shards
        .into_iter()
        .map(shard)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ShardMap::new(json.version, shards)?)
}

fn shard(json: JsonShard) -> Result<Shard, JsonError> {
    let ranges = json
        .slots
        .iter()
        .map(|text| text.parse().map_err(JsonError::Field));
    Ok(Shard {
        name: json.name,
        idx: json.idx,
        slots: normalize(ranges.collect::<Result<_, _>>()?),
        primary: node(json.primary)?,
        replicas: json
            .replicas
            .into_iter()
            .map(node)
            .collect::<Result<_, _>>()?,
    })
}

fn node(json: JsonNode) -> Result<NodeEntry, JsonError> {
    let address = json
        .address
        .parse()
        .map_err(|error: super::AddressError| JsonError::Field(error.to_string()))?;
    Ok(NodeEntry {
        address,
        zone: json.zone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"version":3,"identity":"ignored","later":1,"shards":[
        {"name":"a","idx":1,"slots":["8192-16383"],"primary":{"address":"h:2"},"replicas":[{"address":"h:4","zone":"z"}]},
        {"name":"b","idx":0,"slots":["0-100","101-8191"],"primary":{"address":"h:1"},"replicas":[]}]}"#;

    #[test]
    fn a_map_comes_back_as_it_was() {
        let map = decode(TEXT.as_bytes()).expect("a map");
        assert_eq!(map.shards()[0].slots_text(), "0-8191");
        assert_eq!(decode(encode(&map).as_bytes()).expect("a map"), map);
    }

    #[test]
    fn mistakes_are_errors() {
        for (from, to) in [
            ("h:2", "h"),
            ("8192-", "8193-"),
            ("h:4", "h:1"),
            ("\"idx\":1", "\"idx\":-1"),
            ("3,", ""),
        ] {
            assert!(
                decode(TEXT.replacen(from, to, 1).as_bytes()).is_err(),
                "{from} -> {to}"
            );
        }
    }
}
