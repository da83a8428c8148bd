//! Batches as lines of JSON, for curl: one op a line in, one result a line out.
//!
//! ```text
//! op        get, put, delete, incr, expire, persist
//! key       text, or key_b64
//! value     text, or value_b64 (put)
//! delta     a 64-bit integer (incr)
//! ttl       as in queries: "90s" (put, expire)
//! terms     if_match, if_none_match: "epoch.seq" or "*"; request_id; ack; min_position; max_lag_ms; wait_ms;
//!           time_left_ms: as in the headers of these names
//!
//! result    status; applied, position, etag, ttl_ms, value or value_b64, error, message, target as far as they are there
//! ```
//!
//! Strict: a field that is unknown, stands twice, is missing or does not go with the op refuses all, with its line.

use std::borrow::Cow;

use kvclient::{
    key::Key,
    position::Position,
    wire::{
        MAX_BATCH_OPS,
        batch::{Ack, Action, Condition, Op, OpResult, RequestId, Terms},
        line::Line,
        query::parse_duration_ms,
    },
};
use serde::Deserialize;

use super::request::{ACK_FORM, REQUEST_ID_FORM, parse_request_id};
use crate::json::bytes_of;

/// Characters of what is wrong that a message repeats.
const QUOTED_CHARS: usize = 300;

/// One op, as it stands on its line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpLine {
    op: String,
    key: Option<String>,
    key_b64: Option<String>,
    value: Option<String>,
    value_b64: Option<String>,
    delta: Option<i64>,
    ttl: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
    request_id: Option<String>,
    /// A word or a number.
    ack: Option<serde_json::Value>,
    min_position: Option<String>,
    max_lag_ms: Option<u64>,
    wait_ms: Option<u32>,
    time_left_ms: Option<u32>,
}

/// Reads a batch whole. What is behind the last line break may be empty.
///
/// # Errors
/// What is malformed and on which line, for a person; nothing may be done then.
pub(super) fn decode_lines(body: &[u8], ack: Option<Ack>) -> Result<Vec<Op>, String> {
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let count = 1 + body.iter().filter(|&&byte| byte == b'\n').count();
    if count > MAX_BATCH_OPS {
        return Err(format!(
            "{count} lines; a batch has at most {MAX_BATCH_OPS} ops"
        ));
    }
    body.split(|&byte| byte == b'\n')
        .enumerate()
        .map(|(at, line)| {
            decode_line(line, ack).map_err(|problem| format!("line {}: {problem}", at + 1))
        })
        .collect()
}

fn decode_line(line: &[u8], ack: Option<Ack>) -> Result<Op, String> {
    if line.trim_ascii().is_empty() {
        return Err("it is empty; one op stands on each line".into());
    }
    // An array would do for the reader, with its fields in order.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err(r#"it is no JSON object such as {"op":"get","key":"a"}"#.into());
    }
    let mut line: OpLine = serde_json::from_slice(line).map_err(|error| said(&error))?;
    let key = bytes_of("key", line.key.take(), line.key_b64.take())?;
    let key = key.ok_or("the field key (or key_b64) is missing")?;
    let key = Key::new(key).map_err(|error| error.to_string())?;
    let says_ack = line.ack.is_some();
    let mut terms = line.terms()?;
    let action = line.action()?;
    if !says_ack && action.is_write() {
        terms.ack = ack;
    }
    Ok(Op { key, action, terms })
}

/// What JSON's reader says, with the column, and without a line: it knows one only.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (what, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
    let hint = match what {
        "trailing characters" => {
            "; one object stands on each line (curl keeps line breaks with --data-binary)"
        }
        _ => "",
    };
    format!("{} at column {}{hint}", short(what), error.column())
}

