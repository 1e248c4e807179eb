//! `/probe/CONTAINER/KIND`: what the kubelet asked an app before a sidecar stood in front of it. The sidecar asks it on loopback, and
//! passes on whether it is well.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::StatusCode;

use super::{Answer, text};

/// Where probes are asked for.
pub(super) const PATH: &str = "/probe/";

/// Why an app is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it answered, if it is that.
    pub status: Option<u16>,
    /// For people.
    pub why: String,
}

/// An app is being asked.
pub type Asking = Pin<Box<dyn Future<Output = Result<(), Refused>> + Send>>;

type Ask = dyn Fn(&str) -> Option<Asking> + Send + Sync;

/// What an app can be asked, by name. Nothing, by default.
#[derive(Clone, Default)]
pub struct Probes(Option<Arc<Ask>>);

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Probes").field(&self.0.is_some()).finish()
    }
}

impl Probes {
    /// Has `ask` asked, which bounds its own time; it gives nothing for names that it does not know.
    pub fn new(ask: impl Fn(&str) -> Option<Asking> + Send + Sync + 'static) -> Self {
        Probes(Some(Arc::new(ask)))
    }

    /// Answers the kubelet, for whom 200 to 399 is well, and everything else is not.
    pub(super) async fn answer(&self, path: &str) -> Answer {
        let name = path.strip_prefix(PATH).unwrap_or_default();
        let Some(asking) = self.0.as_ref().and_then(|ask| ask(name)) else {
            return text(StatusCode::NOT_FOUND, "the sidecar was given no such probe\n");
        };
        match asking.await {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(Refused { status, why }) => {
                let status =
                    status.filter(|status| *status >= 400).and_then(|status| StatusCode::from_u16(status).ok());
                text(status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE), format!("{why}\n"))
            }
        }
    }
}
