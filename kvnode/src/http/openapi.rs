//! `GET /openapi.json`: the API's description, for people and for programs that make clients or tests from it.
//!
//! Written by hand and part of the program. The tests here hold it to the protocol's tables, those in
//! `tests/cluster/openapi.rs` to what a node answers, and `tests/schemathesis.sh` tries it out.

use actix_web::HttpResponse;

use super::answer;
use crate::service::Service;

const DESCRIPTION: &str = include_str!("openapi.json");

/// Gives the description out.
pub(super) fn openapi(service: &Service) -> HttpResponse {
    answer::json(200, DESCRIPTION.to_owned(), service)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kvclient::wire::error::ErrorCode;
    use serde_json::{Value, json};

    use super::*;

    const PROTOCOL: &str = include_str!("../../../kvclient/src/wire/mod.rs");

    fn description() -> Value {
        serde_json::from_str(DESCRIPTION).unwrap()
    }

    /// Texts of the protocol's constants that begin like this: routes, headers.
    fn constants(begin: &str) -> Vec<&'static str> {
        let text = |line: &'static str| {
            let (_, value) = line
                .trim()
                .strip_prefix("pub const ")?
                .split_once(" = \"")?;
            value.strip_suffix("\";")
        };
        let all = PROTOCOL.lines().filter_map(text);
        all.filter(|text| text.starts_with(begin)).collect()
    }

    /// Calls `look` for every value in the document, outer ones first.
    fn walk<'a>(value: &'a Value, look: &mut impl FnMut(&'a Value)) {
        look(value);
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, look)),
            Value::Object(fields) => fields.values().for_each(|field| walk(field, look)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn it_is_of_this_version() {
        assert_eq!(description()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn every_route_is_described() {
        let description = description();
        let routes = constants("/");
        assert!(routes.len() >= 16, "{routes:?}");
        for route in routes {
            assert!(description["paths"].get(route).is_some(), "{route}");
        }
    }

    #[test]
    fn every_header_is_described() {
        let headers = constants("kv-");
        assert!(headers.len() >= 20, "{headers:?}");
        let text = DESCRIPTION.to_ascii_lowercase();
        for header in headers {
            assert!(text.contains(&format!("\"{header}\"")), "{header}");
        }
    }

    #[test]
    fn every_code_is_described_at_its_status() {
        let description = description();
        let known = || ErrorCode::all().filter(|code| *code != ErrorCode::Other);
        let codes: Vec<_> = known().map(ErrorCode::as_str).collect();
        let error = &description["components"]["schemas"]["Error"];
        assert_eq!(error["properties"]["error"]["enum"], json!(codes));
        let statuses: BTreeSet<u16> = known().map(ErrorCode::status).collect();
        for status in statuses {
            let of_status: Vec<_> = known()
                .filter(|code| code.status() == status)
                .map(ErrorCode::as_str)
                .collect();
            let responses = description["components"]["responses"].as_object().unwrap();
            let is_said = responses.values().any(|response| {
                let schema = &response["content"]["application/json"]["schema"]["allOf"][1];
                schema["properties"]["error"]["enum"] == json!(of_status)
            });
            assert!(is_said, "no response has exactly {of_status:?}");
        }
    }

    #[test]
    fn what_it_refers_to_is_there() {
        let description = description();
        let mut references = 0;
        walk(&description, &mut |value| {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(description.pointer(pointer).is_some(), "{reference}");
                references += 1;
            }
        });
        assert!(references > 300, "only {references} were found");
    }
}
