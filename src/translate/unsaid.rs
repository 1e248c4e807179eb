//! What holds where nobody says anything: one of each for the whole table, which most routes and clusters share.

use std::sync::Arc;

use super::connections::default_connections;
use super::{Context, action};
use crate::snapshot::{Common, Connections, Resilience, Timeouts};

/// What holds where nobody says anything.
#[derive(Debug)]
pub(super) struct Unsaid {
    pub(super) timeouts: Common<Timeouts>,
    pub(super) connections: Common<Connections>,
    pub(super) resilience: Arc<Resilience>,
}

impl Unsaid {
    pub(super) fn of(context: &Context) -> Self {
        Unsaid {
            timeouts: action::default_timeouts(&context.defaults).into(),
            connections: default_connections(context).into(),
            resilience: Arc::default(),
        }
    }
}
