//! Who may do what: callers bring a token, and a token carries a [`Grant`].
//!
//! [`Admission`] is asked once a request, before its body is read: [`Admission::admit`] gives the [`Caller`], and whoever
//! learns of keys later asks him. A node that knows no tokens asks nobody: then every caller may do everything, and
//! nothing is computed. With tokens it costs one digest of the header's text; nothing is locked or allocated.
//!
//! Invariant: a token's text is never kept, logged or answered; the log calls it by its name.

mod digest;
mod failures;
mod grant;
mod scope;
mod tokens;

use std::{path::PathBuf, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};

pub use self::{
    digest::Digest,
    failures::{Failures, Verdict},
    grant::{Denied, Grant, Need},
    scope::{Scope, ScopeSet},
    tokens::{KnownToken, TokenFile, Tokens},
};

/// Who has sent a request, as far as that matters.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Anybody: this node asks nobody who he is.
    Anyone,
    /// Anybody, on a path that is open to all; he may do nothing else.
    Stranger,
    /// Who brought this token.
    Token(Arc<KnownToken>),
}

impl Caller {
    /// What he may do; `None`: everything.
    ///
    /// # Errors
    /// [`Denied`] for a stranger.
    fn grant(&self) -> Result<Option<&Grant>, Denied> {
        match self {
            Self::Anyone => Ok(None),
            Self::Stranger => Err(Denied::Scope("read")),
            Self::Token(token) => Ok(Some(&token.grant)),
        }
    }

    /// Asks something of his grant; whoever has none may.
    ///
    /// # Errors
    /// What is missing.
    pub fn may(&self, ask: impl FnOnce(&Grant) -> Result<(), Denied>) -> Result<(), Denied> {
        self.grant()?.map_or(Ok(()), ask)
    }

    /// Whether he may do every op on every key.
    pub fn may_do_all_ops(&self) -> bool {
        matches!(self.grant(), Ok(grant) if grant.is_none_or(Grant::allows_all_ops))
    }
}

/// Why a caller is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAdmitted {
    /// No token, where one is needed.
    Missing,
    /// None that is known here.
    Unknown,
    /// One whose time is over: its name.
    Expired(String),
    /// A known one that does not allow this.
    Denied(Denied),
}

/// What this node knows of those who may ask it.
#[derive(Debug, Default)]
pub struct Admission {
    tokens: Option<Known>,
    /// Unknown tokens of late.
    pub failures: Failures,
}

#[derive(Debug)]
struct Known {
    path: PathBuf,
    tokens: ArcSwap<Tokens>,
    /// Why the file was not read anew when that was asked for last.
    trouble: ArcSwapOption<String>,
}

impl Admission {
    /// Knows the tokens of a file; without one it asks nobody.
    pub fn new(file: Option<TokenFile>) -> Self {
        let tokens = file.map(|file| Known {
            path: file.path,
            tokens: ArcSwap::from_pointee(file.tokens),
            trouble: ArcSwapOption::empty(),
        });
        Self {
            tokens,
            failures: Failures::default(),
        }
    }

    /// Whether callers have to say who they are.
    pub fn asks(&self) -> bool {
        self.tokens.is_some()
    }

    /// Who sent a request with this `Authorization`, if he may have what it takes.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, need: Need, authorization: Option<&[u8]>) -> Result<Caller, NotAdmitted> {
        let Some(known) = &self.tokens else {
            return Ok(Caller::Anyone);
        };
        let caller = known.caller(authorization);
        if need == Need::Nothing {
            return Ok(caller.unwrap_or(Caller::Stranger));
        }
        let caller = caller?;
        caller
            .may(|grant| grant.allows(need))
            .map_err(NotAdmitted::Denied)?;
        Ok(caller)
    }

    /// Whether a caller who was admitted would be admitted now: his token may have ended, or been taken out.
    pub fn still_admits(&self, caller: &Caller) -> bool {
        match (caller, &self.tokens) {
            (Caller::Token(token), Some(known)) => {
                !token.has_expired() && known.tokens.load().has(token)
            }
            (Caller::Anyone | Caller::Stranger | Caller::Token(_), _) => true,
        }
    }

    /// Reads the file anew, and says how many tokens are known now; `None` if there is no file.
    ///
    /// # Errors
    /// Why not; those known before stay known.
    pub fn reload(&self) -> Result<Option<usize>, String> {
        let Some(known) = &self.tokens else {
            return Ok(None);
        };
        match TokenFile::read(&known.path) {
            Ok(file) => {
                let count = file.tokens.len();
                known.tokens.store(Arc::new(file.tokens));
                known.trouble.store(None);
                Ok(Some(count))
            }
            Err(why) => {
                known.trouble.store(Some(Arc::new(why.clone())));
                Err(why)
            }
        }
    }

    /// Why the tokens in force are not those of the file, if they are not.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.tokens.as_ref()?.trouble.load();
        trouble.as_ref().map(|why| String::clone(why))
    }

    /// The tokens in force; `None` if nobody is asked for one.
    pub fn tokens(&self) -> Option<Arc<Tokens>> {
        self.tokens.as_ref().map(|known| known.tokens.load_full())
    }
}

