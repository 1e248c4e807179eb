//! The log's level follows `log.level` of the settings file while the program runs: a ConfigMap that is mounted changes when the kubelet
//! writes it anew, and whoever looks for a fault wants no restart. All other settings are read once.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::settings::{InvalidSettings, Settings};
use crate::source::files::read_bounded;
use crate::telemetry::log::{Control, Filter};

/// How often the file is looked at. The kubelet takes up to a minute anyway, and a watch would have to know how it swaps links.
const EVERY: Duration = Duration::from_secs(2);

/// The file that says the level, and what it was when the program began.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) file: PathBuf,
    pub(super) settings: Settings,
}

/// Follows it, for ever.
pub(super) async fn follow(Followed { file, settings }: Followed, log: Control) -> Infallible {
    let name = file.display().to_string();
    let (mut level, mut text) = (settings.log.level, Vec::new());
    loop {
        let path = file.clone();
        // A file that cannot be read is about to be another one, or gone; what it said last counts.
        let read = spawn_blocking(move || read_bounded(&path)).await;
        if let Ok(Ok(new)) = read
            && new != text
        {
            match said(&name, &new) {
                Ok((filter, new)) if new != level => {
                    log.set(filter);
                    level = new;
                    tracing::info!(level = %log.current(), "log level changed, as {name} says");
                }
                Ok(_) => {}
                Err(InvalidSettings(why)) => {
                    tracing::warn!("settings changed and cannot be used, the log's level stays: {why}")
                }
            }
            text = new;
        }
        sleep(EVERY).await;
    }
}

fn said(name: &str, text: &[u8]) -> Result<(Filter, String), InvalidSettings> {
    let level = Settings::default().overlaid(name, text)?.log.level;
    let filter = level.parse::<Filter>().map_err(|error| InvalidSettings(error.to_string()))?;
    Ok((filter, level))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::telemetry::log;

    #[tokio::test(start_paused = true)]
    async fn a_changed_level_counts_and_a_broken_file_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.yaml");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("log: {level: info}\n");
        let (_subscriber, control) = log::subscriber(log::Format::Text, "info".parse().unwrap());
        let followed = Followed { file: file.clone(), settings: Settings::default() };
        let following = tokio::spawn(follow(followed, control.clone()));
        let becomes = async |wanted: &str| {
            for _ in 0..100 {
                if control.current() == wanted {
                    return;
                }
                sleep(EVERY).await;
            }
            panic!("{wanted}: {}", control.current());
        };
        write("log: {level: \"warn,floodway::proxy=debug\"}\n");
        becomes("floodway::proxy=debug,warn").await;
        write("log: {level: loud}\n");
        sleep(EVERY * 3).await;
        assert_eq!(control.current(), "floodway::proxy=debug,warn");
        write("log: {level: debug}\nlimits: {connections: 7}\n");
        becomes("debug").await;
        // What was said in another way stays until the file says something new.
        control.set("error".parse().unwrap());
        write("log: {level: debug}\nlimits: {connections: 8}\n");
        sleep(EVERY * 3).await;
        assert_eq!(control.current(), "error");
        std::fs::remove_file(&file).unwrap();
        sleep(EVERY * 3).await;
        write("# the default\n");
        becomes("info").await;
        following.abort();
    }
}
