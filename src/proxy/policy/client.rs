//! Who showed a certificate of somebody who may pass.

use super::Asked;
use crate::proxy::error::Error;
use crate::snapshot::ClientCertificate;

/// Lets a request pass that came on a connection of such a client.
///
/// # Errors
/// Its client showed no certificate that counts here, or another's.
pub(super) fn admit(clients: &ClientCertificate, asked: &Asked<'_>) -> Result<(), Error> {
    let certified = asked.exchange.certified().ok_or(Error::CertificateMissing)?;
    if clients.allows(&certified.identity) { Ok(()) } else { Err(Error::CertificateDenied) }
}
