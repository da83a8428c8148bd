//! Where a misrouted request is sent: the `Location` of a 307, and how a client reads one.
//!
//! A node builds it only from the shard map's address and the request's own raw path and query, never from `Host`
//! or a forwarding header. A client takes only the address from it, and goes there only if the map knows it.

use crate::shard_map::Address;

/// The `Location` that sends a request to a node: raw path and query kept as they came.
pub fn location(target: &Address, path_and_query: &str) -> String {
    let mut location = target.to_url();
    if !path_and_query.starts_with('/') {
        location.push('/');
    }
    location.push_str(path_and_query);
    location
}

/// The node that a `Location` names; `None` if it is not a plain `http://host:port/...`.
pub fn target(location: &str) -> Option<Address> {
    let rest = location.strip_prefix("http://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_names_its_node() {
        let address: Address = "localhost:8081".parse().expect("address");
        let text = location(&address, "/kv/a%2Fb?ttl=9s");
        assert_eq!(text, "http://localhost:8081/kv/a%2Fb?ttl=9s");
        assert_eq!(target(&text), Some(address));
    }

    #[test]
    fn nothing_else_is_a_target() {
        for bad in [
            "",
            "/kv/a",
            "//evil:80/",
            "https://h:1/",
            "http://h/",
            "http://u@h:1/",
            "http://h:1@e:2/",
            "http://h:0/",
        ] {
            assert_eq!(target(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_path_cannot_change_the_node() {
        let address: Address = "localhost:8081".parse().expect("address");
        for path in ["@evil:1/", "//evil:1/", "/\\evil", ":1@evil/"] {
            assert_eq!(
                target(&location(&address, path)),
                Some(address.clone()),
                "{path:?}"
            );
        }
    }
}
