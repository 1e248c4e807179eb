//! What limits of policies have to do with an exchange: how much content it may have, its places among others, and how fast the sides
//! of a WebSocket may send.

use std::sync::Arc;

use super::Exchange;
use crate::resilience::rate::{Inside, Limiter, Limiters};
use crate::snapshot::MessageRate;

/// How fast the sides of a WebSocket may send, and where refusals are counted.
pub(in crate::proxy) type Paced = (Arc<MessageRate>, Arc<Limiter>);

impl Exchange {
    /// What is counted of requests under policies.
    pub(in crate::proxy) fn limiters(&self) -> &Limiters {
        &self.worker.limiters
    }

    /// Keeps a place until it is over.
    pub(in crate::proxy) fn keep(&self, place: Inside) {
        self.inside.borrow_mut().get_or_insert_default().push(place);
    }

    /// If it becomes a WebSocket, its sides may send so fast.
    pub(in crate::proxy) fn pace(&self, paced: Paced) {
        self.paced.borrow_mut().get_or_insert_default().push(paced);
    }

    /// What `read` makes of how fast its sides may send.
    pub(in crate::proxy) fn paces<T>(&self, read: impl FnMut(&Paced) -> Option<T>) -> Vec<T> {
        self.paced.borrow().iter().flat_map(|paced| paced.iter()).filter_map(read).collect()
    }

    /// The client may send so many bytes of content, whatever the settings say.
    pub(in crate::proxy) fn bound_content(&self, most: u64) {
        self.most_content.set(most);
    }

    /// Whether so many bytes of content are more than the client may send.
    pub(in crate::proxy) fn is_too_much(&self, content: u64) -> bool {
        content > self.most_content.get()
    }
}
