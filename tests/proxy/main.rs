//! The data plane, as its two sides see it: real sockets, real clients, and raw bytes for what clients refuse to send.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

mod basics;
mod clients;
mod endpoints;
mod frames;
mod gone;
mod http2;
mod http2_hostile;
mod smuggling;
mod sse;
mod support;
mod websocket;
