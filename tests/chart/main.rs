//! The Helm chart: what it renders, what it refuses and with which sentence, and that its values, schema, tables, alerts and dashboard say
//! the same as the program and its documents. Whether a real API server takes it is `apiserver::install`'s to say.
#![allow(clippy::unwrap_used)]

mod documents;
mod helm;
mod injector;
mod monitoring;
mod rendered;
mod rights;
mod wrong;
