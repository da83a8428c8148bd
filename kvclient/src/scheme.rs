//! How the nodes of a cluster are spoken to: all of them in the clear, or all of them through TLS.
//!
//! It is no part of the map: a map names nodes, and a client that has been told to use TLS uses it whatever a node says.

use std::fmt;

/// The scheme of a cluster's URLs.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::{Address, Scheme};
///
/// let node: Address = "localhost:8080".parse()?;
/// let url = node.to_url(Scheme::Https);
/// assert_eq!(url, "https://localhost:8080");
/// assert_eq!(Scheme::Http.strip(&url), None); // another scheme
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// Through TLS.
    Https,
}

impl Scheme {
    /// As it stands in front of `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// What follows `scheme://`; `None` if the text is a URL of another scheme, or none.
    pub fn strip(self, url: &str) -> Option<&str> {
        url.strip_prefix(self.as_str())?.strip_prefix("://")
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Scheme::{Http, Https};

    #[test]
    fn one_scheme_is_not_the_other() {
        assert_eq!(Https.strip("https://h:1/"), Some("h:1/"));
        assert_eq!(Http.strip("http://h:1"), Some("h:1"));
        for (scheme, url) in [
            (Http, "https://h:1"),
            (Https, "http://h:1"),
            (Https, "h:1"),
            (Http, "http:/h"),
        ] {
            assert_eq!(scheme.strip(url), None, "{scheme} {url}");
        }
    }
}
