//! Changes as text: the events of a watch, as `http/watch.rs` describes them. Nothing else in a watch's body.

use std::io::Write;

use kvclient::{
    position::{Position, Seq},
    wire::{
        line::Line,
        log::{Effect, Record},
    },
};

/// One record. The start of a reign is no event: nothing is written for it.
pub(super) fn record_event(out: &mut Vec<u8>, position: Position, time_ms: u64, record: &Record) {
    let name = match record.effect {
        Effect::Put { .. } => "put",
        Effect::Delete { .. } => "delete",
        Effect::Expire { .. } => "expire",
        Effect::EpochStart { .. } => return,
    };
    event(out, name, Some(position), |line| {
        let line = line.bytes("key", &record.key);
        let line = match &record.effect {
            Effect::Put {
                value,
                expires_at_ms,
            } => line
                .bytes("value", value)
                .optional("expires_at_ms", *expires_at_ms),
            Effect::Expire { expires_at_ms } => line.field("expires_at_ms", expires_at_ms),
            Effect::Delete { by_expiry } => line.field("by_expiry", by_expiry),
            Effect::EpochStart { .. } => line,
        };
        line.field("time_ms", time_ms)
    });
}

/// All up to `at` was looked at; readers of the node see all up to `visible`.
pub fn position_event(out: &mut Vec<u8>, at: Position, visible: Position) {
    event(out, "position", Some(at), |line| {
        line.field("position", at.to_string())
            .field("visible", visible.to_string())
    });
}

/// The log no longer has what comes next. It has no id, so that `Last-Event-ID` stays what it was.
pub(super) fn truncated_event(out: &mut Vec<u8>, at: Position, truncated: Seq) {
    event(out, "log_truncated", None, |line| {
        line.field("position", at.to_string())
            .field("truncated", truncated)
    });
}

/// Writes an event. JSON has no line breaks but in escapes, so its data is one line whatever the keys and values.
fn event(
    out: &mut Vec<u8>,
    name: &str,
    id: Option<Position>,
    data: impl FnOnce(Line<'_>) -> Line<'_>,
) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        // Never fails: memory.
        let _ = write!(out, "\nid: {id}");
    }
    out.extend_from_slice(b"\ndata: ");
    data(Line::begin(out)).end();
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn text_of(effect: Effect) -> String {
        let mut out = Vec::new();
        let record = Record::new(Bytes::from_static(b"k"), effect);
        record_event(&mut out, Position::new(3, 7), 99, &record);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_of_records() {
        let put = |value, expires_at_ms| Effect::Put {
            value: Bytes::from_static(value),
            expires_at_ms,
        };
        for (effect, event, fields) in [
            (put(b"a\nb", None), "put", r#""value":"a\nb","#),
            (
                put(b"\xff", Some(5)),
                "put",
                r#""value_b64":"/w==","expires_at_ms":5,"#,
            ),
            (
                Effect::Delete { by_expiry: true },
                "delete",
                r#""by_expiry":true,"#,
            ),
            (
                Effect::Expire {
                    expires_at_ms: None,
                },
                "expire",
                r#""expires_at_ms":null,"#,
            ),
        ] {
            let expected = format!(
                "event: {event}\nid: 3.7\ndata: {{\"key\":\"k\",{fields}\"time_ms\":99}}\n\n"
            );
            assert_eq!(text_of(effect), expected);
        }
        let reign = Effect::EpochStart {
            reign_id: 1,
            node: "n:1".into(),
        };
        assert_eq!(text_of(reign), "");
    }

    #[test]
    fn events_of_the_watch_itself() {
        let mut out = Vec::new();
        position_event(&mut out, Position::new(3, 7), Position::new(3, 9));
        truncated_event(&mut out, Position::new(3, 7), 90);
        let expected = "event: position\nid: 3.7\ndata: {\"position\":\"3.7\",\"visible\":\"3.9\"}\n\n\
            event: log_truncated\ndata: {\"position\":\"3.7\",\"truncated\":90}\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
