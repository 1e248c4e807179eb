//! The data plane, as its two sides see it: real sockets, real clients, and raw bytes for what clients refuse to send.
#![allow(clippy::unwrap_used, missing_docs, clippy::wrong_self_convention, unreachable_pub, dead_code)]

mod backpressure;
mod balance;
mod basics;
mod browser;
mod capacity;
mod clients;
mod clocks;
mod drain;
mod ejected;
mod endpoints;
mod errors;
mod farewell;
mod faults;
mod files;
mod first_byte;
mod frames;
mod framing;
mod gone;
mod grpc;
mod headers;
mod health;
mod heartbeats;
mod http2;
mod http2_hostile;
mod http2_retried;
mod http2_upstream;
mod http2_websocket;
mod interop;
mod limits;
mod moved;
#[path = "../apiserver/network.rs"]
mod network;
mod pools;
mod resilience;
mod responses;
mod retries;
mod scale;
#[path = "../standalone/server.rs"]
mod server;
mod slow;
mod smuggling;
mod smuggling_chunks;
mod sse;
mod support;
mod swap;
mod targets;
mod uncut;
mod vanished;
mod websocket;
mod websocket_bytes;
mod websocket_ends;
mod websocket_frames;
mod websocket_groups;
mod websocket_pings;
