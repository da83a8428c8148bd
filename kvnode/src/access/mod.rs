//! Who may do what: callers bring a token or show a certificate, and either carries a [`Grant`].
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

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::tls::Shown;

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
    /// Who showed a certificate, and brought no token.
    Certified(Certified),
}

/// A certificate that was shown and verified.
#[derive(Debug, Clone)]
pub struct Certified {
    /// Whose it is.
    pub whose: Whose,
    /// The certificate itself.
    pub shown: Arc<Shown>,
}

/// Whose certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// That of a node of the map: it names its host.
    Node,
    /// Another one.
    Client,
}

impl Whose {
    fn grant(self) -> &'static Grant {
        static NODE: LazyLock<Grant> = LazyLock::new(Grant::node);
        static CLIENT: LazyLock<Grant> = LazyLock::new(Grant::client);
        match self {
            Self::Node => &NODE,
            Self::Client => &CLIENT,
        }
    }
}

/// Whether callers are asked for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Certificates {
    /// They are; without tokens, whoever shows one that is verified is let in.
    Asked,
    /// They are not.
    #[default]
    NotAsked,
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
            Self::Certified(certified) => Ok(Some(certified.whose.grant())),
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
    certificates: Certificates,
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
    /// Knows the tokens of a file; without one, and without certificates, it asks nobody.
    pub fn new(file: Option<TokenFile>, certificates: Certificates) -> Self {
        let tokens = file.map(|file| Known {
            path: file.path,
            tokens: ArcSwap::from_pointee(file.tokens),
            trouble: ArcSwapOption::empty(),
        });
        Self {
            tokens,
            certificates,
            failures: Failures::default(),
        }
    }

    /// Whether callers have to say who they are.
    pub fn asks(&self) -> bool {
        self.tokens.is_some() || self.certificates == Certificates::Asked
    }

    /// What callers may bring, as it stands in a refusal.
    pub fn asked_for(&self) -> &'static str {
        const TOKEN: &str = "this needs a token that is known here and has not expired, as Authorization: Bearer ...";
        const CERTIFICATE: &str = "this needs a client certificate";
        match (&self.tokens, self.certificates) {
            (None, Certificates::Asked) => CERTIFICATE,
            (Some(_), _) | (None, Certificates::NotAsked) => TOKEN,
        }
    }

    /// Who sent a request with this `Authorization` over a connection with this certificate, if he may have what it
    /// takes. A token says more than a certificate: whoever brings one is who it says, or nobody.
    ///
    /// # Errors
    /// Why not. Also where nothing is needed, if a token is brought that does not count: it may be a guess.
    pub fn admit(
        &self,
        need: Need,
        authorization: Option<&[u8]>,
        shown: Option<Certified>,
    ) -> Result<Caller, NotAdmitted> {
        if !self.asks() {
            return Ok(Caller::Anyone);
        }
        let caller = match (&self.tokens, authorization) {
            (Some(known), Some(authorization)) => known.caller(authorization),
            _ => self.certified(shown).ok_or(NotAdmitted::Missing),
        };
        let caller = match (need, caller) {
            (Need::Nothing, Err(NotAdmitted::Missing)) => return Ok(Caller::Stranger),
            (_, caller) => caller?,
        };
        caller
            .may(|grant| grant.allows(need))
            .map_err(NotAdmitted::Denied)?;
        Ok(caller)
    }

    /// Who shows a certificate and no token. A node is known by its certificate; where tokens say who may what, anybody
    /// else's only lets his connection be made.
    fn certified(&self, shown: Option<Certified>) -> Option<Caller> {
        let counts =
            |certified: &Certified| certified.whose == Whose::Node || self.tokens.is_none();
        shown.filter(counts).map(Caller::Certified)
    }

    /// Whether a caller who was admitted would be admitted now: his token, or his certificate, may have ended or been taken
    /// out.
    pub fn still_admits(&self, caller: &Caller) -> bool {
        match (caller, &self.tokens) {
            (Caller::Token(token), Some(known)) => {
                !token.has_expired() && known.tokens.load().has(token)
            }
            (Caller::Certified(certified), _) => certified.shown.check(SystemTime::now()).is_ok(),
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
    fn caller(&self, authorization: &[u8]) -> Result<Caller, NotAdmitted> {
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
        (Admission::new(Some(file), Certificates::NotAsked), dir)
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
            let admitted = access.admit(read, text.map(str::as_bytes), None);
            assert_eq!(admitted.err(), refusal, "{text:?}");
        }
        let write = access.admit(Need::Scope(Scope::Write), Some(b"Bearer a"), None);
        assert_eq!(
            write.err(),
            Some(NotAdmitted::Denied(Denied::Scope("write")))
        );
    }

    #[test]
    fn a_stranger_may_do_nothing() {
        let (access, _dir) = access(&[("a", READS)]);
        let stranger = access.admit(Need::Nothing, None, None).unwrap();
        assert!(stranger.may(|_| Ok(())).is_err());
        assert!(!stranger.may_do_all_ops());
        let guess = access.admit(Need::Nothing, Some(b"Bearer b"), None);
        assert_eq!(guess.err(), Some(NotAdmitted::Unknown));
    }

    #[test]
    fn without_tokens_anybody_may_do_everything() {
        let access = Admission::default();
        let caller = access
            .admit(Need::Scope(Scope::Replicate), None, None)
            .unwrap();
        assert!(caller.may_do_all_ops() && !access.asks());
        assert!(caller.may(|_| Err(Denied::Key)).is_ok());
        assert_eq!(access.reload(), Ok(None));
    }

    #[test]
    fn a_broken_file_changes_nothing_and_is_told() {
        let (access, dir) = access(&[("a", READS)]);
        let read = |token: &[u8]| access.admit(Need::State, Some(token), None);
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
        let caller = access.admit(Need::State, Some(b"Bearer a"), None).unwrap();
        write(&dir, &[("b", READS), ("a", READS)]);
        access.reload().unwrap();
        assert!(access.still_admits(&caller));
        write(&dir, &[("a", "scopes = [\"read\"]\nprefixes = [\"x\"]")]);
        access.reload().unwrap();
        assert!(!access.still_admits(&caller), "it allows less now");
    }

    #[test]
    fn a_certificate_says_who_where_no_token_does() {
        let shown = Arc::new(Shown::in_tests());
        let certified = |whose| {
            let shown = Arc::clone(&shown);
            Some(Certified { whose, shown })
        };
        let node = || certified(Whose::Node);
        let client = || certified(Whose::Client);
        let (write, replicate) = (Need::Scope(Scope::Write), Need::Scope(Scope::Replicate));
        let alone = Admission::new(None, Certificates::Asked);
        assert!(alone.admit(replicate, None, node()).is_ok());
        assert!(alone.admit(write, None, client()).is_ok());
        let denied = |scope| Some(NotAdmitted::Denied(Denied::Scope(scope)));
        assert_eq!(alone.admit(write, None, node()).err(), denied("write"));
        assert_eq!(
            alone.admit(replicate, None, client()).err(),
            denied("replicate")
        );
        let nobody = alone.admit(Need::State, Some(b"Bearer a"), None);
        assert_eq!(nobody.err(), Some(NotAdmitted::Missing));
        assert!(alone.admit(Need::Nothing, None, None).is_ok());

        let (mut both, _dir) = access(&[("a", READS)]);
        both.certificates = Certificates::Asked;
        let bare = both.admit(Need::State, None, client());
        assert_eq!(bare.err(), Some(NotAdmitted::Missing), "a token says who");
        assert!(both.admit(replicate, None, node()).is_ok());
        assert!(both.admit(Need::State, Some(b"Bearer a"), None).is_ok());
        let reader = both.admit(write, Some(b"Bearer a"), client());
        assert_eq!(reader.err(), denied("write"), "the token counts");
        let unknown = both.admit(Need::State, Some(b"Bearer b"), client());
        assert_eq!(unknown.err(), Some(NotAdmitted::Unknown));
    }
}
