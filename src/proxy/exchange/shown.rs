//! What an exchange has of the connection that it came on: what was agreed on in its handshake, and what is believed of it.

use std::sync::Arc;

use super::Exchange;
use crate::proxy::transport::Agreed;
use crate::snapshot::Route;

impl Exchange {
    /// What the client's handshake came to, if it speaks TLS.
    pub(in crate::proxy) fn agreed(&self) -> Option<&Agreed> {
        self.subject.tls.as_deref()
    }

    /// The route it took.
    pub(in crate::proxy) fn route(&self) -> Option<&Arc<Route>> {
        self.route.get()
    }

    /// Whether trusted proxies may say which certificate their client showed.
    pub(in crate::proxy) fn believes_certificates(&self) -> bool {
        self.worker.settings.forwarding.client_certificates
    }
}