impl OpLine {
    fn action(self) -> Result<Action, String> {
        let value = bytes_of("value", self.value, self.value_b64)?;
        let ttl_ms = self
            .ttl
            .map(|ttl| {
                parsed(
                    "ttl",
                    &ttl,
                    "a whole number > 0 with ms, s, m, h or d, such as 90s",
                    parse_duration_ms,
                )
            })
            .transpose()?;
        match (self.op.as_str(), value, self.delta, ttl_ms) {
            ("get", None, None, None) => Ok(Action::Get),
            ("put", Some(value), None, ttl_ms) => Ok(Action::Put { value, ttl_ms }),
            ("delete", None, None, None) => Ok(Action::Delete),
            ("incr", None, Some(delta), None) => Ok(Action::Incr { delta }),
            ("expire", None, None, Some(ttl_ms)) => Ok(Action::Expire { ttl_ms }),
            ("persist", None, None, None) => Ok(Action::Persist),
            (op, value, delta, ttl) => {
                Err(unfit(op, value.is_some(), delta.is_some(), ttl.is_some()))
            }
        }
    }

    fn terms(&self) -> Result<Terms, String> {
        Ok(Terms {
            condition: self.condition()?,
            request_id: self.request_id()?,
            ack: self.ack()?,
            min_position: self
                .min_position
                .as_deref()
                .map(|text| position("min_position", text))
                .transpose()?,
            max_lag_ms: self.max_lag_ms,
            wait_ms: self.wait_ms,
            time_left_ms: self.time_left_ms,
        })
    }

    fn condition(&self) -> Result<Option<Condition>, String> {
        match (self.if_match.as_deref(), self.if_none_match.as_deref()) {
            (None, None) => Ok(None),
            (Some("*"), None) => Ok(Some(Condition::Exists)),
            (None, Some("*")) => Ok(Some(Condition::Absent)),
            (Some(text), None) => position("if_match", text).map(|at| Some(Condition::Is(at))),
            (None, Some(text)) => {
                position("if_none_match", text).map(|at| Some(Condition::Differs(at)))
            }
            (Some(_), Some(_)) => Err("if_match and if_none_match together; give one".into()),
        }
    }

    fn request_id(&self) -> Result<Option<RequestId>, String> {
        let text = self.request_id.as_deref();
        text.map(|text| parsed("request_id", text, REQUEST_ID_FORM, parse_request_id))
            .transpose()
    }

    fn ack(&self) -> Result<Option<Ack>, String> {
        let Some(ack) = &self.ack else {
            return Ok(None);
        };
        let text = match ack {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        parsed("ack", &text, ACK_FORM, Ack::from_text)
    }
}

/// Why fields and op do not go together.
fn unfit(op: &str, value: bool, delta: bool, ttl: bool) -> String {
    let (needed, allowed): (&[&str], &[&str]) = match op {
        "get" | "delete" | "persist" => (&[], &[]),
        "put" => (&["value"], &["value", "ttl"]),
        "incr" => (&["delta"], &["delta"]),
        "expire" => (&["ttl"], &["ttl"]),
        _ => {
            let known = "get, put, delete, incr, expire, persist";
            return format!("op {:?} is none of {known}", short(op));
        }
    };
    let there = [("value", value), ("delta", delta), ("ttl", ttl)];
    for (name, is_there) in there {
        if is_there && !allowed.contains(&name) {
            return format!("the field {name} does not go with {op}");
        }
        if !is_there && needed.contains(&name) {
            let other = if name == "value" {
                " (or value_b64)"
            } else {
                ""
            };
            return format!("the field {name}{other} is missing: {op} needs it");
        }
    }
    format!("the fields do not go with {op}")
}

fn position(name: &str, text: &str) -> Result<Position, String> {
    parsed(name, text, "a position such as 3.1207", |text| {
        text.parse().ok()
    })
}

fn parsed<T>(
    name: &str,
    text: &str,
    wanted: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, String> {
    parse(text).ok_or_else(|| format!("{name}: {:?} is not {wanted}", short(text)))
}

/// The beginning of text that is to be quoted: it may be a value that came into the wrong field.
fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED_CHARS) {
        None => text.into(),
        Some((end, _)) => format!("{}...", &text[..end]).into(),
    }
}

/// The answer to a batch.
pub(super) fn encode_lines(results: &[OpResult]) -> Vec<u8> {
    let mut out = Vec::new();
    for result in results {
        encode_line(result, &mut out);
    }
    out
}

