//! Whether a request is as large, and of a kind, as it may be. Content that comes as it comes is counted on its way, by `upload`.

use http_body::Body as _;

use super::Asked;
use crate::proxy::error::Error;
use crate::proxy::fields::Known;
use crate::snapshot::RequestLimits;

/// Lets a request pass that is within limits.
///
/// # Errors
/// The limit that it breaks; the answer says what would be right.
pub(super) fn admit(limits: &RequestLimits, asked: &Asked<'_>) -> Result<(), Error> {
    let RequestLimits { body_bytes, header_bytes, methods, content_types } = limits;
    let head = &*asked.head;
    if let Some(methods) = methods
        && !methods.contain(&head.method)
    {
        // RFC 9110 15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
        asked.exchange.adorn("allow", methods.as_value().as_bytes());
        return Err(Error::MethodNotAllowed);
    }
    if header_bytes.is_some_and(|most| head.fields.bytes() > most) {
        return Err(Error::HeadersTooLarge);
    }
    if let Some(most) = body_bytes {
        asked.exchange.bound_content(*most);
        if asked.exchange.is_too_much(asked.content.size_hint().lower()) {
            return Err(Error::BodyTooLarge);
        }
    }
    if let Some(types) = content_types
        && !asked.content.is_end_stream()
    {
        let mut given = head.fields.all(Known::ContentType);
        // Of two, the next server might believe the other one.
        if !given.next().is_some_and(|given| types.contain(given)) || given.next().is_some() {
            // RFC 9110 12.5.1: "When sent by a server in a response, Accept provides information about which content types are
            // preferred in the content of a subsequent request to the same resource."
            asked.exchange.adorn("accept", types.as_value().as_bytes());
            return Err(Error::ContentType);
        }
    }
    Ok(())
}
