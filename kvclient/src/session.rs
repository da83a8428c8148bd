//! What one user has seen so far: one position per shard.
//!
//! A read that carries the session's position of its shard is answered only by a node that holds it, so nobody
//! sees less than before: neither his own writes nor what he has read go away. Positions only move forward here;
//! the one exception is a position that a disaster took away, see [`Session::forget`].
//!
//! A session is plain data. It can be split off (clone), merged, sent as a token to another process and resumed
//! there: a web application keeps it in a cookie. A forged token costs its owner slow reads and nobody else.

use std::{fmt, str::FromStr};

use crate::{position::Position, slot::SLOT_COUNT};

/// First characters of a token: names its format.
const TOKEN_STAMP: &str = "kv1";

/// Positions by shard. Empty: nothing seen yet, any node will do.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::{Position, Session};
///
/// let mut phone = Session::from_token("kv1_0.3.1207")?; // shard 0, up to 3.1207
/// let mut tablet = Session::new();
/// tablet.advance(2, Position::new(1, 9));
/// tablet.advance(2, Position::new(1, 4)); // never backwards
/// phone.merge(&tablet);
/// assert_eq!(phone.to_token(), "kv1_0.3.1207_2.1.9");
/// assert_eq!(phone.position(2), Some(Position::new(1, 9)));
/// assert!(phone.forget(2, Position::new(1, 9))); // a disaster took it away
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// By shard idx, ascending. A list, since clusters have few shards and most sessions see fewer.
    positions: Vec<(u16, Position)>,
}

/// Text that is not a session's token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a session token: {problem}; a token looks like kv1_0.3.1207_2.1.9")]
pub struct TokenError {
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Session {
    /// A session that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The newest position seen of a shard, by the shard's idx.
    pub fn position(&self, shard_idx: u16) -> Option<Position> {
        let at = self.find(shard_idx).ok()?;
        Some(self.positions[at].1)
    }

    /// Notes that a position of a shard was seen. Never moves backwards.
    pub fn advance(&mut self, shard_idx: u16, position: Position) {
        match self.find(shard_idx) {
            Ok(at) => {
                let seen = &mut self.positions[at].1;
                *seen = position.max(*seen);
            }
            Err(_) if position == Position::ZERO => {}
            Err(at) => self.positions.insert(at, (shard_idx, position)),
        }
    }

    /// Drops a shard's position if it is still this one; says whether it was. For positions that no node will
    /// hold again: of all ops that learn it at the same time, one gets `true` and tells its caller.
    pub fn forget(&mut self, shard_idx: u16, lost: Position) -> bool {
        match self.find(shard_idx) {
            Ok(at) if self.positions[at].1 == lost => {
                self.positions.remove(at);
                true
            }
            _ => false,
        }
    }

    /// Adds what another session has seen.
    pub fn merge(&mut self, other: &Self) {
        for &(shard_idx, position) in &other.positions {
            self.advance(shard_idx, position);
        }
    }

    /// The session as text: `kv1`, then `_idx.epoch.seq` for each shard seen. Letters, digits, `_` and `.` only,
    /// so that it can stand in a header, a cookie or a URL.
    pub fn to_token(&self) -> String {
        self.to_string()
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`]: start a new session; reads may then show less than the old one saw.
    pub fn from_token(token: &str) -> Result<Self, TokenError> {
        token.parse()
    }

    fn find(&self, shard_idx: u16) -> Result<usize, usize> {
        self.positions
            .binary_search_by_key(&shard_idx, |seen| seen.0)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TOKEN_STAMP)?;
        for (shard_idx, position) in &self.positions {
            write!(f, "_{shard_idx}.{position}")?;
        }
        Ok(())
    }
}

impl FromStr for Session {
    type Err = TokenError;

    fn from_str(token: &str) -> Result<Self, TokenError> {
        let error = |problem| TokenError { problem };
        let mut parts = token.split('_');
        if parts.next() != Some(TOKEN_STAMP) {
            return Err(error("it does not start with kv1"));
        }
        let mut session = Self::new();
        for part in parts {
            let (shard_idx, position) =
                shard(part).ok_or_else(|| error("a part is not idx.epoch.seq"))?;
            match session.positions.last() {
                Some((last, _)) if *last >= shard_idx => {
                    return Err(error("its shards are not in ascending order"));
                }
                _ => session.positions.push((shard_idx, position)),
            }
        }
        Ok(session)
    }
}

fn shard(part: &str) -> Option<(u16, Position)> {
    let (shard_idx, position) = part.split_once('.')?;
    let digits = !shard_idx.is_empty() && shard_idx.bytes().all(|b| b.is_ascii_digit());
    let shard_idx = digits.then(|| shard_idx.parse().ok())??;
    let position: Position = position.parse().ok()?;
    (shard_idx < SLOT_COUNT && position != Position::ZERO).then_some((shard_idx, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_only_move_forward() {
        let mut session = Session::new();
        session.advance(1, Position::new(1, 5));
        session.advance(1, Position::new(1, 3));
        assert_eq!(session.position(1), Some(Position::new(1, 5)));
        session.advance(1, Position::new(2, 1));
        assert_eq!(session.position(1), Some(Position::new(2, 1)));
        assert_eq!(session.position(0), None);
    }

    #[test]
    fn a_lost_position_is_told_once() {
        let mut session = Session::new();
        session.advance(0, Position::new(1, 5));
        assert!(!session.forget(0, Position::new(1, 4)), "it has moved on");
        assert!(session.forget(0, Position::new(1, 5)));
        assert!(!session.forget(0, Position::new(1, 5)));
    }

    #[test]
    fn merging_takes_the_newer_of_each() {
        let mut one: Session = "kv1_0.1.5_2.1.1".parse().expect("a token");
        one.merge(&"kv1_0.1.3_1.2.2".parse().expect("a token"));
        assert_eq!(one.to_token(), "kv1_0.1.5_1.2.2_2.1.1");
    }

    #[test]
    fn tokens_come_back() {
        for token in [
            "kv1",
            "kv1_0.3.1207",
            "kv1_0.3.1207_16383.4294967295.18446744073709551615",
        ] {
            assert_eq!(
                Session::from_token(token).expect("a token").to_token(),
                token
            );
        }
        for bad in [
            "",
            "kv2_0.1.1",
            "kv1_",
            "kv1_0",
            "kv1_0.1",
            "kv1_0.0.0",
            "kv1_16384.1.1",
            "kv1_+1.1.1",
            "kv1_1.1.1_0.1.1",
            "kv1_1.1.1_1.1.2",
            "kv1_0.1.1 ",
        ] {
            assert!(Session::from_token(bad).is_err(), "{bad:?}");
        }
    }
}
