//! The program as people start it: exit codes, what it says, and what it serves while its folder changes.
#![allow(clippy::unwrap_used)]

mod certificates;
mod check;
mod embedded;
mod keys;
mod level;
mod names;
mod pages;
mod passed;
mod planted;
mod reload;
mod rotation;
mod secrets;
mod server;
mod streams;
mod usage;
