//! The image that deploy/image.sh writes without a container engine. `made` holds what the script does against the Dockerfile and
//! OCI's rules, with a stand-in for the program, so that nothing has to be built. `shipped` looks at the image itself, which takes
//! a release build; these tests are ignored, and `make image-check` runs them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod archive;
mod bill;
mod made;
mod shipped;
