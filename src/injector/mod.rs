//! Putting the sidecar into pods: a mutating admission webhook. What becomes of a pod is `inject`'s to say, a plain function
//! of the pod and a template; `review` is what the API server asks and is answered; `server` the port it asks at; `material`
//! and `keeper` the certificate of that port, made here, shared by all replicas in one Secret, and trusted by way of the webhook
//! configuration. What the containers do once they run is not here.

mod annotations;
mod containers;
mod inject;
mod keeper;
mod material;
mod patch;
mod pod;
mod probes;
mod review;
mod server;
mod template;

pub use inject::{Injection, Refusal, inject};
pub use keeper::{Keeper, Names};
pub use material::{Pair, Shared};
pub use patch::{Change, Patch};
pub use pod::Pod;
pub use server::{Door, Serving};
pub use template::{InvalidTemplate, Mode, Template};

/// What annotations of pods begin with.
pub const PREFIX: &str = "sidecar.floodway.dev/";
/// The container that serves the pod.
pub const SIDECAR: &str = "floodway-sidecar";
/// The container that redirects the pod's connections, and ends.
pub const CAPTURE: &str = "floodway-capture";
/// The user and group that the sidecar runs as, whose connections are not captured.
pub const UID: u32 = 15151;
/// Where the sidecar takes the pod's incoming connections.
pub const INBOUND: u16 = 15106;
/// Where it takes the outgoing ones, on loopback.
pub const OUTBOUND: u16 = 15101;
/// Where it is asked how it is, and how the pod is.
pub const ADMIN: u16 = 15190;
/// All of them, which no container of the pod may have.
const OWN_PORTS: [u16; 3] = [INBOUND, OUTBOUND, ADMIN];
