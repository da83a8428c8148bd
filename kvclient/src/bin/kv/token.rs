//! `kv token new`: makes a token, and the entry by which nodes know it.
//!
//! The token is shown once and kept nowhere else: the entry has only its digest. 256 random bits, so there is nothing to
//! guess; the letters before them are for programs that look for secrets in places where none should be.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use kvclient::{rfc3339, token::read_private};
use sha2::{Digest, Sha256};

use crate::{
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
    terms::duration,
};

/// The scopes that nodes know.
const SCOPES: [&str; 5] = ["read", "write", "admin", "replicate", "node"];

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; print it, and the entry for the file that nodes are given with --tokens
    ///
    /// The token is shown this once. Give it to clients in KV_TOKEN or a file of mode 0600; nodes know its digest only.
    New(NewArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// What the nodes' logs call it; each token of a user has a name of its own
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// What it allows, of read, write, admin, replicate (copies whole shards: backups) and node (is a node of the map), with commas between
    /// them
    #[arg(long, value_name = "SCOPES", required = true, value_delimiter = ',', value_parser = scope)]
    pub(crate) scopes: Vec<String>,
    /// Only for keys that begin with this; may be given several times [default: every key]
    #[arg(long = "prefix", value_name = "PREFIX", value_parser = prefix)]
    pub(crate) prefixes: Vec<String>,
    /// When it ends: after a time such as 90d, or at a moment such as 2027-01-01T00:00:00Z [default: never]
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(crate) expires: Option<SystemTime>,
    /// Add the entry to this file instead of printing it; made with mode 0600 if it is not there
    #[arg(long, value_name = "FILE")]
    pub(crate) append: Option<PathBuf>,
    /// Write the token to this new file, of mode 0600, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

pub(crate) fn token(command: &TokenCommand, out: &mut Out) -> Result<Exit, Failure> {
    let TokenCommand::New(args) = command;
    check_scopes(args)?;
    let token = random_token()?;
    let digest = Sha256::digest(&token);
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let entry = entry(args, &sha256);
    if let Some(path) = &args.append {
        check_file(path, &args.name)?;
    }
    // The token first: an entry without a token can be taken out again, a token that is lost cannot be told.
    if let Some(path) = &args.out {
        new_private(path, token.as_bytes())?;
    }
    if let Some(path) = &args.append {
        append(path, &entry).map_err(|error| Failure::file(path, &error))?;
    }
    show(args, &token, &sha256, &entry, out)?;
    Ok(Exit::Done)
}

fn show(
    args: &NewArgs,
    token: &str,
    sha256: &str,
    entry: &str,
    out: &mut Out,
) -> Result<(), Failure> {
    let token = args.out.is_none().then_some(token);
    let entry = args.append.is_none().then_some(entry);
    if out.format == Format::Json {
        return out.json(|line| {
            line.field("name", &args.name)
                .optional("token", token)
                .field("sha256", sha256)
                .optional("entry", entry)
        });
    }
    if let Some(token) = token {
        out.text(&format!("{token}\n"))?;
    }
    match (token, entry) {
        (Some(_), Some(entry)) => out.text(&format!("\n{entry}")),
        (None, Some(entry)) => out.text(entry),
        (_, None) => Ok(()),
    }
}

fn random_token() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| Failure::Local(format!("no random numbers: {error}")))?;
    Ok(format!("kv_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

fn entry(args: &NewArgs, sha256: &str) -> String {
    let list = |texts: &[String]| {
        let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        format!("[{}]", quoted.join(", "))
    };
    let mut entry = format!(
        "[[tokens]]\nname = \"{}\"\nsha256 = \"{sha256}\"\nscopes = {}\n",
        args.name,
        list(&args.scopes)
    );
    if !args.prefixes.is_empty() {
        entry.push_str(&format!("prefixes = {}\n", list(&args.prefixes)));
    }
    if let Some(expires) = args.expires {
        entry.push_str(&format!("expires = \"{}\"\n", rfc3339::format(expires)));
    }
    entry
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Refuses to add to a file that nodes would not take, or that has the name already.
fn check_file(path: &Path, name: &str) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let shown = path.display();
    let text = read_private(path).map_err(Failure::Usage)?;
    let table: toml::Table = text
        .parse()
        .map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
    let tokens = table.get("tokens").and_then(toml::Value::as_array);
    let mut names = tokens
        .into_iter()
        .flatten()
        .filter_map(|token| token.get("name")?.as_str());
    match names.any(|known| known == name) {
        true => Err(Failure::Usage(format!(
            "{shown} has a token {name:?} already; give this one another name"
        ))),
        false => Ok(()),
    }
}

fn append(path: &Path, entry: &str) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = private(OpenOptions::new().append(true).create(true)).open(path)?;
    // In one piece: a node may read the file at any time.
    let text = match is_new {
        true => entry.to_owned(),
        false => format!("\n{entry}"),
    };
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn new_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let opened = private(OpenOptions::new().write(true).create_new(true)).open(path);
    let written = opened.and_then(|mut file: File| {
        file.write_all(&[bytes, b"\n"].concat())?;
        file.sync_all()
    });
    written.map_err(|error| Failure::file(path, &error))
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn check_scopes(args: &NewArgs) -> Result<(), Failure> {
    let unlimited = |scope: &&String| matches!(scope.as_str(), "admin" | "replicate" | "node");
    match args.scopes.iter().find(unlimited) {
        Some(scope) if !args.prefixes.is_empty() => Err(Failure::Usage(format!(
            "--prefix does not limit the scope {scope}; make two tokens"
        ))),
        _ => Ok(()),
    }
}

fn name(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("write 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'".to_owned()),
    }
}

fn scope(text: &str) -> Result<String, String> {
    match SCOPES.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("the scopes are {}", SCOPES.join(", "))),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    match text.is_empty() {
        true => Err("leave it out for every key".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn moment(text: &str) -> Result<SystemTime, String> {
    if let Some(moment) = rfc3339::parse(text) {
        return Ok(moment);
    }
    let within: Duration =
        duration(text).map_err(|_| "write 90d, 12h, or 2027-01-01T00:00:00Z".to_owned())?;
    let moment = SystemTime::now().checked_add(within);
    moment.ok_or_else(|| "that is too far away".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES_SCOPES: &str = include_str!("../../../../kvnode/src/access/scope.rs");

    fn args(name: &str, prefixes: &[&str]) -> NewArgs {
        NewArgs {
            name: name.to_owned(),
            scopes: vec!["read".into(), "write".into()],
            prefixes: prefixes.iter().map(ToString::to_string).collect(),
            expires: rfc3339::parse("2027-01-01T00:00:00Z"),
            append: None,
            out: None,
        }
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (one, other) = (
            random_token().expect("a token"),
            random_token().expect("another"),
        );
        assert_ne!(one, other);
        assert_eq!(one.len(), 3 + 43);
        assert!(one.parse::<kvclient::Token>().is_ok(), "{one}");
    }

    #[test]
    fn an_entry_is_toml_whatever_the_prefix() {
        let prefix = "a\"b\\\n]é";
        let entry = entry(&args("web-1", &[prefix, "user:"]), "00ff");
        let table: toml::Table = entry.parse().expect("TOML");
        let token = &table["tokens"][0];
        assert_eq!(token["name"].as_str(), Some("web-1"));
        assert_eq!(token["prefixes"][0].as_str(), Some(prefix));
        assert_eq!(token["scopes"][1].as_str(), Some("write"));
        assert_eq!(token["expires"].as_str(), Some("2027-01-01T00:00:00Z"));
    }

    #[test]
    fn scopes_are_those_that_nodes_know() {
        for scope in SCOPES {
            assert!(
                NODES_SCOPES.contains(&format!("=> \"{scope}\",")),
                "{scope}"
            );
        }
        assert_eq!(NODES_SCOPES.matches("=> \"").count(), SCOPES.len());
    }

    #[test]
    fn when_a_token_ends() {
        let far = moment("90d").expect("a time");
        let left = far.duration_since(SystemTime::now()).expect("later");
        assert!(
            left > Duration::from_secs(89 * 86_400) && left <= Duration::from_secs(90 * 86_400)
        );
        assert_eq!(
            moment("2027-01-01T00:00:00Z").ok(),
            rfc3339::parse("2027-01-01T00:00:00Z")
        );
        assert!(moment("soon").is_err() && moment("2027-01-01").is_err());
    }
}
