//! The program's own log: to standard error, as text or JSON, with a filter that can be changed while it runs. What
//! clients did is not here; that is the access log.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            other => Err(format!("{other:?} is not a log format; write \"text\" or \"json\"")),
        }
    }
}

/// Why a text is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a log level; write off, error, warn, info, debug or trace, and per module: \
     \"info,floodway::proxy=debug\""
)]
pub struct InvalidFilter(pub String);

/// What is logged: a level, and levels of modules. Plain comparison of targets; spans and fields do not take part.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Targets);

/// Crates whose lines say again, with less context, what ours say. Silent unless named.
const REPEATERS: [&str; 2] = ["kube_client", "kube_runtime"];

impl std::str::FromStr for Filter {
    type Err = InvalidFilter;

    /// Reads `debug` or `info,floodway::proxy=debug`. What does not name a level is an error, not a module.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut targets = Targets::new().with_targets(REPEATERS.map(|target| (target, LevelFilter::OFF)));
        for part in text.split(',').map(str::trim) {
            let invalid = || InvalidFilter(part.to_owned());
            targets = match part.split_once('=') {
                Some((target, level)) if !target.is_empty() => {
                    targets.with_target(target, level.parse::<LevelFilter>().map_err(|_| invalid())?)
                }
                Some(_) => return Err(invalid()),
                None if part.is_empty() => return Err(invalid()),
                None => targets.with_default(part.parse::<LevelFilter>().map_err(|_| invalid())?),
            };
        }
        Ok(Filter(targets))
    }
}

/// Changes what is logged while the process runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(reload::Handle<Targets, Registry>);

impl Control {
    /// Takes another filter from now on.
    pub fn set(&self, filter: Filter) {
        // It fails only if the subscriber is gone, and then there is nothing to log to.
        let _ = self.0.reload(filter.0);
    }

    /// The filter in force, as it could be written.
    pub fn current(&self) -> String {
        let all = self.0.with_current(ToString::to_string).unwrap_or_default();
        let silenced = REPEATERS.map(|target| format!("{target}=off"));
        let said: Vec<&str> = all.split(',').filter(|part| !silenced.iter().any(|silenced| silenced == part)).collect();
        said.join(",")
    }
}

/// Starts the log of this process. Once per process; a second call keeps the first log.
pub fn start(format: Format, filter: Filter) -> Control {
    let (subscriber, control) = subscriber(format, filter);
    let _ = subscriber.try_init();
    control
}

/// The log without making it that of the process. The control works while the subscriber is held.
pub(crate) fn subscriber(format: Format, filter: Filter) -> (impl Subscriber + Send + Sync, Control) {
    let (filter, handle) = reload::Layer::new(filter.0);
    let layer = match format {
        Format::Text => fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    };
    (tracing_subscriber::registry().with(layer.with_filter(filter)), Control(handle))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tracing::Level;

    use super::*;

    #[test]
    fn reads_levels_and_modules() {
        let filter: Filter = "info, floodway::proxy=debug,hyper=off".parse().unwrap();
        assert!(filter.0.would_enable("floodway::proxy::pool", &Level::DEBUG));
        assert!(!filter.0.would_enable("floodway::source", &Level::DEBUG));
        assert!(filter.0.would_enable("floodway::source", &Level::INFO));
        assert!(!filter.0.would_enable("hyper", &Level::ERROR));
        assert!(!filter.0.would_enable("kube_client::client", &Level::ERROR), "ours says it");
        let filter: Filter = "info,kube_client=debug".parse().unwrap();
        assert!(filter.0.would_enable("kube_client::client", &Level::DEBUG));
    }

    #[test]
    fn refuses_what_is_no_level() {
        for text in ["", "debgu", "floodway::proxy", "=debug", "info,", "floodway=loud"] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains("is not a log level; write off, error,"), "{text}: {error}");
        }
    }
}
