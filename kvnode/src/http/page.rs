//! `GET /`: a page for the person who operates the cluster or tries it for the first time, and below `/page/` the
//! files it is made of.
//!
//! All of it is part of the program and works without a network beyond the node. The page asks the same paths as
//! anyone else, from the browser of whoever looks at it, so it costs nothing while nobody does. What it may do is said by
//! [`POLICY`]: run these files, ask this node, and nothing else. Keys and values reach it as data only.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderValue, REFERRER_POLICY},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{answer, request};
use crate::service::Service;

/// Where the files are.
const FILES_AT: &str = "/page/";

/// What the page may load, ask and run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// A file of the page: its name below `/page/`, content type, and content.
struct File(&'static str, &'static str, &'static str);

const INDEX: File = File("", HTML, include_str!("page/index.html"));

const FILES: &[File] = &[
    File("ask.js", SCRIPT, include_str!("page/ask.js")),
    File("axes.js", SCRIPT, include_str!("page/axes.js")),
    File("base.css", STYLE, include_str!("page/base.css")),
    File("browse.js", SCRIPT, include_str!("page/browse.js")),
    File("bytes.js", SCRIPT, include_str!("page/bytes.js")),
    File("charts.css", STYLE, include_str!("page/charts.css")),
    File("charts.js", SCRIPT, include_str!("page/charts.js")),
    File("cluster.css", STYLE, include_str!("page/cluster.css")),
    File("cluster.js", SCRIPT, include_str!("page/cluster.js")),
    File("colours.css", STYLE, include_str!("page/colours.css")),
    File("dialogs.js", SCRIPT, include_str!("page/dialogs.js")),
    File("editor.js", SCRIPT, include_str!("page/editor.js")),
    File("entry.css", STYLE, include_str!("page/entry.css")),
    File("entry.js", SCRIPT, include_str!("page/entry.js")),
    File("feed.css", STYLE, include_str!("page/feed.css")),
    File("feed.js", SCRIPT, include_str!("page/feed.js")),
    File("history.js", SCRIPT, include_str!("page/history.js")),
    File("icon.svg", IMAGE, include_str!("page/icon.svg")),
    File("judge.js", SCRIPT, include_str!("page/judge.js")),
    File("keys.css", STYLE, include_str!("page/keys.css")),
    File("layout.css", STYLE, include_str!("page/layout.css")),
    File("main.js", SCRIPT, include_str!("page/main.js")),
    File("sse.js", SCRIPT, include_str!("page/sse.js")),
    File(
        "uPlot.iife.min.js",
        SCRIPT,
        include_str!("page/vendor/uPlot.iife.min.js"),
    ),
    File(
        "uPlot.min.css",
        STYLE,
        include_str!("page/vendor/uPlot.min.css"),
    ),
    File("units.js", SCRIPT, include_str!("page/units.js")),
    File("value.js", SCRIPT, include_str!("page/value.js")),
    File("visible.js", SCRIPT, include_str!("page/visible.js")),
];

/// The page itself.
pub(super) fn index(request: &HttpRequest, service: &Service) -> HttpResponse {
    give(&INDEX, request, service)
}

/// The file that a path names, if it is one of the page's.
pub(super) fn file(path: &str, request: &HttpRequest, service: &Service) -> Option<HttpResponse> {
    find(path).map(|file| give(file, request, service))
}

/// Whether a path names a file of the page.
pub(super) fn is_file(path: &str) -> bool {
    find(path).is_some()
}

fn find(path: &str) -> Option<&'static File> {
    let asked = path.strip_prefix(FILES_AT)?;
    FILES.iter().find(|File(name, ..)| *name == asked)
}

/// It may be kept, and is asked for each time all the same: no page is of two versions of the node.
fn give(File(_, kind, content): &File, request: &HttpRequest, service: &Service) -> HttpResponse {
    let etag = format!("\"{:016x}\"", xxh3_64(content.as_bytes()));
    let known = match request::text(request, "if-none-match") {
        Ok(known) => known == Some(&etag),
        Err(error) => return answer::refused(error, service),
    };
    let mut answer = answer::data(if known { 304 } else { 200 }, service);
    answer
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-cache")))
        .insert_header((ETAG, etag))
        .insert_header((CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)))
        .insert_header((REFERRER_POLICY, HeaderValue::from_static("no-referrer")));
    match known {
        true => answer.finish(),
        false => answer.content_type(*kind).body(*content),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    fn names() -> BTreeSet<String> {
        FILES
            .iter()
            .map(|File(name, ..)| (*name).to_owned())
            .collect()
    }

    #[test]
    fn every_file_of_the_folder_is_given_out() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page");
        let listed = [folder.clone(), folder.join("vendor")]
            .into_iter()
            .flat_map(|folder| fs::read_dir(folder).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !["index.html", "vendor", "uPlot.LICENSE"].contains(&&**name));
        assert_eq!(names(), listed.collect());
    }

    #[test]
    fn every_file_is_described() {
        let description: serde_json::Value =
            serde_json::from_str(include_str!("openapi.json")).unwrap();
        let described = &description["components"]["parameters"]["PageFile"]["schema"]["enum"];
        assert_eq!(*described, serde_json::json!(names()));
    }

    /// What they import and link is one of them: nothing is fetched from elsewhere.
    #[test]
    fn files_name_only_each_other() {
        let mut found = 0;
        let own = FILES
            .iter()
            .filter(|File(name, ..)| !name.starts_with("uPlot"));
        for File(name, _, content) in own.chain([&INDEX]) {
            assert!(!content.contains("innerHTML"), "{name}");
            for part in content
                .split("from \"./")
                .skip(1)
                .chain(content.split("\"/page/").skip(1))
            {
                let other = part.split('"').next().unwrap();
                assert!(names().contains(other), "{name} names {other}");
                found += 1;
            }
        }
        assert!(found > 30, "only {found} names");
    }

    #[test]
    fn only_whole_names_are_found() {
        assert!(is_file("/page/main.js"));
        for path in [
            "/page/",
            "/page",
            "/page/main",
            "/page/../page.rs",
            "/page//main.js",
            "/main.js",
        ] {
            assert!(!is_file(path), "{path}");
        }
    }
}
