//! Where objects come from: an API server (`kube`) or a folder (`files`). Both fill one [`Store`] and tick; what the
//! objects mean is `translate`'s to say.

pub mod burst;
pub mod dns;
pub mod files;
pub mod kube;
mod store;

pub use store::Store;
