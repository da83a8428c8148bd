//! The tokens that a node knows: the file that lists them, and the look-up of one.
//!
//! ```toml
//! [[tokens]]
//! name = "web-1"                     # for the log; several tokens of one user have several names
//! sha256 = "9f86d0..."               # of the token's text, 64 hex digits
//! scopes = ["read", "write"]         # of read, write, admin, replicate, node
//! prefixes = ["user:"]               # optional: only keys that begin like this
//! expires = "2027-01-01T00:00:00Z"   # optional
//! ```
//!
//! Strict: what is not understood is a mistake with its place. The file is for this user alone, since whoever could
//! write it could let himself in. A token may stand in a wrong place of it, so no message repeats what stands there.

use std::{
    collections::HashSet,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use kvclient::{rfc3339, token::read_private};
use serde::Deserialize;
use subtle::ConditionallySelectable;
use toml::Spanned;

use super::{
    digest::Digest,
    grant::Grant,
    scope::{Scope, ScopeSet},
};

/// A token that this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownToken {
    /// What the log calls it.
    pub name: String,
    /// What it allows.
    pub grant: Grant,
    digest: Digest,
    expires: Option<SystemTime>,
}

impl KnownToken {
    /// Whether its time is over. Without an end the clock is not asked.
    pub fn has_expired(&self) -> bool {
        self.expires.is_some_and(|end| end <= SystemTime::now())
    }

    /// When it ends.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }
}

/// All tokens that this node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Arc<KnownToken>>);

/// The tokens of a file, and where they came from.
#[derive(Debug, Clone)]
pub struct TokenFile {
    /// The file.
    pub path: PathBuf,
    /// What it had when it was read.
    pub tokens: Tokens,
}

impl TokenFile {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, where, and what to do.
    pub fn read(path: &Path) -> Result<Self, String> {
        let file = path.display().to_string();
        let text = read_private(path)?;
        Ok(Self {
            path: path.to_owned(),
            tokens: Tokens::parse(&text, &file)?,
        })
    }
}

impl Tokens {
    /// Reads the text of a file, which messages call `file`.
    ///
    /// # Errors
    /// The first mistake, with line and column.
    pub fn parse(text: &str, file: &str) -> Result<Self, String> {
        read(text).map_err(|(at, what)| {
            let before = &text[..text.floor_char_boundary(at)];
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let line = before.matches('\n').count() + 1;
            let column = before[line_start..].chars().count() + 1;
            format!("{file}:{line}:{column}: {what}")
        })
    }

    /// The token of a digest. All are compared whole, so that the time tells nothing.
    pub fn find(&self, digest: &Digest) -> Option<&Arc<KnownToken>> {
        let mut found = u64::MAX;
        for (at, known) in (0..).zip(&self.0) {
            found.conditional_assign(&at, known.digest.equals(digest));
        }
        self.0.get(usize::try_from(found).ok()?)
    }

    /// Whether a token is still among them, just as it was.
    pub fn has(&self, token: &Arc<KnownToken>) -> bool {
        self.0
            .iter()
            .any(|known| Arc::ptr_eq(known, token) || known == token)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &KnownToken> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    tokens: Vec<Spanned<TokenText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenText {
    name: Spanned<String>,
    sha256: Spanned<String>,
    scopes: Spanned<Vec<Spanned<String>>>,
    prefixes: Option<Spanned<Vec<Spanned<String>>>>,
    expires: Option<Spanned<String>>,
}

/// Where in the text, and what is wrong.
type Mistake = (usize, String);

fn mistake<T>(span: Range<usize>, what: impl Into<String>) -> Result<T, Mistake> {
    Err((span.start, what.into()))
}

fn read(text: &str) -> Result<Tokens, Mistake> {
    let file: FileText = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, unread(error.message()))
    })?;
    if file.tokens.is_empty() {
        return mistake(
            0..0,
            "there is no token in it, so nobody could ask anything; make one with: kv token new NAME --scopes read",
        );
    }
    let (mut names, mut digests) = (HashSet::new(), HashSet::new());
    let mut tokens = Vec::with_capacity(file.tokens.len());
    for text in &file.tokens {
        let text = text.get_ref();
        let token = token(text)?;
        if !names.insert(text.name.get_ref()) {
            let what = "this name is given twice; give each its own";
            return mistake(text.name.span(), what);
        }
        if !digests.insert(text.sha256.get_ref().to_ascii_lowercase()) {
            let what = "this sha256 is the same as one above: it is the same token";
            return mistake(text.sha256.span(), what);
        }
        tokens.push(Arc::new(token));
    }
    Ok(Tokens(tokens))
}

/// What `kv token new` makes: these letters, then 256 random bits.
fn looks_like_a_token(name: &str) -> bool {
    name.strip_prefix("kv_")
        .is_some_and(|rest| rest.len() == 43)
}

