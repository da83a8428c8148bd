//! E3 to E10: what comes from clients that mean harm, or are broken in ways that look like it.

mod browser;
mod leak;
mod many;
mod odd_http;
mod odd_requests;
mod oversize;
mod process;
mod roles;
mod secrecy;
mod slow;
