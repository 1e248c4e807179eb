//! What an exchange has of the token that it was opened with: what the endpoint is told of the client, and when the token expires.

use std::time::Duration;

use super::Exchange;
use crate::proxy::fields::Fields;
use crate::proxy::headers::{self, Vouched};
use crate::proxy::policy::Tokens;

/// Longer than any stream lasts, and no moment that cannot be counted.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Exchange {
    /// The token it was opened with expires in so many seconds; if it becomes a stream, it ends then.
    pub(in crate::proxy) fn expires(&self, seconds: u64, code: u16) {
        let left = Duration::from_secs(seconds).min(FOREVER);
        let _ = self.expiry.set(Box::new((self.clocks.started + left, code)));
    }

    /// The request goes on with a field that we vouch for, or without it.
    pub(in crate::proxy) fn vouches(&self, field: Vouched) {
        self.vouched.borrow_mut().push(field);
    }

    /// Gives a request those fields, once everything else of it is as it goes on: a client's `Connection` takes none of them away.
    pub(in crate::proxy) fn vouch(&self, fields: &mut Fields) {
        self.vouched.take().iter().for_each(|one| headers::put_vouched(fields, one));
    }

    /// Tokens that its worker has verified lately.
    pub(in crate::proxy) fn tokens(&self) -> &Tokens {
        &self.worker.tokens
    }
}
