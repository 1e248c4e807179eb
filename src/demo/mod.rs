//! The demo: small servers on loopback (a clock, a WebSocket echo, files, an echo, a page) to see a proxy at work with.
//! Knows nothing of the rest of the crate; `app` runs them beside a proxy that reads the same folder.

mod banner;
mod clock;
mod echo;
mod files;
mod folder;
mod page;
mod proxy;
mod reply;
mod server;
mod sick;
mod socket;
mod token;

pub use banner::{banner, farewell};
pub use folder::Folder;
pub use server::Backends;

/// Why the demo cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file or a folder cannot be read or written.
    #[error("{}: {problem}; {remedy}", path.display())]
    Folder {
        /// Which.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What would be right.
        remedy: &'static str,
    },
    /// An address of an EndpointSlice cannot be bound.
    #[error("cannot serve the demo's Service \"{service}\" at {address}: {error}; end the program that holds the address, \
             or change the port of that EndpointSlice in {}", folder.display())]
    Taken {
        /// The Service.
        service: String,
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        error: std::io::Error,
        /// The folder with the slice.
        folder: std::path::PathBuf,
    },
    /// The system refuses a thread or a runtime.
    #[error("cannot start the demo's backends: {0}")]
    System(#[from] std::io::Error),
}
