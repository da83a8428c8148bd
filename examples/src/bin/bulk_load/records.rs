//! The file: lines -> records.
//!
//! All records are held in memory: they are compared afterwards, and standard input comes only once. Of records
//! with the same key the last one counts, as if they had been put one after the other.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, IsTerminal},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use kvclient::key::Key;

use crate::{Args, Format};

/// One line of the file.
pub(crate) struct Record {
    pub(crate) key: Key,
    /// The whole line.
    pub(crate) value: Bytes,
}

/// Reads all records, each key once.
pub(crate) fn read(args: &Args) -> anyhow::Result<Vec<Record>> {
    let key_of = key_reader(args)?;
    let (name, input): (_, Box<dyn BufRead>) = match &args.file {
        Some(file) if file.as_os_str() != "-" => {
            let name = file.display().to_string();
            let input = std::fs::File::open(file).with_context(|| format!("cannot read {name}"))?;
            (name, Box::new(BufReader::new(input)))
        }
        named => {
            let input = std::io::stdin();
            ensure!(
                named.is_some() || !input.is_terminal(),
                "name a file to load, or - to type records; see --help"
            );
            ("standard input".to_owned(), Box::new(input.lock()))
        }
    };
    let mut records: Vec<Record> = Vec::new();
    let mut places: HashMap<Key, usize> = HashMap::new();
    for (number, line) in input.split(b'\n').enumerate() {
        let mut line = line.with_context(|| format!("cannot read {name}"))?;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.is_empty() {
            continue;
        }
        let place = || format!("{name}:{}", number + 1);
        let key = key_of(&line).with_context(place)?;
        let key = Key::new([args.prefix.as_bytes(), &key].concat()).with_context(place)?;
        let value = Bytes::from(line);
        match places.get(&key) {
            Some(&at) => records[at].value = value,
            None => {
                places.insert(key.clone(), records.len());
                records.push(Record { key, value });
            }
        }
    }
    ensure!(!records.is_empty(), "{name} has no records");
    Ok(records)
}

/// How the key is taken from a line.
fn key_reader(args: &Args) -> anyhow::Result<impl Fn(&[u8]) -> anyhow::Result<Vec<u8>>> {
    let column = match (args.format, args.key_column.as_deref()) {
        (Format::Columns, None) => 1,
        (Format::Columns, Some(number)) => number
            .parse::<usize>()
            .ok()
            .filter(|&number| number > 0)
            .with_context(|| format!("--key-column {number}: columns are numbered 1, 2, 3 ..."))?,
        (Format::Ndjson, _) => 0,
    };
    ensure!(!args.separator.is_empty(), "--separator must not be empty");
    let separator = args.separator.clone().into_bytes();
    let field = args.key_column.clone().unwrap_or_else(|| "key".to_owned());
    Ok(move |line: &[u8]| match column {
        0 => json_field(line, &field),
        _ => columns(line, &separator)
            .nth(column - 1)
            .map(<[u8]>::to_vec)
            .with_context(|| format!("there is no column {column}; give --separator?")),
    })
}

fn columns<'a>(line: &'a [u8], separator: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let end = line
            .windows(separator.len())
            .position(|window| window == separator);
        rest = end.map(|end| &line[end + separator.len()..]);
        Some(&line[..end.unwrap_or(line.len())])
    })
}

fn json_field(line: &[u8], field: &str) -> anyhow::Result<Vec<u8>> {
    let object: serde_json::Value = serde_json::from_slice(line)?;
    match object.get(field) {
        Some(serde_json::Value::String(text)) => Ok(text.clone().into_bytes()),
        Some(serde_json::Value::Number(number)) => Ok(number.to_string().into_bytes()),
        Some(_) => bail!("the field {field:?} is neither text nor a number"),
        None => bail!("there is no field {field:?}; give --key-column"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn keys(arguments: &[&str], line: &str) -> anyhow::Result<Vec<u8>> {
        let arguments = ["bulk_load"].iter().chain(arguments);
        key_reader(&Args::try_parse_from(arguments)?)?(line.as_bytes())
    }

    #[test]
    fn keys_are_taken_from_columns_and_fields() {
        for (arguments, line, want) in [
            (&[][..], "a\tb", "a"),
            (&[], "alone", "alone"),
            (&["--separator", ";"], "0041;LATIN;;", "0041"),
            (
                &["--separator", ";", "--key-column", "2"],
                "0041;LATIN;;",
                "LATIN",
            ),
            (&["--separator", "::", "--key-column", "2"], "a::b::c", "b"),
            (&["--format", "ndjson"], r#"{"key":"k","v":1}"#, "k"),
            (
                &["--format", "ndjson", "--key-column", "id"],
                r#"{"id":17}"#,
                "17",
            ),
        ] {
            assert_eq!(keys(arguments, line).expect(line), want.as_bytes());
        }
    }

    #[test]
    fn what_has_no_key_is_refused() {
        for (arguments, line) in [
            (&["--key-column", "3"][..], "a\tb"),
            (&["--key-column", "0"], "a\tb"),
            (&["--key-column", "name"], "a\tb"),
            (&["--separator", ""], "a\tb"),
            (&["--format", "ndjson"], "{}"),
            (&["--format", "ndjson"], "not json"),
            (&["--format", "ndjson"], r#"{"key":[1]}"#),
        ] {
            assert!(keys(arguments, line).is_err(), "{arguments:?} {line}");
        }
    }
}
