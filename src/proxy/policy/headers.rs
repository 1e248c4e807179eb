//! Fields that go no further, and those that every answer gets.

use std::sync::Arc;

use crate::proxy::exchange::Exchange;
use crate::proxy::fields::Fields;
use crate::snapshot::Headers;

/// Whether fields are taken out of requests.
pub(super) fn alters_requests(headers: &Headers) -> bool {
    !headers.request_remove.is_empty() || headers.request_remove_underscored
}

/// Takes out of a request what clients may not say, and remembers what becomes of its answer.
pub(super) fn admit(headers: &Arc<Headers>, exchange: &Exchange, fields: &mut Fields) {
    let Headers { request_remove, request_remove_underscored, .. } = &**headers;
    if !request_remove.is_empty() || *request_remove_underscored {
        let goes = |name: &[u8]| request_remove.contain(name) || *request_remove_underscored && name.contains(&b'_');
        if fields.iter().any(|(name, _)| goes(name)) {
            fields.retain(|_, name, _| !goes(name));
        }
    }
    if headers.touches_answers() {
        exchange.sanitise(headers);
    }
}

/// Makes the fields of an answer those that clients get.
pub(in crate::proxy) fn sanitise(headers: &Headers, answer: &mut Fields) {
    if !headers.hide.is_empty() && answer.iter().any(|(name, _)| headers.hide.contain(name)) {
        answer.retain(|_, name, _| !headers.hide.contain(name));
    }
    for (name, value) in &headers.give {
        let name = name.as_str();
        if headers.replace {
            answer.set(name, value.as_bytes());
        } else if !answer.iter().any(|(line, _)| line == name.as_bytes()) {
            answer.add(name, value.as_bytes());
        }
    }
}
