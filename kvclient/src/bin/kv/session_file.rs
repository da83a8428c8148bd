//! A session kept in a file: each command begins with what earlier ones have seen, and adds what it sees.
//!
//! The file holds one line, the token of [`Session::to_token`]. It is replaced whole, by a rename, so nobody reads half
//! of it. Commands that use it at the same time add to each other's; only where two of them end in the same moment one
//! may be lost, and then reads are no worse than without it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kvclient::Session;

use crate::failure::Failure;

/// Where a session is kept, and what it was when this command began.
pub(crate) struct SessionFile {
    path: PathBuf,
    before: Session,
}

impl SessionFile {
    /// Reads the file; one that is not there, or is empty, is a new session.
    ///
    /// # Errors
    /// [`Failure::Usage`]: it holds something else, which will not be overwritten.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self {
            path: path.to_owned(),
            before: read(path)?,
        })
    }

    pub(crate) fn session(&self) -> Session {
        self.before.clone()
    }

    /// Writes what was seen, together with what others have added meanwhile.
    pub(crate) fn save(&self, mut seen: Session) -> Result<(), Failure> {
        let now = read(&self.path)?;
        // A position that is lost is missing from `seen`; it must not come back from the file.
        if now != self.before {
            seen.merge(&now);
        }
        if seen == now {
            return Ok(());
        }
        let beside = self
            .path
            .with_added_extension(format!("{}.new", std::process::id()));
        let written =
            fs::write(&beside, format!("{seen}\n")).and_then(|()| fs::rename(&beside, &self.path));
        written.map_err(|error| {
            let _ = fs::remove_file(&beside);
            Failure::Local(format!(
                "{} cannot be written: {error}",
                self.path.display()
            ))
        })
    }
}

fn read(path: &Path) -> Result<Session, Failure> {
    // A rename would put a file in the place of /dev/null, for whoever may do that.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Failure::Usage(format!("{}: not a file", path.display())));
    }
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Session::new()),
        text => text.map_err(|error| Failure::file(path, &error))?,
    };
    match text.trim_end() {
        "" => Ok(Session::new()),
        token => Session::from_token(token)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Session {
        text.parse().expect("a token")
    }

    #[test]
    fn what_was_seen_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("session");
        let first = SessionFile::open(&path).expect("a new session");
        assert_eq!(first.session(), Session::new());
        // Another command ends in between.
        let other = SessionFile::open(&path).expect("a new session");
        other.save(token("kv1_1.1.9")).expect("written");
        first.save(token("kv1_0.1.5")).expect("written");
        let both = SessionFile::open(&path).expect("a session");
        assert_eq!(both.session().to_token(), "kv1_0.1.5_1.1.9");
        // Shard 1's position is lost.
        both.save(token("kv1_0.1.5")).expect("written");
        let rest = SessionFile::open(&path).expect("a session");
        assert_eq!(rest.session().to_token(), "kv1_0.1.5");
        assert_eq!(fs::read_dir(dir.path()).expect("a list").count(), 1);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notes");
        fs::write(&path, "my notes").expect("written");
        let failure = SessionFile::open(&path)
            .err()
            .and_then(|failure| failure.text());
        assert!(failure.is_some_and(|text| text.contains("not a session token")));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_not_replaced() {
        let failure = SessionFile::open("/dev/null".as_ref()).err();
        let told = failure.and_then(|failure| failure.text());
        assert_eq!(told.as_deref(), Some("/dev/null: not a file"));
    }
}