fn encode_line(result: &OpResult, out: &mut Vec<u8>) {
    let text = |position: Option<Position>| position.map(|position| position.to_string());
    let mut line = Line::begin(out)
        .field("status", result.status)
        .optional("applied", result.applied.map(|applied| applied.as_str()))
        .optional("position", text(result.position))
        .optional("etag", text(result.etag))
        .optional("ttl_ms", result.ttl_ms);
    if let Some(value) = &result.value {
        line = line.bytes("value", value);
    }
    if let Some(error) = &result.error {
        line = line
            .field("error", error.code.as_str())
            .field("message", &error.message);
    }
    line.optional("target", result.target.as_deref()).end();
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kvclient::wire::{
        batch,
        error::{Applied, ErrorCode},
    };
    use proptest::prelude::*;

    use super::*;

    fn one(line: &str) -> Result<Op, String> {
        decode_lines(line.as_bytes(), None).map(|mut ops| ops.remove(0))
    }

    fn action(line: &str) -> Action {
        one(line).unwrap().action
    }

    #[test]
    fn every_op_can_be_said() {
        for (line, expected) in [
            (r#"{"op":"get","key":"k"}"#, Action::Get),
            (
                r#"{"op":"put","key":"k","value":"é","ttl":"90s"}"#,
                Action::Put {
                    value: "é".into(),
                    ttl_ms: Some(90_000),
                },
            ),
            (
                r#"{"key_b64":"aw==","value_b64":"/w==","op":"put"}"#,
                Action::Put {
                    value: Bytes::from_static(b"\xff"),
                    ttl_ms: None,
                },
            ),
            (r#"{"op":"delete","key":"k"}"#, Action::Delete),
            (
                r#"{"op":"incr","key":"k","delta":-5}"#,
                Action::Incr { delta: -5 },
            ),
            (
                r#"{"op":"expire","key":"k","ttl":"1ms"}"#,
                Action::Expire { ttl_ms: 1 },
            ),
            (r#"{"op":"persist","key":"k"}"#, Action::Persist),
        ] {
            assert_eq!(action(line), expected, "{line}");
            assert_eq!(one(line).unwrap().key.as_bytes(), b"k");
        }
    }

    #[test]
    fn every_term_can_be_said() {
        let terms = |field: &str| {
            one(&format!(r#"{{"op":"get","key":"k",{field}}}"#))
                .unwrap()
                .terms
        };
        let at = Position::new(1, 2);
        let condition = |condition| Terms {
            condition: Some(condition),
            ..Terms::default()
        };
        let ack = |ack| Terms {
            ack,
            ..Terms::default()
        };
        for (field, expected) in [
            (r#""if_match":"*""#, condition(Condition::Exists)),
            (r#""if_match":"1.2""#, condition(Condition::Is(at))),
            (r#""if_none_match":"*""#, condition(Condition::Absent)),
            (
                r#""if_none_match":"1.2""#,
                condition(Condition::Differs(at)),
            ),
            (r#""ack":"primary""#, ack(None)),
            (r#""ack":2"#, ack(Some(Ack::Replicas(2)))),
            (r#""ack":"2""#, ack(Some(Ack::Replicas(2)))),
            (r#""ack":"majority""#, ack(Some(Ack::Majority))),
        ] {
            assert_eq!(terms(field), expected, "{field}");
        }
        let all = r#""request_id":"00000000-0000-0000-0000-0000000000ff.7;floor=3","min_position":"1.2","max_lag_ms":5,"wait_ms":6,"time_left_ms":7"#;
        let id = RequestId {
            client: 255,
            n: 7,
            floor: 3,
        };
        let expected = Terms {
            request_id: Some(id),
            min_position: Some(at),
            max_lag_ms: Some(5),
            wait_ms: Some(6),
            time_left_ms: Some(7),
            ..Terms::default()
        };
        assert_eq!(terms(all), expected);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let good = r#"{"op":"get","key":"k"}"#;
        let long = format!(r#"{{"op":"get","key":"{}"}}"#, "k".repeat(512));
        for (bad, part) in [
            ("", "it is empty"),
            ("  \r", "it is empty"),
            ("rubbish", "no JSON object"),
            ("{rubbish", "at column 2"),
            (r#"["get","k"]"#, "no JSON object"),
            (
                r#"{"op":"get","key":"k"}{"op":"get","key":"l"}"#,
                "--data-binary",
            ),
            (r#"{"op":"get","key":"k","if_mtach":"*"}"#, "`if_mtach`"),
            (
                r#"{"op":"get","op":"get","key":"k"}"#,
                "duplicate field `op`",
            ),
            (r#"{"key":"k"}"#, "missing field `op`"),
            (r#"{"op":"got","key":"k"}"#, "\"got\" is none of"),
            (r#"{"op":"get"}"#, "key (or key_b64) is missing"),
            (r#"{"op":"get","key":""}"#, "empty"),
            (&long, "512 bytes"),
            (r#"{"op":"get","key":"k","key_b64":"aw=="}"#, "both"),
            (r#"{"op":"get","key_b64":"?"}"#, "base64"),
            (
                r#"{"op":"put","key":"k"}"#,
                "value (or value_b64) is missing",
            ),
            (r#"{"op":"put","key":"k","value":5}"#, "expected a string"),
            (
                r#"{"op":"put","key":"k","value":"v","value_b64":""}"#,
                "both",
            ),
            (
                r#"{"op":"put","key":"k","value":"v","delta":1}"#,
                "delta does not go with put",
            ),
            (
                r#"{"op":"put","key":"k","value":"v","ttl":"90"}"#,
                "\"90\" is not",
            ),
            (
                r#"{"op":"put","key":"k","value":"v","ttl":"0s"}"#,
                "\"0s\" is not",
            ),
            (
                r#"{"op":"get","key":"k","value":"v"}"#,
                "value does not go with get",
            ),
            (r#"{"op":"incr","key":"k"}"#, "delta is missing"),
            (r#"{"op":"incr","key":"k","delta":1.5}"#, "expected i64"),
            (
                r#"{"op":"incr","key":"k","delta":9223372036854775808}"#,
                "expected i64",
            ),
            (r#"{"op":"expire","key":"k"}"#, "ttl is missing"),
            (
                r#"{"op":"get","key":"k","if_match":"\"1.2\""}"#,
                "a position",
            ),
            (
                r#"{"op":"get","key":"k","if_match":"*","if_none_match":"*"}"#,
                "give one",
            ),
            (r#"{"op":"get","key":"k","request_id":"7"}"#, "<uuid>.<n>"),
            (r#"{"op":"get","key":"k","ack":0}"#, "from 1 to 253"),
            (r#"{"op":"get","key":"k","ack":[]}"#, "from 1 to 253"),
            (r#"{"op":"get","key":"k","wait_ms":-5}"#, "expected u32"),
        ] {
            let body = format!("{good}\n{bad}\n{good}\n");
            let problem = decode_lines(body.as_bytes(), None).unwrap_err();
            assert!(problem.starts_with("line 2: "), "{bad}: {problem}");
            assert!(problem.contains(part), "{bad}: {problem}");
        }
        let not_text = b"{\"op\":\"get\",\"key\":\"\xff\"}";
        assert!(
            decode_lines(not_text, None)
                .unwrap_err()
                .starts_with("line 1: ")
        );
    }

    #[test]
    fn the_ack_of_the_request_is_for_writes_that_say_none() {
        let body = r#"{"op":"put","key":"a","value":""}
{"op":"delete","key":"a","ack":1}
{"op":"incr","key":"a","delta":1,"ack":"primary"}
{"op":"get","key":"a"}"#;
        let acks = |of_request| -> Vec<Option<Ack>> {
            let ops = decode_lines(body.as_bytes(), of_request).unwrap();
            ops.into_iter().map(|op| op.terms.ack).collect()
        };
        let one = Some(Ack::Replicas(1));
        assert_eq!(acks(Some(Ack::All)), [Some(Ack::All), one, None, None]);
        assert_eq!(acks(None), [None, one, None, None]);
    }

    /// A value in a field of another kind came back in the message, escaped twice: up to 160 MiB for a batch of 16.
    #[test]
    fn what_is_wrong_is_quoted_in_part() {
        let large = "\\u0001".repeat(100_000);
        for line in [
            format!(r#"{{"op":"{large}","key":"k"}}"#),
            format!(r#"{{"op":"put","key":"k","value":"v","ttl":"{large}"}}"#),
            format!(r#"{{"op":"get","key":"k","request_id":"{large}"}}"#),
            format!(r#"{{"op":"get","key":"k","ack":["{large}"]}}"#),
            format!(r#"{{"op":"incr","key":"k","delta":"{large}"}}"#),
            format!(r#"{{"op":"get","key":"k","{large}":1}}"#),
        ] {
            let problem = one(&line).unwrap_err();
            assert!(problem.len() < 4_000, "{} bytes", problem.len());
        }
    }

    #[test]
    fn the_last_line_may_be_empty_and_there_are_at_most_1000() {
        let line = r#"{"op":"get","key":"k"}"#;
        for (body, count) in [
            (String::new(), Some(0)),
            ("\n".into(), Some(0)),
            (line.into(), Some(1)),
            (format!("{line}\r\n"), Some(1)),
            (format!("{line}\n\n"), None),
            (format!("{line}\n").repeat(1_000), Some(1_000)),
            (format!("{line}\n").repeat(1_001), None),
        ] {
            let found = decode_lines(body.as_bytes(), None)
                .ok()
                .map(|ops| ops.len());
            assert_eq!(found, count, "{} bytes", body.len());
        }
    }

    #[test]
    fn results_say_what_is_there() {
        let full = OpResult {
            status: 200,
            applied: Some(Applied::Yes),
            position: Some(Position::new(1, 2)),
            etag: Some(Position::new(1, 1)),
            ttl_ms: Some(3),
            value: Some(Bytes::from_static(b"\xff")),
            ..OpResult::default()
        };
        let mut refused = OpResult::refused(ErrorCode::ReadOnlyReplica, "no", Some(Applied::No));
        refused.target = Some("h:1".into());
        let text = String::from_utf8(encode_lines(&[full, refused])).unwrap();
        let expected = concat!(
            r#"{"status":200,"applied":"yes","position":"1.2","etag":"1.1","ttl_ms":3,"value_b64":"/w=="}"#,
            "\n",
            r#"{"status":403,"applied":"no","error":"read_only_replica","message":"no","target":"h:1"}"#,
            "\n",
        );
        assert_eq!(text, expected);
    }

    /// Lines that are nearly right: known fields with values of every kind.
    fn any_line() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            prop::sample::select(vec![
                "op",
                "key",
                "key_b64",
                "value",
                "value_b64",
                "delta",
                "ttl",
                "if_match",
                "ack",
                "request_id",
                "min_position",
                "max_lag_ms",
            ]),
            Just("nobody_knows_me"),
        ];
        let value = prop_oneof![
            prop::sample::select(vec![
                "\"get\"",
                "\"put\"",
                "\"incr\"",
                "\"expire\"",
                "\"90s\"",
                "\"1.2\"",
                "\"/w==\"",
                "\"*\"",
                "\"majority\"",
                "7",
                "-1",
                "null",
                "[]",
                "1e400",
                "99999999999999999999",
            ])
            .prop_map(str::to_owned),
            any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        ];
        prop::collection::vec((name, value), 0..6).prop_map(|fields| {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            format!("{{{}}}", fields.join(","))
        })
    }

    fn check_ops(body: &[u8]) {
        if let Ok(ops) = decode_lines(body, None) {
            let frames = batch::encode_ops(ops.iter());
            assert_eq!(batch::decode_ops(frames.into()), Ok(ops), "as frames");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            check_ops(&body);
        }

        #[test]
        fn what_is_nearly_a_line_is_an_op_or_refused(lines in prop::collection::vec(any_line(), 1..4)) {
            check_ops(lines.join("\n").as_bytes());
        }
    }
}
