//! Whom the system trusts: read once, at the start.

use crate::translate::Roots;

/// The certificates of the system: of the file that `SSL_CERT_FILE` names, or the folder of `SSL_CERT_DIR`, or wherever this
/// distribution has them. None at all, as in an image without, is told by the objects that would need them.
pub(super) fn system() -> Roots {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "certificates of the system");
    }
    Roots::new(found.certs)
}
