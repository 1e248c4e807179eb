//! What whoever serves a client lends to each of its exchanges: a timer, and the way for interim responses. Which clocks run
//! is the exchange's to say.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::headers;
use super::message::ResponseHead;
use super::timer::Timer;

/// Lent by a connection, or a stream of one, to the exchange that it carries.
#[derive(Debug, Default)]
pub(super) struct Downstream {
    /// Polled by whoever waits for the client or the endpoint.
    pub timer: Timer,
    /// Those that wait; their number is bounded by whoever reads them.
    interim: RefCell<VecDeque<ResponseHead>>,
}

impl Downstream {
    /// Passes an interim response on. RFC 9110 15.2: "A proxy MUST forward 1xx responses unless the proxy itself requested the
    /// generation of the 1xx response."
    pub(super) fn tell(&self, mut head: ResponseHead) {
        headers::clean_response(&mut head.fields);
        self.interim.borrow_mut().push_back(head);
    }

    /// The next interim response for the client.
    pub(super) fn told(&self) -> Option<ResponseHead> {
        self.interim.borrow_mut().pop_front()
    }
}
