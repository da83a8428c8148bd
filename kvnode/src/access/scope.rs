//! The kinds of rights that a token can carry.

use std::fmt;

/// One kind of right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reads values, scans, watches, and the node's state.
    Read,
    /// Changes entries.
    Write,
    /// Changes the node itself. No path takes it yet.
    Admin,
    /// Copies a shard whole: its log and its snapshot.
    Replicate,
    /// Is a node of the map: what it says it has synced, and which reign it knows, counts. It replicates, too.
    Node,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Admin,
        Self::Replicate,
        Self::Node,
    ];

    /// As a token file and messages call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Replicate => "replicate",
            Self::Node => "node",
        }
    }

    /// The scope of a name.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Admin => 4,
            Self::Replicate => 8,
            Self::Node => 16,
        }
    }

    /// Its own bit, and that of what it includes.
    fn bits(self) -> u8 {
        match self {
            Self::Node => self.bit() | Self::Replicate.bit(),
            Self::Read | Self::Write | Self::Admin | Self::Replicate => self.bit(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Several scopes. `node` includes `replicate`; none else implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// Whether a scope is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_only_itself_but_a_node_replicates() {
        for scope in Scope::ALL {
            assert_eq!(Scope::from_text(scope.as_str()), Some(scope));
            let set: ScopeSet = [scope].into_iter().collect();
            for other in Scope::ALL {
                let includes = scope == Scope::Node && other == Scope::Replicate;
                assert_eq!(
                    set.has(other),
                    scope == other || includes,
                    "{scope} {other}"
                );
                assert!(!ScopeSet::default().has(other));
            }
        }
        for none in ["", "Read", "read ", "all"] {
            assert_eq!(Scope::from_text(none), None, "{none:?}");
        }
    }
}
