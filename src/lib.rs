//! Floodway: a Kubernetes-native ingress and sidecar for streams.
//!
//! Start reading at [`app`], the one place that sees both planes. Who may import whom is a table in ARCHITECTURE.md
//! and a test in `tests/layering.rs`.

pub mod admin;
pub mod api;
pub mod app;
pub mod args;
pub mod capture;
pub mod clock;
pub mod demo;
pub mod drain;
pub mod health;
pub mod injector;
pub mod jwks;
pub mod proxy;
pub mod proxy_protocol;
pub mod ready;
pub mod resilience;
pub mod settings;
pub mod sidecar;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod tally;
pub mod telemetry;
pub mod translate;
pub mod yaml;
