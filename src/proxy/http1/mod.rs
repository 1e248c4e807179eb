//! HTTP/1.0 and HTTP/1.1, on both sides: our own, because what hyper reads without telling (a Content-Length beside a
//! Transfer-Encoding, bare LF, repeated lengths) is what a strict edge must refuse, because an idle connection of ours holds
//! no buffer, and because an exchange needs neither tasks nor channels between its two sides.
//!
//! `server` and `answer` face clients, `client` and `response` face endpoints; the rest serves both: what comes in passes `conn`
//! and `inbound`, what goes out `send`. Which endpoint and which
//! connection is `upstream`'s to say.

mod answer;
mod chunked;
mod client;
mod conn;
#[cfg(test)]
mod differential_tests;
mod encode;
mod head;
mod held_up;
mod inbound;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod laws;
mod response;
mod send;
mod server;

pub(super) use client::{Client, Received, ResponseBody};
pub(super) use server::{RESTS_AFTER, Served, serve};