/// Why a text does not decode, without what it says there.
fn unread(message: &str) -> String {
    let message = message.replace('\n', ", ");
    let repeats = [
        "unknown field ",
        "invalid type: ",
        "invalid value: ",
        "duplicate ",
    ];
    match repeats.iter().find(|begin| message.starts_with(*begin)) {
        Some(begin) => {
            let begin = begin.trim_end_matches([' ', ':']);
            let (_, expected) = message.rsplit_once(", expected ").unwrap_or_default();
            match expected.is_empty() {
                true => begin.to_owned(),
                false => format!("{begin}, expected {expected}"),
            }
        }
        None => message,
    }
}

fn token(text: &TokenText) -> Result<KnownToken, Mistake> {
    let name = text.name.get_ref();
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !(1..=64).contains(&name.len()) || !name.bytes().all(is_plain) {
        let what = "this cannot be a name; write 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'";
        return mistake(text.name.span(), what);
    }
    if looks_like_a_token(name) {
        // The log would have it with every refusal.
        let what = "name looks like a token: write what the log may call it, and never the token";
        return mistake(text.name.span(), what);
    }
    let Some(digest) = Digest::from_hex(text.sha256.get_ref()) else {
        // Somebody may have written the token itself: it is not repeated.
        let what = "sha256 is not 64 hex digits: write the SHA-256 of the token, never the token";
        return mistake(text.sha256.span(), what);
    };
    let scopes = scopes(&text.scopes)?;
    Ok(KnownToken {
        name: name.clone(),
        grant: Grant::new(scopes, prefixes(scopes, text.prefixes.as_ref())?),
        digest,
        expires: text.expires.as_ref().map(moment).transpose()?,
    })
}

fn scopes(text: &Spanned<Vec<Spanned<String>>>) -> Result<ScopeSet, Mistake> {
    let all = "read, write, admin, replicate and node";
    if text.get_ref().is_empty() {
        return mistake(text.span(), format!("scopes is empty; write some of {all}"));
    }
    let scope = |text: &Spanned<String>| match Scope::from_text(text.get_ref()) {
        Some(scope) => Ok(scope),
        None => mistake(
            text.span(),
            format!("there is no such scope; the scopes are {all}"),
        ),
    };
    text.get_ref().iter().map(scope).collect()
}

fn prefixes(
    scopes: ScopeSet,
    text: Option<&Spanned<Vec<Spanned<String>>>>,
) -> Result<Vec<Box<[u8]>>, Mistake> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    if text.get_ref().is_empty() {
        return mistake(
            text.span(),
            "prefixes is empty; leave it out if the token is for every key",
        );
    }
    if let Some(scope) = [Scope::Node, Scope::Replicate, Scope::Admin]
        .into_iter()
        .find(|&scope| scopes.has(scope))
    {
        let what =
            format!("prefixes do not limit the scope {scope}; give it to a token of its own");
        return mistake(text.span(), what);
    }
    let prefix = |text: &Spanned<String>| match text.get_ref().is_empty() {
        true => mistake(
            text.span(),
            "a prefix is empty; leave prefixes out if the token is for every key",
        ),
        false => Ok(text.get_ref().as_bytes().into()),
    };
    text.get_ref().iter().map(prefix).collect()
}

