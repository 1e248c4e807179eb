//! What owners are to know of objects that are not served as they are written. A cluster has conditions and events for
//! it; a folder has the log and `floodway check`.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::api::Condition;
use crate::translate::Statuses;

/// The conditions that complain, each with its sentences. `Programmed` repeats the other two, except about conflicts.
pub(super) fn complaints(conditions: &[Condition]) -> impl Iterator<Item = (&Condition, Vec<&str>)> {
    let complains = |condition: &&Condition| match condition.type_.as_str() {
        // A route that loses a part of its matches, or whose certificate is not for all its hosts, is still programmed.
        "Programmed" => {
            condition.reason.ends_with("Conflicted") || condition.status == "True" && condition.reason != "Programmed"
        }
        _ => condition.status == "False",
    };
    conditions.iter().filter(complains).map(|condition| (condition, sentences(&condition.message)))
}

/// A message is made of sentences, each of which begins with the path of a field.
fn sentences(message: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut rest = message;
    while let Some(end) = rest.find("; spec") {
        sentences.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    sentences.push(rest);
    sentences
}

/// Logs each complaint once, and again if it returns after it was settled.
pub(super) async fn log(mut statuses: watch::Receiver<Statuses>) {
    let mut told = BTreeSet::new();
    loop {
        let now = lines(&statuses.borrow_and_update());
        for line in now.difference(&told) {
            tracing::warn!("{line}");
        }
        told = now;
        if statuses.changed().await.is_err() {
            return;
        }
    }
}

fn lines(statuses: &Statuses) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (kind, objects) in statuses.kinds() {
        for (key, conditions) in objects.iter() {
            let sentences = complaints(conditions).flat_map(|(_, sentences)| sentences);
            lines.extend(sentences.map(|sentence| format!("{kind} {key}: {sentence}")));
        }
    }
    lines
}
