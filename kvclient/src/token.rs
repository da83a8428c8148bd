//! A token: what a client shows to be let in, and how it is kept from view.
//!
//! It is sent as `Authorization: Bearer ...`, to the nodes of the map and to those that a program names itself, and to
//! nobody else. It stands in no log, no error and no `Debug`. It is not wiped from memory: copies lie in buffers of
//! sockets anyway, and whoever reads this process's memory has its values too.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
    str::FromStr,
    sync::Arc,
};

/// Longest token.
const MAX_BYTES: usize = 4_096;

/// Largest file that [`read_private`] takes.
const MAX_FILE_BYTES: u64 = 4 << 20;

const SCHEME: &str = "Bearer ";

/// A bearer token. Cheap to clone.
///
/// ```
/// use kvclient::Token;
///
/// let token: Token = "kv_n5XZ0s".parse()?;
/// assert_eq!(format!("{token:?}"), "Token(***)");
/// # Ok::<(), kvclient::token::TokenError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The header's value.
    authorization: Arc<str>,
}

/// A text that is no token. Does not repeat it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing stands there.
    #[error("the token is empty")]
    Empty,
    /// It has more than 4,096 bytes.
    #[error("the token is longer than 4096 bytes")]
    TooLong,
    /// It would not stand in a header.
    #[error("the token has other characters than letters, digits and - . _ ~ + / =")]
    Character,
    /// Its file cannot be used; says why.
    #[error("{0}")]
    File(String),
}

