//! `Accept`: which of two formats a client would rather have.
//!
//! A format that is not the usual one comes only to those who name it. Weights (`q`) are from 0, never, to 1.

use actix_web::HttpRequest;

/// Whether `wanted` is named, and weighs no less than `usual`, which a range such as `*/*` may mean too.
pub(super) fn prefers(request: &HttpRequest, wanted: &str, usual: &str) -> bool {
    let headers = request.headers().get_all("accept");
    let texts: Vec<&str> = headers.filter_map(|value| value.to_str().ok()).collect();
    let ranges: Vec<(&str, f32)> = texts
        .iter()
        .flat_map(|text| text.split(','))
        .map(parse)
        .collect();
    let named = |name: &str| weight(&ranges, |range| range.eq_ignore_ascii_case(name));
    let family = usual.split('/').next().unwrap_or_default();
    let usual = named(usual)
        .or_else(|| named(&format!("{family}/*")))
        .or_else(|| named("*/*"));
    named(wanted).is_some_and(|weight| weight > 0.0 && weight >= usual.unwrap_or(0.0))
}

/// The largest weight of such a range, if there is one.
fn weight(ranges: &[(&str, f32)], is_meant: impl Fn(&str) -> bool) -> Option<f32> {
    let meant = ranges.iter().filter(|(range, _)| is_meant(range));
    meant.map(|(_, weight)| *weight).reduce(f32::max)
}

/// A range and its weight: 1 without one, 0 for one that is no number.
fn parse(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let weight = weight.map_or(1.0, |text| text.parse().unwrap_or(0.0));
    (name, weight)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn weights_decide_between_two_formats() {
        for (accept, prefers_it) in [
            ("", false),
            ("*/*", false),
            ("text/*", false),
            ("a/wanted", true),
            ("A/Wanted ; q=0.3", true),
            ("a/wanted;q=0", false),
            ("a/wanted;q=0.0, text/plain;q=0", false),
            ("a/wanted;q=soon", false),
            ("a/wanted;version=1;q=0.5,*/*;q=0.1", true),
            ("a/wanted;q=0.5, text/plain", false),
            ("a/wanted;q=0.5, */*", false),
            ("a/wanted;q=0.5, */*, text/*;q=0.2", true),
            ("text/html, a/wanted;q=0.1", true),
            ("a/wanted, text/plain", true),
        ] {
            let request = TestRequest::default().insert_header(("accept", accept));
            let found = prefers(&request.to_http_request(), "a/wanted", "text/plain");
            assert_eq!(found, prefers_it, "{accept}");
        }
        let twice = TestRequest::default()
            .append_header(("accept", "text/plain;q=0.2"))
            .append_header(("accept", "a/wanted;q=0.5"));
        assert!(prefers(&twice.to_http_request(), "a/wanted", "text/plain"));
    }
}
