//! `ARCHITECTURE.md` and `RELIABILITY.md` name files and tests; this checks that they exist.

use std::{fs, path::Path};

#[test]
fn every_file_and_test_they_name_exists() {
    for (page, least) in [("ARCHITECTURE.md", 60), ("RELIABILITY.md", 10)] {
        let checked = check(page);
        assert!(
            checked > least,
            "{page}: only {checked} names were found: has the way of writing them changed?"
        );
    }
}

/// Checks what a page names; how many names those were.
fn check(page: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join(page)).expect("the page is there");
    let names = |c: char| c.is_ascii_alphanumeric() || "/_-.#".contains(c);
    let mut checked = 0;
    for word in text.split(|c| !names(c)) {
        let word = word.trim_end_matches('.');
        if !["kvclient/", "kvnode/", "examples/", "tests/"]
            .iter()
            .any(|start| word.starts_with(start))
        {
            continue;
        }
        let (file, test) = word.split_once('#').unwrap_or((word, ""));
        let path = root.join(file);
        assert!(path.exists(), "{page} names {file}, which is not there");
        if !test.is_empty() {
            let code = fs::read_to_string(&path).expect("a file of tests");
            assert!(
                code.contains(&format!("fn {test}(")),
                "{file} has no test {test}"
            );
        }
        checked += 1;
    }
    checked
}
