//! What one caller may do: scopes, and the keys for which he has them. Pure.
//!
//! A [`Need`] says what a path takes; the keys of ops are looked at once they are known. A grant without prefixes is
//! for every key. One with prefixes is for keys that begin with one of them, and for ranges that lie whole within one.

use std::ops::Bound;

use kvclient::wire::batch::{Action, Op};

use super::scope::{Scope, ScopeSet};

/// What a path takes of its caller before anything of the request is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: anybody may ask.
    Nothing,
    /// To know of the cluster: for clients `read`, for nodes `replicate`. It names no keys, so prefixes are no limit.
    State,
    /// One scope.
    Scope(Scope),
    /// A right to do ops; each op is looked at by itself.
    EachOp,
}

/// Why a caller who is known may not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// He lacks a scope.
    #[error("this needs the scope {0}, which the caller does not have")]
    Scope(&'static str),
    /// The key has none of his prefixes.
    #[error("the caller may use keys of some prefixes only, and this key has none of them")]
    Key,
    /// The range goes beyond each of his prefixes.
    #[error(
        "the caller may use keys of some prefixes only: ask for one of them, or a longer one, with prefix="
    )]
    Range,
}

/// What a caller may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    scopes: ScopeSet,
    /// None: every key.
    prefixes: Vec<Box<[u8]>>,
}

impl Grant {
    /// These scopes, for keys that begin with one of `prefixes`; for every key if there is none.
    pub fn new(scopes: ScopeSet, prefixes: Vec<Box<[u8]>>) -> Self {
        Self { scopes, prefixes }
    }

    /// That of a node of the map: it reads, and copies shards as the node that it is.
    pub fn node() -> Self {
        Self::new([Scope::Read, Scope::Node].into_iter().collect(), Vec::new())
    }

    /// That of a client known by other means than a token: it reads and writes every key.
    pub fn client() -> Self {
        Self::new(
            [Scope::Read, Scope::Write].into_iter().collect(),
            Vec::new(),
        )
    }

    /// The scopes.
    pub fn scopes(&self) -> ScopeSet {
        self.scopes
    }

    /// Whether a path may be asked for.
    ///
    /// # Errors
    /// What is missing.
    pub fn allows(&self, need: Need) -> Result<(), Denied> {
        let has = |scope| self.scopes.has(scope);
        let (may, missing) = match need {
            Need::Nothing => (true, ""),
            Need::State => (has(Scope::Read) || has(Scope::Replicate), "read"),
            Need::Scope(scope) => (has(scope), scope.as_str()),
            Need::EachOp => (has(Scope::Read) || has(Scope::Write), "read or write"),
        };
        may.then_some(()).ok_or(Denied::Scope(missing))
    }

    /// Whether an op may be done. A counter tells its value, so it reads as well as writes; other writes tell no more
    /// than positions.
    ///
    /// # Errors
    /// What is missing.
    pub fn allows_op(&self, op: &Op) -> Result<(), Denied> {
        let reads = matches!(op.action, Action::Get | Action::Incr { .. });
        if reads {
            self.allows(Need::Scope(Scope::Read))?;
        }
        if op.action.is_write() {
            self.allows(Need::Scope(Scope::Write))?;
        }
        self.allows_key(op.key.as_bytes())
    }

    /// Whether every op on every key may be done.
    pub fn allows_all_ops(&self) -> bool {
        let has = |scope| self.scopes.has(scope);
        has(Scope::Read) && has(Scope::Write) && self.prefixes.is_empty()
    }

    /// Whether a key is among those of the grant.
    ///
    /// # Errors
    /// [`Denied::Key`]
    pub fn allows_key(&self, key: &[u8]) -> Result<(), Denied> {
        match self.limits(|prefix| key.starts_with(prefix)) {
            true => Ok(()),
            false => Err(Denied::Key),
        }
    }

    /// Whether all keys that begin like this are.
    ///
    /// # Errors
    /// [`Denied::Range`]
    pub fn allows_prefix(&self, wanted: &[u8]) -> Result<(), Denied> {
        match self.limits(|prefix| wanted.starts_with(prefix)) {
            true => Ok(()),
            false => Err(Denied::Range),
        }
    }

    /// Whether all keys between two bounds are.
    ///
    /// # Errors
    /// [`Denied::Range`]
    pub fn allows_range(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<(), Denied> {
        match self.limits(|prefix| begins_within(prefix, start) && ends_within(prefix, end)) {
            true => Ok(()),
            false => Err(Denied::Range),
        }
    }

    fn limits(&self, is_within: impl Fn(&[u8]) -> bool) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| is_within(prefix))
    }
}

/// Whether no key from this bound on stands before the first key of the prefix.
fn begins_within(prefix: &[u8], start: Bound<&[u8]>) -> bool {
    match start {
        Bound::Included(key) | Bound::Excluded(key) => key >= prefix,
        Bound::Unbounded => false,
    }
}

/// Whether no key up to this bound stands behind the last key of the prefix.
fn ends_within(prefix: &[u8], end: Bound<&[u8]>) -> bool {
    match end {
        Bound::Included(key) => key < prefix || key.starts_with(prefix),
        Bound::Excluded(key) => {
            key <= prefix || key.starts_with(prefix) || is_next_behind(prefix, key)
        }
        // Nothing stands behind the keys of such a prefix.
        Bound::Unbounded => prefix.iter().all(|&byte| byte == 0xff),
    }
}

