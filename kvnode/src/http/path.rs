//! The one table of paths: which there are, which methods they take, and what they need of their caller.
//!
//! A request is matched to a [`Path`] once; handling, refusals by method and the rights asked for all follow from that.
//! Each is a match over all paths, so one that has no line in it does not compile.

use actix_web::{HttpRequest, http::Method};
use kvclient::wire::route;

use super::page;
use crate::access::{Need, Scope};

/// What a path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// `/kv/{key}`, `/kv?key=`
    Entry,
    /// `/kv` without a key.
    Scan,
    Batch,
    Watch,
    Get,
    Set,
    Delete,
    Route,
    ClusterMap,
    ClusterStatus,
    Log,
    Snapshot,
    Status,
    StatusHistory,
    StatusSums,
    Healthz,
    Readyz,
    Metrics,
    OpenApi,
    /// `/`
    Page,
    /// `/page/...`
    PageFile,
    Nowhere,
}

/// Where each stands that has one path of its own.
const EXACT: &[(&str, Path)] = &[
    (route::KV, Path::Scan),
    (route::BATCH, Path::Batch),
    (route::WATCH, Path::Watch),
    (route::GET, Path::Get),
    (route::SET, Path::Set),
    (route::DELETE, Path::Delete),
    (route::ROUTE, Path::Route),
    (route::CLUSTER_MAP, Path::ClusterMap),
    (route::CLUSTER_STATUS, Path::ClusterStatus),
    (route::LOG, Path::Log),
    (route::SNAPSHOT, Path::Snapshot),
    (route::STATUS, Path::Status),
    (route::STATUS_HISTORY, Path::StatusHistory),
    (route::STATUS_SUMS, Path::StatusSums),
    (route::HEALTHZ, Path::Healthz),
    (route::READYZ, Path::Readyz),
    (route::METRICS, Path::Metrics),
    (route::OPENAPI, Path::OpenApi),
    (route::PAGE, Path::Page),
];

impl Path {
    /// That of a request. Keys are bytes, so its raw path is matched.
    pub(super) fn of(request: &HttpRequest) -> Self {
        Self::find(request.uri().path(), request.uri().query())
    }

    fn find(path: &str, query: Option<&str>) -> Self {
        let is_entry = path
            .strip_prefix(route::KV)
            .is_some_and(|rest| rest.starts_with('/'))
            || (path == route::KV && query.is_some_and(has_key));
        if is_entry {
            return Self::Entry;
        }
        match EXACT.iter().find(|(exact, _)| *exact == path) {
            Some((_, found)) => *found,
            None if page::is_file(path) => Self::PageFile,
            None => Self::Nowhere,
        }
    }

    /// Methods that it takes, as `Allow` has them; `None`: there is nothing.
    pub(super) fn methods(self) -> Option<&'static str> {
        match self {
            Self::Entry => Some("GET, HEAD, PUT, DELETE, POST"),
            Self::Batch => Some("POST"),
            Self::Set | Self::Delete => Some("GET"),
            Self::Scan
            | Self::Watch
            | Self::Get
            | Self::Route
            | Self::ClusterMap
            | Self::ClusterStatus
            | Self::Log
            | Self::Snapshot
            | Self::Status
            | Self::StatusHistory
            | Self::StatusSums
            | Self::Healthz
            | Self::Readyz
            | Self::Metrics
            | Self::OpenApi
            | Self::Page
            | Self::PageFile => Some("GET, HEAD"),
            Self::Nowhere => None,
        }
    }

    /// Whether it takes a method.
    pub(super) fn takes(self, method: &Method) -> bool {
        self.methods()
            .is_some_and(|methods| methods.split(", ").any(|taken| taken == method.as_str()))
    }

    /// What it needs of its caller. What no method or path is there for tells nothing and needs nothing.
    pub(super) fn need(self, method: &Method) -> Need {
        if !self.takes(method) {
            return Need::Nothing;
        }
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match self {
            Self::Entry if reads => Need::Scope(Scope::Read),
            Self::Entry | Self::Set | Self::Delete => Need::Scope(Scope::Write),
            Self::Scan | Self::Watch | Self::Get | Self::StatusSums => Need::Scope(Scope::Read),
            Self::Batch => Need::EachOp,
            Self::Log | Self::Snapshot => Need::Scope(Scope::Replicate),
            Self::Route
            | Self::ClusterMap
            | Self::ClusterStatus
            | Self::Status
            | Self::StatusHistory
            | Self::Metrics => Need::State,
            Self::Healthz
            | Self::Readyz
            | Self::OpenApi
            | Self::Page
            | Self::PageFile
            | Self::Nowhere => Need::Nothing,
        }
    }
}

fn has_key(query: &str) -> bool {
    query
        .split('&')
        .any(|part| part == "key" || part.starts_with("key="))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOL: &str = include_str!("../../../kvclient/src/wire/mod.rs");

    #[test]
    fn every_route_of_the_protocol_is_a_path() {
        let text = |line: &'static str| {
            let (_, value) = line
                .trim()
                .strip_prefix("pub const ")?
                .split_once(" = \"/")?;
            value.strip_suffix("\";")
        };
        let routes: Vec<&str> = PROTOCOL.lines().filter_map(text).collect();
        assert_eq!(routes.len(), EXACT.len(), "{routes:?}");
        for route in routes {
            let path = format!("/{route}");
            assert_ne!(Path::find(&path, None), Path::Nowhere, "{path}");
        }
    }

    #[test]
    fn keys_make_entries() {
        for (path, query, found) in [
            ("/kv", None, Path::Scan),
            ("/kv", Some("prefix=a"), Path::Scan),
            ("/kv", Some("keys_only&key"), Path::Entry),
            ("/kv", Some("key=a"), Path::Entry),
            ("/kv/", None, Path::Entry),
            ("/kv/a/b", Some("ttl=9s"), Path::Entry),
            ("/kvx", Some("key=a"), Path::Nowhere),
            ("/page/main.js", None, Path::PageFile),
            ("/page/none.js", None, Path::Nowhere),
        ] {
            assert_eq!(Path::find(path, query), found, "{path} {query:?}");
        }
    }

    #[test]
    fn what_is_not_taken_needs_nothing() {
        assert_eq!(Path::Log.need(&Method::PUT), Need::Nothing);
        assert_eq!(Path::Set.need(&Method::HEAD), Need::Nothing);
        assert_eq!(Path::Nowhere.need(&Method::GET), Need::Nothing);
        assert_eq!(Path::Entry.need(&Method::DELETE), Need::Scope(Scope::Write));
    }
}
