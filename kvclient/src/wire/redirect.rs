//! Where a misrouted request is sent: the `Location` of a 307, and how a client reads one.
//!
//! A node builds it only from the shard map's address and the request's own raw path and query, never from `Host`
//! or a forwarding header. A client takes only the address from it, and goes there only if the map knows it; a redirect
//! to another scheme than the one it speaks leads nowhere, so that no node can send it from TLS into the clear.

use crate::{scheme::Scheme, shard_map::Address};

/// The `Location` that sends a request to a node: raw path and query kept as they came.
pub fn location(scheme: Scheme, target: &Address, path_and_query: &str) -> String {
    let mut location = target.to_url(scheme);
    if !path_and_query.starts_with('/') {
        location.push('/');
    }
    location.push_str(path_and_query);
    location
}

/// The node that a `Location` names; `None` if it is not a plain `scheme://host:port/...` of this scheme.
pub fn target(scheme: Scheme, location: &str) -> Option<Address> {
    let rest = scheme.strip(location)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Scheme::{Http, Https};

    #[test]
    fn a_location_names_its_node() {
        let address: Address = "localhost:8081".parse().expect("address");
        for (scheme, expected) in [
            (Http, "http://localhost:8081/kv/a%2Fb?ttl=9s"),
            (Https, "https://localhost:8081/kv/a%2Fb?ttl=9s"),
        ] {
            let text = location(scheme, &address, "/kv/a%2Fb?ttl=9s");
            assert_eq!(text, expected);
            assert_eq!(target(scheme, &text), Some(address.clone()));
        }
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
            assert_eq!(target(Http, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_redirect_from_tls_into_the_clear_leads_nowhere() {
        assert_eq!(target(Https, "http://localhost:8081/kv/a"), None);
    }

    #[test]
    fn a_path_cannot_change_the_node() {
        let address: Address = "localhost:8081".parse().expect("address");
        for path in ["@evil:1/", "//evil:1/", "/\\evil", ":1@evil/"] {
            assert_eq!(
                target(Http, &location(Http, &address, path)),
                Some(address.clone()),
                "{path:?}"
            );
        }
    }
}