impl Known {
    fn caller(&self, authorization: Option<&[u8]>) -> Result<Caller, NotAdmitted> {
        let authorization = authorization.ok_or(NotAdmitted::Missing)?;
        let token = bearer(authorization).ok_or(NotAdmitted::Unknown)?;
        let tokens = self.tokens.load();
        let token = tokens
            .find(&Digest::of(token))
            .ok_or(NotAdmitted::Unknown)?;
        match token.has_expired() {
            true => Err(NotAdmitted::Expired(token.name.clone())),
            false => Ok(Caller::Token(Arc::clone(token))),
        }
    }
}

/// The token of an `Authorization: Bearer ...`.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
    let token = token.trim_ascii();
    (is_bearer && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of the names, so that a token's text is its name.
    fn access(tokens: &[(&str, &str)]) -> (Admission, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, tokens);
        let file = TokenFile::read(&dir.path().join("tokens.toml")).unwrap();
        (Admission::new(Some(file)), dir)
    }

    fn write(dir: &tempfile::TempDir, tokens: &[(&str, &str)]) {
        use sha2::Digest as _;
        use std::{fs::Permissions, os::unix::fs::PermissionsExt};
        let entry = |(name, rest): &(&str, &str)| {
            let digest: String = sha2::Sha256::digest(name)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("[[tokens]]\nname = \"{name}\"\nsha256 = \"{digest}\"\n{rest}\n")
        };
        let path = dir.path().join("tokens.toml");
        let text: String = tokens.iter().map(entry).collect();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    const READS: &str = "scopes = [\"read\"]";

    #[test]
    fn only_a_known_token_in_its_time_is_admitted() {
        let over = "scopes = [\"read\"]\nexpires = \"2020-01-01T00:00:00Z\"";
        let (access, _dir) = access(&[("a", READS), ("old", over)]);
        let read = Need::Scope(Scope::Read);
        for (text, refusal) in [
            (Some("Bearer a"), None),
            (Some("bearer  a "), None),
            (None, Some(NotAdmitted::Missing)),
            (Some("Bearer b"), Some(NotAdmitted::Unknown)),
            (Some("Bearer "), Some(NotAdmitted::Unknown)),
            (Some("Bearer"), Some(NotAdmitted::Unknown)),
            (Some("Basic a"), Some(NotAdmitted::Unknown)),
            (Some("a"), Some(NotAdmitted::Unknown)),
            (Some("Bearer old"), Some(NotAdmitted::Expired("old".into()))),
        ] {
            let admitted = access.admit(read, text.map(str::as_bytes));
            assert_eq!(admitted.err(), refusal, "{text:?}");
        }
        let write = access.admit(Need::Scope(Scope::Write), Some(b"Bearer a"));
        assert_eq!(
            write.err(),
            Some(NotAdmitted::Denied(Denied::Scope("write")))
        );
    }

    #[test]
    fn a_stranger_may_do_nothing() {
        let (access, _dir) = access(&[("a", READS)]);
        for authorization in [None, Some(&b"Bearer b"[..])] {
            let stranger = access.admit(Need::Nothing, authorization).unwrap();
            assert!(stranger.may(|_| Ok(())).is_err());
            assert!(!stranger.may_do_all_ops());
        }
    }

    #[test]
    fn without_tokens_anybody_may_do_everything() {
        let access = Admission::default();
        let caller = access.admit(Need::Scope(Scope::Replicate), None).unwrap();
        assert!(caller.may_do_all_ops() && !access.asks());
        assert!(caller.may(|_| Err(Denied::Key)).is_ok());
        assert_eq!(access.reload(), Ok(None));
    }

    #[test]
    fn a_broken_file_changes_nothing_and_is_told() {
        let (access, dir) = access(&[("a", READS)]);
        let read = |token: &[u8]| access.admit(Need::State, Some(token));
        let caller = read(b"Bearer a").unwrap();
        write(&dir, &[("b", "scopes = []")]);
        let why = access.reload().unwrap_err();
        assert_eq!(access.trouble(), Some(why));
        assert!(read(b"Bearer a").is_ok() && access.still_admits(&caller));
        write(&dir, &[("b", READS)]);
        assert_eq!(access.reload(), Ok(Some(1)));
        assert_eq!(access.trouble(), None);
        assert!(read(b"Bearer a").is_err() && read(b"Bearer b").is_ok());
        assert!(!access.still_admits(&caller), "it was taken out");
    }

    #[test]
    fn who_stays_in_the_file_as_he_was_stays_admitted() {
        let (access, dir) = access(&[("a", READS)]);
        let caller = access.admit(Need::State, Some(b"Bearer a")).unwrap();
        write(&dir, &[("b", READS), ("a", READS)]);
        access.reload().unwrap();
        assert!(access.still_admits(&caller));
        write(&dir, &[("a", "scopes = [\"read\"]\nprefixes = [\"x\"]")]);
        access.reload().unwrap();
        assert!(!access.still_admits(&caller), "it allows less now");
    }
}
