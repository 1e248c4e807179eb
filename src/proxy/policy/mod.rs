//! Whether a request may pass, by what the policies say that it is under: asked once its route and its backend are known, and before
//! anything is done with it. What the policies say, `snapshot::Policy` holds; how their parts become one, `translate` says.

use super::error::Error;
use super::headers::Client;
use crate::snapshot::Policy;

/// Lets a request pass.
///
/// # Errors
/// Why it may not.
pub(super) fn admit(policy: &Policy, client: Client) -> Result<(), Error> {
    let Policy { invalid, ip_access } = policy;
    if invalid.is_some() {
        return Err(Error::InvalidPolicy);
    }
    if ip_access.as_ref().is_some_and(|access| !access.allows(client.address)) {
        return Err(Error::AddressDenied);
    }
    Ok(())
}
