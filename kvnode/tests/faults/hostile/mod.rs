//! E3 to E7, E10: what comes from clients that mean harm, or are broken in ways that look like it.

mod browser;
mod many;
mod odd_http;
mod odd_requests;
mod oversize;
mod process;
mod secrecy;
mod slow;