fn moment(text: &Spanned<String>) -> Result<SystemTime, Mistake> {
    rfc3339::parse(text.get_ref()).ok_or_else(|| {
        let what = "expires is no time; write one like \"2027-01-01T00:00:00Z\"";
        (text.span().start, what.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt, time::Duration};

    use proptest::prelude::*;

    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn entry(name: &str, sha256: &str, rest: &str) -> String {
        format!("[[tokens]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\n{rest}\n")
    }

    fn parse(text: &str) -> Result<Tokens, String> {
        Tokens::parse(text, "tokens.toml")
    }

    #[test]
    fn a_token_is_found_by_its_digest_alone() {
        let of_other = OF_ABC.replace('a', "b");
        let text = entry(
            "a",
            OF_ABC,
            "scopes = [\"read\"]\nprefixes = [\"user:\", \"é\"]",
        ) + &entry("b", &of_other, "scopes = [\"write\", \"admin\"]");
        let tokens = parse(&text).unwrap();
        let found = tokens.find(&Digest::of(b"abc")).unwrap();
        assert_eq!(found.name, "a");
        assert!(found.grant.allows_key("é1".as_bytes()).is_ok());
        assert!(found.grant.allows_key(b"shop:1").is_err());
        assert!(!found.has_expired());
        assert!(tokens.has(found));
        let other = tokens.find(&Digest::from_hex(&of_other).unwrap()).unwrap();
        assert!(other.grant.scopes().has(Scope::Admin));
        assert_eq!(tokens.find(&Digest::of(b"abd")), None);
        assert_eq!(Tokens::default().find(&Digest::of(b"abc")), None);
    }

    #[test]
    fn its_time_ends() {
        let expires = |moment: SystemTime| {
            let expires = format!(
                "scopes = [\"read\"]\nexpires = \"{}\"",
                rfc3339::format(moment)
            );
            let tokens = parse(&entry("a", OF_ABC, &expires)).unwrap();
            tokens.iter().next().unwrap().has_expired()
        };
        let now = SystemTime::now();
        assert!(expires(now - Duration::from_secs(1)));
        assert!(!expires(now + Duration::from_secs(5)));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let scopes = "scopes = [\"read\"]";
        for (text, place, what) in [
            (String::new(), "1:1", "no token"),
            ("[[tokens]]\nname = \"a\"".into(), "1:1", "missing field"),
            ("[[token]]\nname = \"a\"".into(), "1:3", "unknown field"),
            (entry("a b", OF_ABC, scopes), "2:8", "cannot be a name"),
            (entry("", OF_ABC, scopes), "2:8", "cannot be a name"),
            (entry("a", "abc", scopes), "3:10", "never the token"),
            (entry("a", OF_ABC, "scopes = []"), "4:10", "empty"),
            (
                entry("a", OF_ABC, "scopes = [\"read\", \"all\"]"),
                "4:19",
                "no such scope",
            ),
            (entry("a", OF_ABC, "scopes = \"read\""), "4:10", "sequence"),
            (
                entry("a", OF_ABC, &format!("{scopes}\nprefixes = []")),
                "5:12",
                "empty",
            ),
            (
                entry("a", OF_ABC, &format!("{scopes}\nprefixes = [\"\"]")),
                "5:13",
                "empty",
            ),
            (
                entry("a", OF_ABC, "scopes = [\"replicate\"]\nprefixes = [\"a\"]"),
                "5:12",
                "do not limit",
            ),
            (
                entry("a", OF_ABC, &format!("{scopes}\nexpires = \"soon\"")),
                "5:11",
                "expires is no time",
            ),
            (
                entry("a", OF_ABC, &format!("{scopes}\nexpiry = 5")),
                "5:1",
                "unknown field",
            ),
            (
                entry("a", OF_ABC, scopes) + &entry("a", &OF_ABC.replace('a', "b"), scopes),
                "6:8",
                "twice",
            ),
            (
                entry("a", OF_ABC, scopes) + &entry("b", &OF_ABC.to_uppercase(), scopes),
                "7:10",
                "the same",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(
                error.starts_with(&format!("tokens.toml:{place}: ")),
                "{text}{error}"
            );
            assert!(error.contains(what), "{error}");
        }
    }

    /// Somebody wrote the token where something else belongs: the digest, and any other field.
    #[test]
    fn no_mistake_repeats_a_token() {
        const TOKEN: &str = "kv_LJgx0nHfP0PYS6E-157BAORszAAo0c9dqYxKKEztX1U";
        let scopes = "scopes = [\"read\"]";
        let rest = |rest: &str| entry("a", OF_ABC, &format!("{scopes}\n{rest}"));
        let texts = [
            entry("a", TOKEN, scopes),
            entry(TOKEN, OF_ABC, scopes),
            entry(TOKEN, OF_ABC, scopes) + &entry(TOKEN, &OF_ABC.replace('a', "b"), scopes),
            entry(&format!("a {TOKEN}"), OF_ABC, scopes),
            entry("a", OF_ABC, &format!("scopes = [\"{TOKEN}\"]")),
            entry("a", OF_ABC, &format!("scopes = \"{TOKEN}\"")),
            entry("a", OF_ABC, &format!("scopes = [{TOKEN}]")),
            rest(&format!("expires = \"{TOKEN}\"")),
            rest(&format!("prefixes = \"{TOKEN}\"")),
            rest(&format!("{TOKEN} = 1")),
            rest(&format!("\"{TOKEN}, expected\" = 1")),
            rest(&format!("name = \"{TOKEN}\"")),
            rest(&format!("{TOKEN} = 1\n{TOKEN} = 2")),
            rest(TOKEN),
            rest(&format!("\"{TOKEN}\"")),
            rest(&format!("expires = {TOKEN}")),
            rest(&format!("expires = \"{TOKEN}")),
            rest(&format!("[{TOKEN}]")),
            format!("tokens = \"{TOKEN}\""),
            format!("{TOKEN} = \"a\""),
            TOKEN.to_owned(),
        ];
        for text in texts {
            let error = parse(&text).unwrap_err();
            let tells = error.contains("LJgx0n") || error.contains("EztX1U");
            assert!(!tells, "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_others_may_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        std::fs::write(&path, entry("a", OF_ABC, "scopes = [\"read\"]")).unwrap();
        for (mode, is_private) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match TokenFile::read(&path) {
                Ok(file) => assert!(is_private && file.tokens.len() == 1, "{mode:o}"),
                Err(error) => assert!(
                    !is_private && error.contains("chmod 600"),
                    "{mode:o}: {error}"
                ),
            }
        }
        let missing = TokenFile::read(&dir.path().join("none")).unwrap_err();
        assert!(missing.contains("cannot be read"), "{missing}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), part in "[a-z0-9\\[\\]=\", \n]{0,200}") {
            let _ = parse(&text);
            let _ = parse(&part);
            let _ = parse(&entry("a", OF_ABC, &part));
        }
    }
}
