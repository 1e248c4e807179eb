//! Whether a request may pass, by what the policies say that it is under: asked once its route and its backend are known, and before
//! anything is done with it. What the policies say, `snapshot::Policy` holds; how their parts become one, `translate` says.
//!
//! A section may refuse (an [`Error`], whose answer gets what `Exchange::adorn` was given before), answer in place of the
//! backend, change the head that goes on, or give the answer fields. Cheap sections are asked before dear ones, and who is
//! refused learns nothing of those behind.

use http::Method;

use super::error::Error;
use super::exchange::Exchange;
use super::fields::Fields;
use super::headers::Client;
use super::message::{PathAndQuery, Response};
use crate::snapshot::Policy;

/// The request that wants to pass.
pub(super) struct Asked<'a> {
    /// Who sends it.
    pub client: Client,
    /// Gets what the answer is to be told.
    #[expect(dead_code, reason = "of the sections there are, none has anything to tell")]
    pub exchange: &'a Exchange,
    /// Its method.
    #[expect(dead_code, reason = "of the sections there are, none looks at it")]
    pub method: &'a Method,
    /// Path and query as they came.
    #[expect(dead_code, reason = "of the sections there are, none looks at it")]
    pub target: &'a PathAndQuery,
}

/// Lets a request pass, or answers it.
///
/// # Errors
/// Why it may not.
pub(super) fn admit(policy: &Policy, asked: &Asked<'_>, _fields: &mut Fields) -> Result<Option<Response>, Error> {
    let Policy { invalid, ip_access } = policy;
    if invalid.is_some() {
        return Err(Error::InvalidPolicy);
    }
    if ip_access.as_ref().is_some_and(|access| !access.allows(asked.client.address)) {
        return Err(Error::AddressDenied);
    }
    Ok(None)
}
