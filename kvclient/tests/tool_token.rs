//! `kv token new`, and how the tool shows a token: as scripts do it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
};

use kvclient::{Token, rfc3339};
use sha2::{Digest, Sha256};

/// `kv` in a directory, without what this shell knows of clusters.
fn kv(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
    command
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null());
    for name in ["KV_MAP", "KV_NODE", "KV_TOKEN"] {
        command.env_remove(name);
    }
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    kv(dir, arguments).output().unwrap()
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sha256(token: &str) -> String {
    let digest = Sha256::digest(token);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_token_is_shown_once_beside_its_entry() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["token", "new", "web-1", "--scopes", "read,write"];
    let more = [
        "--prefix",
        "user:",
        "--prefix",
        "a\"b",
        "--expires",
        "2027-01-01T00:00:00Z",
    ];
    let output = run(dir.path(), &[&words[..], &more].concat());
    assert!(output.status.success(), "{}", said(&output));
    let (token, entry) = text(&output).split_once("\n\n").unwrap();
    assert!(token.parse::<Token>().is_ok(), "{token}");
    let table: toml::Table = entry.parse().unwrap();
    let known = &table["tokens"][0];
    assert_eq!(known["name"].as_str(), Some("web-1"));
    assert_eq!(known["sha256"].as_str(), Some(sha256(token).as_str()));
    assert_eq!(known["scopes"].as_array().unwrap().len(), 2);
    assert_eq!(known["prefixes"][1].as_str(), Some("a\"b"));
    assert!(rfc3339::parse(known["expires"].as_str().unwrap()).is_some());
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is kept"
    );
    let json = run(dir.path(), &[&["--json"], &words[..]].concat());
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let token = json["token"].as_str().unwrap();
    assert_eq!(json["sha256"], sha256(token));
}

#[test]
fn files_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let new = |name: &str, rest: &[&str]| {
        let words = [
            "token",
            "new",
            name,
            "--scopes",
            "read",
            "--append",
            "tokens.toml",
        ];
        run(dir.path(), &[&words[..], rest].concat())
    };
    let (tokens, secret) = (dir.path().join("tokens.toml"), dir.path().join("a.token"));
    let output = new("a", &["--out", "a.token"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(text(&output), "", "it went into the file");
    let token = Token::from_file(&secret).unwrap();
    assert_eq!((mode(&tokens), mode(&secret)), (0o600, 0o600));
    let output = new("b", &["--expires", "90d"]);
    assert_eq!(text(&output).lines().count(), 1, "only the token");
    let before = fs::read_to_string(&tokens).unwrap();
    let table: toml::Table = before.parse().unwrap();
    assert_eq!(table["tokens"].as_array().unwrap().len(), 2);
    assert!(before.contains(&sha256(token.expose())));
    assert!(before.contains(&sha256(text(&output).trim_end())));
    assert!(!before.contains(token.expose()));
    // What cannot be is refused before anything is written.
    for (name, rest, words) in [
        ("a", &[][..], "has a token \"a\" already"),
        ("c d", &[], "1 to 64"),
        ("c", &["--out", "a.token"], "a.token"),
        ("c", &["--scopes", "all"], "the scopes are"),
        (
            "c",
            &["--scopes", "replicate", "--prefix", "x"],
            "does not limit",
        ),
        (
            "c",
            &["--scopes", "node", "--prefix", "x"],
            "does not limit",
        ),
        ("c", &["--prefix", ""], "every key"),
        ("c", &["--expires", "soon"], "90d"),
    ] {
        let output = new(name, rest);
        assert_eq!(output.status.code(), Some(2), "{name} {rest:?}");
        assert!(said(&output).contains(words), "{}", said(&output));
        assert_eq!(text(&output), "");
        assert_eq!(fs::read_to_string(&tokens).unwrap(), before);
    }
    fs::set_permissions(&tokens, Permissions::from_mode(0o644)).unwrap();
    let output = new("c", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("chmod 600"), "{}", said(&output));
}

/// Refuses each request and passes on its head.
fn listener() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, heads) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut part = [0; 4_096];
            let count = stream.read(&mut part).unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&part[..count]).to_lowercase());
            let body = "{\"error\":\"unauthorized\",\"message\":\"a token is needed\"}";
            let answer = format!(
                "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, heads)
}

#[test]
fn a_token_comes_from_a_file_or_a_variable_and_never_from_an_argument() {
    let dir = tempfile::tempdir().unwrap();
    let (node, heads) = listener();
    let path = dir.path().join("token");
    fs::write(&path, "kv_of-the-file\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for (flags, variable, shown) in [
        (&[][..], None, None),
        (&[], Some("kv_of-the-variable"), Some("kv_of-the-variable")),
        (&["--token-file", "token"], None, Some("kv_of-the-file")),
        (
            &["--token-file", "token"],
            Some("kv_x"),
            Some("kv_of-the-file"),
        ),
    ] {
        let arguments = [&["--node", &node, "get", "k"], flags].concat();
        let mut command = kv(dir.path(), &arguments);
        if let Some(variable) = variable {
            command.env("KV_TOKEN", variable);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(6), "denied: {}", said(&output));
        assert!(
            said(&output).contains("a token is needed"),
            "{}",
            said(&output)
        );
        let head = heads.recv().unwrap();
        match shown {
            Some(token) => assert!(head.contains(&format!("authorization: bearer {token}\r\n"))),
            None => assert!(!head.contains("authorization"), "{head}"),
        }
    }
    let wrong = kv(dir.path(), &["--node", &node, "get", "k"])
        .env("KV_TOKEN", "a b")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    let typed = run(
        dir.path(),
        &["--node", &node, "--token", "kv_x", "get", "k"],
    );
    assert_eq!(typed.status.code(), Some(2));
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let open = run(
        dir.path(),
        &["--node", &node, "--token-file", "token", "get", "k"],
    );
    assert_eq!(open.status.code(), Some(2));
    assert!(said(&open).contains("chmod 600"), "{}", said(&open));
}
