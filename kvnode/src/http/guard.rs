//! What is turned away before it is looked at: foreign host names, web pages of other origins, oversized heads.
//!
//! A node on localhost is within reach of every page that a browser on this machine shows. A page cannot forge
//! `Sec-Fetch-Site` or `Origin`, and a rebound DNS name shows in `Host`.

use actix_web::{HttpRequest, http::Method};
use kvclient::{
    faults::{self, Guarantee},
    wire::error::ErrorCode,
};

use super::request::BadRequest;
use crate::{config::is_loopback, service::Service};

/// Largest request head: a key of 511 bytes, all escaped, takes 1.6 kB.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Checks a request's head.
pub(super) fn check(request: &HttpRequest, service: &Service) -> Result<(), BadRequest> {
    if faults::is_off(Guarantee::Guards) {
        return Ok(());
    }
    check_head(request)?;
    check_hosts(request, service)?;
    if matches!(
        *request.method(),
        Method::PUT | Method::POST | Method::DELETE
    ) {
        check_origin(request, service)?;
    }
    Ok(())
}

fn check_head(request: &HttpRequest) -> Result<(), BadRequest> {
    let line = request
        .uri()
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    let headers: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if line + headers > MAX_HEAD_BYTES {
        let message =
            format!("path, query and headers have more than {MAX_HEAD_BYTES} bytes together");
        return Err(BadRequest::new(ErrorCode::HeadTooLarge, message));
    }
    Ok(())
}

/// Checks the host that a request names in `Host`, and in its target where that is a whole URL.
fn check_hosts(request: &HttpRequest, service: &Service) -> Result<(), BadRequest> {
    let Some(host) = request
        .headers()
        .get("host")
        .and_then(|host| host.to_str().ok())
    else {
        return Err(BadRequest::new(
            ErrorCode::UnknownHost,
            "the request has no Host",
        ));
    };
    check_host(host, service)?;
    match request.uri().authority() {
        Some(target) => check_host(target.as_str(), service),
        None => Ok(()),
    }
}

fn check_host(host: &str, service: &Service) -> Result<(), BadRequest> {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, port)) => (ip, port.strip_prefix(':').unwrap_or(port)),
        None => host.rsplit_once(':').unwrap_or((host, "")),
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let known = name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok()
        || service
            .map
            .load()
            .nodes()
            .any(|node| node.address.host().eq_ignore_ascii_case(name));
    if known && is_port {
        return Ok(());
    }
    let message =
        format!("Host {host:?} is not an IP address, localhost, or a host of the shard map");
    Err(BadRequest::new(ErrorCode::UnknownHost, message))
}

/// Refuses what a page of another origin sent.
fn check_origin(request: &HttpRequest, service: &Service) -> Result<(), BadRequest> {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap_or("?"))
    };
    let foreign = match (header("sec-fetch-site"), header("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            Some(service.config.scheme().strip(origin).unwrap_or("?")) != header("host")
        }
        (None, None) => false,
    };
    if foreign {
        return Err(BadRequest::new(
            ErrorCode::Forbidden,
            "a web page of another origin sent this; nothing was done",
        ));
    }
    Ok(())
}

/// Refuses the content types that a page can POST without asking first.
pub(super) fn check_post_type(request: &HttpRequest) -> Result<(), BadRequest> {
    if faults::is_off(Guarantee::Guards) {
        return Ok(());
    }
    let given = request
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match essence.as_str() {
        "text/plain" | "application/x-www-form-urlencoded" | "multipart/form-data" => {
            Err(BadRequest::new(
                ErrorCode::UnsupportedMediaType,
                format!(
                    "POST does not take {essence}; leave the body out (curl -X POST) or name its real type"
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Whether a GET that writes may: from loopback (or with `--allow-get-writes`), and from no page and no proxy.
pub(super) fn check_get_write(request: &HttpRequest, service: &Service) -> Result<(), BadRequest> {
    if faults::is_off(Guarantee::Guards) {
        return Ok(());
    }
    let relayed = [
        "sec-fetch-site",
        "origin",
        "referer",
        "forwarded",
        "x-forwarded-for",
    ];
    if let Some(name) = relayed
        .into_iter()
        .find(|name| request.headers().contains_key(*name))
    {
        let message = format!(
            "a GET that carries {name} comes from a page or a proxy and may not write; use PUT"
        );
        return Err(BadRequest::new(ErrorCode::Forbidden, message));
    }
    let loopback = request
        .peer_addr()
        .is_some_and(|peer| is_loopback(peer.ip()));
    if loopback || service.config.allow_get_writes {
        return Ok(());
    }
    let message = "writing by GET is for this machine only; use PUT, or start the node with --allow-get-writes";
    Err(BadRequest::new(ErrorCode::Forbidden, message))
}