/// Whether a key is the first behind all keys of a prefix.
fn is_next_behind(prefix: &[u8], key: &[u8]) -> bool {
    let Some(last) = prefix.iter().rposition(|&byte| byte != 0xff) else {
        return false;
    };
    key.len() == last + 1 && key[..last] == prefix[..last] && key[last] == prefix[last] + 1
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kvclient::key::Key;
    use proptest::prelude::*;

    use super::*;

    fn grant(scopes: &[Scope], prefixes: &[&[u8]]) -> Grant {
        let prefixes = prefixes.iter().map(|&prefix| prefix.into()).collect();
        Grant::new(scopes.iter().copied().collect(), prefixes)
    }

    #[test]
    fn a_need_is_met_by_its_scopes_alone() {
        use Scope::{Admin, Node, Read, Replicate, Write};
        for (need, scopes) in [
            (Need::Nothing, &[Read, Write, Admin, Replicate, Node][..]),
            (Need::State, &[Read, Replicate, Node]),
            (Need::Scope(Write), &[Write]),
            (Need::Scope(Replicate), &[Replicate, Node]),
            (Need::Scope(Node), &[Node]),
            (Need::EachOp, &[Read, Write]),
        ] {
            for scope in Scope::ALL {
                let may = grant(&[scope], &[]).allows(need).is_ok();
                assert_eq!(may, scopes.contains(&scope), "{need:?} {scope}");
            }
        }
        let denied = Grant::node().allows(Need::Scope(Write)).unwrap_err();
        assert!(denied.to_string().contains("scope write"), "{denied}");
    }

    #[test]
    fn what_an_op_takes() {
        use Scope::{Read, Write};
        let value = Bytes::from_static(b"v");
        for (action, needs) in [
            (Action::Get, &[Read][..]),
            (
                Action::Put {
                    value,
                    ttl_ms: None,
                },
                &[Write],
            ),
            (Action::Delete, &[Write]),
            (Action::Expire { ttl_ms: 1 }, &[Write]),
            (Action::Persist, &[Write]),
            (Action::Incr { delta: 1 }, &[Read, Write]),
        ] {
            let op = Op::new(Key::new("user:1").unwrap(), action);
            for scopes in [&[Read][..], &[Write], &[Read, Write]] {
                let may = grant(scopes, &[]).allows_op(&op).is_ok();
                let has_all = needs.iter().all(|need| scopes.contains(need));
                assert_eq!(may, has_all, "{:?} {scopes:?}", op.action);
            }
            let elsewhere = grant(&[Read, Write], &[b"shop:"]);
            assert_eq!(elsewhere.allows_op(&op), Err(Denied::Key));
        }
    }

    #[test]
    fn who_may_do_every_op() {
        assert!(Grant::client().allows_all_ops());
        assert!(!Grant::node().allows_all_ops());
        assert!(!grant(&[Scope::Read, Scope::Write], &[b"a"]).allows_all_ops());
    }

    proptest! {
        /// A range is allowed exactly if every key in it is.
        #[test]
        fn ranges_and_keys_agree(
            prefix in prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0xfe, 0xff]), 1..3),
            start in bound(),
            end in bound(),
        ) {
            let grant = grant(&[], &[&prefix]);
            let (from, to) = (start.as_ref().map(|key| &key[..]), end.as_ref().map(|key| &key[..]));
            let inside = |key: &Vec<u8>| {
                std::ops::RangeBounds::<[u8]>::contains(&(from, to), &key[..])
            };
            let all_are = every_key().filter(inside).all(|key| grant.allows_key(&key).is_ok());
            if grant.allows_range(from, to).is_ok() {
                prop_assert!(all_are);
            }
            // Empty ranges may be refused; one with keys in it is not, if they all may be read.
            let has_some = every_key().any(|key| inside(&key));
            if all_are && has_some && !matches!(from, Bound::Unbounded) {
                prop_assert!(grant.allows_range(from, to).is_ok() || !is_tight(from, to, &prefix));
            }
        }

        #[test]
        fn a_longer_prefix_is_allowed_with_a_shorter_one(prefix in "[a-c]{1,3}", wanted in "[a-c]{0,4}") {
            let grant = grant(&[], &[prefix.as_bytes()]);
            let may = grant.allows_prefix(wanted.as_bytes()).is_ok();
            prop_assert_eq!(may, wanted.starts_with(&prefix));
        }
    }

    /// Whether a range is one that a scan of the prefix could ask for.
    fn is_tight(from: Bound<&[u8]>, to: Bound<&[u8]>, prefix: &[u8]) -> bool {
        let starts =
            matches!(from, Bound::Included(key) | Bound::Excluded(key) if key.starts_with(prefix));
        let ends =
            matches!(to, Bound::Included(key) | Bound::Excluded(key) if key.starts_with(prefix));
        starts && ends
    }

    fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        let key = || prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0xfe, 0xff]), 0..4);
        prop_oneof![
            Just(Bound::Unbounded),
            key().prop_map(Bound::Included),
            key().prop_map(Bound::Excluded),
        ]
    }

    /// All keys of up to three bytes of a small alphabet.
    fn every_key() -> impl Iterator<Item = Vec<u8>> {
        let digits = [0_u8, 1, 2, 0xfd, 0xfe, 0xff];
        let one = digits.into_iter().map(|a| vec![a]);
        let two = digits
            .into_iter()
            .flat_map(move |a| digits.into_iter().map(move |b| vec![a, b]));
        let three = digits.into_iter().flat_map(move |a| {
            digits
                .into_iter()
                .flat_map(move |b| digits.into_iter().map(move |c| vec![a, b, c]))
        });
        one.chain(two).chain(three)
    }
}