impl Token {
    /// Reads a token from a file that nobody but its owner may read. White space around it is left out.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use kvclient::{ClientBuilder, Token};
    ///
    /// let token = Token::from_file("/run/secrets/kv-token")?;
    /// let kv = ClientBuilder::from_file("sharding.toml")?.token(token).build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TokenError`]: says what to do about the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenError> {
        let path = path.as_ref();
        let text = read_private(path).map_err(TokenError::File)?;
        let named = |error: TokenError| TokenError::File(format!("{}: {error}", path.display()));
        text.trim().parse().map_err(named)
    }

    /// Its text: for whoever makes a digest of it.
    pub fn expose(&self) -> &str {
        &self.authorization[SCHEME.len()..]
    }

    /// The value of the header `Authorization`.
    pub(crate) fn authorization(&self) -> &str {
        &self.authorization
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Of the characters that RFC 6750 allows.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        match text.len() {
            0 => Err(TokenError::Empty),
            1..=MAX_BYTES if text.bytes().all(is_allowed) => Ok(Self {
                authorization: format!("{SCHEME}{text}").into(),
            }),
            1..=MAX_BYTES => Err(TokenError::Character),
            _ => Err(TokenError::TooLong),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// The text of a file that nobody but its owner may use.
///
/// ```no_run
/// let text = kvclient::token::read_private("/run/secrets/kv-token".as_ref())?;
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// Why it is not read, and what to do.
pub fn read_private(path: &Path) -> Result<String, String> {
    let name = path.display();
    let unreadable = |error| format!("{name}: cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    // Of what was opened, not of what has the name by now.
    check_mode(&file, path)?;
    let mut text = String::new();
    let mut bounded = file.take(MAX_FILE_BYTES + 1);
    let bytes = bounded.read_to_string(&mut text).map_err(unreadable)?;
    match bytes as u64 > MAX_FILE_BYTES {
        true => Err(format!("{name}: it is larger than {MAX_FILE_BYTES} bytes")),
        false => Ok(text),
    }
}

fn check_mode(file: &File, path: &Path) -> Result<(), String> {
    let name = path.display();
    match foreign_mode(file, path).map_err(|error| format!("{name}: {error}"))? {
        None => Ok(()),
        Some(mode) => Err(format!(
            "{name}: its mode is {mode:04o}, so others than its owner may use it; run: chmod 600 {name}"
        )),
    }
}

/// The mode of a file that others than its owner may use; `None` if none may.
///
/// Credentials of a systemd service (`LoadCredential=`) are for that service alone, by an access list, and show a mode of
/// 0440: below `$CREDENTIALS_DIRECTORY` that is private too.
///
/// ```no_run
/// use std::{fs::File, path::Path};
///
/// let path = Path::new("/run/credentials/kvnode@10.0.0.1:8080.service/node-key.pem");
/// if let Some(mode) = kvclient::token::foreign_mode(&File::open(path)?, path)? {
///     eprintln!("{mode:o} is too much");
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The file cannot be looked at.
#[cfg(unix)]
pub fn foreign_mode(file: &File, path: &Path) -> io::Result<Option<u32>> {
    use std::os::unix::fs::MetadataExt;

    let mode = file.metadata()?.mode() & 0o7777;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let is_private = is_private(mode, path, credentials.as_deref().map(Path::new));
    Ok((!is_private).then_some(mode))
}

/// Other systems keep rights elsewhere.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn foreign_mode(_: &File, _: &Path) -> io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(unix)]
fn is_private(mode: u32, path: &Path, credentials: Option<&Path>) -> bool {
    match mode & 0o077 {
        0 => true,
        0o040 if mode == 0o440 => credentials.is_some_and(|directory| is_below(path, directory)),
        _ => false,
    }
}

/// By their real names: a link in the directory, or to it, changes nothing.
#[cfg(unix)]
fn is_below(path: &Path, directory: &Path) -> bool {
    match (path.canonicalize(), directory.canonicalize()) {
        (Ok(path), Ok(real)) => directory.is_absolute() && path.starts_with(real),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_shown() {
        let token: Token = "kv_geheim".parse().expect("a token");
        assert_eq!(token.authorization(), "Bearer kv_geheim");
        assert_eq!(token.expose(), "kv_geheim");
        assert!(!format!("{token:?} {token:#?}").contains("geheim"));
    }

    #[test]
    fn what_is_no_token() {
        let long = "a".repeat(MAX_BYTES + 1);
        for (text, error) in [
            ("", TokenError::Empty),
            ("a b", TokenError::Character),
            ("a\r\nhost: b", TokenError::Character),
            ("é", TokenError::Character),
            (long.as_str(), TokenError::TooLong),
        ] {
            let refused = text.parse::<Token>().expect_err("no token");
            assert_eq!(refused, error);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_for_its_owner_alone() {
        use std::{fs::Permissions, os::unix::fs::PermissionsExt};

        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        std::fs::write(&path, "kv_geheim\n").expect("written");
        for (mode, is_private) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
            match Token::from_file(&path) {
                Ok(token) => assert!(is_private && token.expose() == "kv_geheim", "{mode:o}"),
                Err(error) => assert!(!is_private && error.to_string().contains("chmod 600")),
            }
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
        std::fs::write(&path, " \n").expect("written");
        let empty = Token::from_file(&path).expect_err("empty").to_string();
        assert!(empty.ends_with("token: the token is empty"), "{empty}");
        let missing = Token::from_file(dir.path().join("none")).expect_err("none");
        assert!(missing.to_string().contains("cannot be read"));
    }
    /// systemd shows a service its credentials as 0440; what looks the same elsewhere is open to a group.
    #[cfg(unix)]
    #[test]
    fn a_credential_of_the_service_is_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let (credentials, elsewhere) = (dir.path().join("own"), dir.path().join("other"));
        for directory in [&credentials, &elsewhere] {
            std::fs::create_dir(directory).expect("made");
            std::fs::write(directory.join("token"), "kv_a").expect("written");
        }
        let link = credentials.join("link");
        std::os::unix::fs::symlink(elsewhere.join("token"), &link).expect("linked");
        let own = credentials.join("token");
        for (mode, path, directory, expected) in [
            (0o440, &own, Some(&credentials), true),
            (0o400, &own, None, true),
            (0o440, &own, None, false),
            (0o440, &own, Some(&elsewhere), false),
            (0o440, &elsewhere.join("token"), Some(&credentials), false),
            (0o440, &link, Some(&credentials), false),
            (0o440, &credentials.join("none"), Some(&credentials), false),
            (0o640, &own, Some(&credentials), false),
            (0o460, &own, Some(&credentials), false),
            (0o444, &own, Some(&credentials), false),
        ] {
            let found = is_private(mode, path, directory.map(|path| path.as_path()));
            assert_eq!(found, expected, "{mode:o} {path:?} {directory:?}");
        }
        let root = Path::new("/");
        assert!(is_private(0o440, &own, Some(root)), "below it");
        assert!(
            !is_private(0o440, &own, Some(Path::new(""))),
            "no directory"
        );
    }
}
