//! Events, on transitions only: an object that was fine until now, or is fine again.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::observed::{Entry, Id, Status};
use crate::api::Condition;

/// Publishes events in the name of this process.
pub(super) struct Events(Recorder);

impl Events {
    pub(super) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: "floodway.dev/gateway".to_owned(), instance: Some(identity.to_owned()) };
        Events(Recorder::new(client, reporter))
    }

    /// Tells of what changed between the conditions that were there and those that were just written. An event that
    /// cannot be published is logged and forgotten: the conditions say the same.
    pub(super) async fn tell(&self, id: &Id, before: &Entry, now: &[Condition]) {
        let regarding = ObjectReference {
            api_version: Some(super::API_VERSION.to_owned()),
            kind: Some(id.kind.name().to_owned()),
            namespace: Some(id.key.namespace.to_string()),
            name: Some(id.key.name.to_string()),
            uid: Some(before.uid.to_string()),
            ..ObjectReference::default()
        };
        for event in transitions(before, now) {
            if let Err(error) = self.0.publish(&event, &regarding).await {
                tracing::warn!(object = %id, reason = event.reason, "cannot publish an event: {error}");
            }
        }
    }
}

/// The events that tell of a change.
fn transitions(before: &Entry, now: &[Condition]) -> Vec<Event> {
    let newly = |condition: &&Condition, status: Status| {
        Status::from(condition.status.as_str()) == status && before.status(&condition.type_) != Some(status)
    };
    let find = |type_: &str| now.iter().find(|condition| condition.type_ == type_);
    let mut events: Vec<Event> = ["Accepted", "ResolvedRefs"]
        .into_iter()
        .filter_map(find)
        .filter(|condition| newly(condition, Status::False))
        .map(|condition| event(EventType::Warning, condition, "Translate"))
        .collect();
    if let Some(programmed) = find("Programmed") {
        // A new object that works from the start is no news.
        if newly(&programmed, Status::True) && before.status("Programmed").is_some() {
            events.push(event(EventType::Normal, programmed, "Publish"));
        } else if newly(&programmed, Status::False) && events.is_empty() {
            events.push(event(EventType::Warning, programmed, "Publish"));
        }
    }
    if let Some(healthy) = find("Healthy") {
        if newly(&healthy, Status::False) {
            events.push(event(EventType::Warning, healthy, "Check"));
        } else if newly(&healthy, Status::True) && before.status("Healthy") == Some(Status::False) {
            events.push(event(EventType::Normal, healthy, "Check"));
        }
    }
    events
}

fn event(type_: EventType, condition: &Condition, action: &str) -> Event {
    // events.k8s.io/v1: a note is at most 1 kB.
    let mut note = condition.message.clone();
    if note.len() > 1024 {
        note.truncate(note.floor_char_boundary(1021));
        note.push('…');
    }
    Event { type_, reason: condition.reason.clone(), note: Some(note), action: action.to_owned(), secondary: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(accepted: &str, resolved: &str, programmed: &str) -> Vec<Condition> {
        [("Accepted", accepted), ("ResolvedRefs", resolved), ("Programmed", programmed)]
            .map(|(type_, status)| Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                observed_generation: Some(1),
                reason: format!("{type_}{status}"),
                message: "ü".repeat(600),
                last_transition_time: String::new(),
            })
            .to_vec()
    }

    fn told(before: &[Condition], now: &[Condition]) -> Vec<String> {
        transitions(&Entry::new("uid", before), now).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn transitions_are_told_and_states_are_not() {
        let (good, bad) = (conditions("True", "True", "True"), conditions("True", "False", "False"));
        assert!(told(&[], &good).is_empty(), "new and working");
        assert_eq!(told(&[], &bad), ["ResolvedRefsFalse"], "new and broken");
        assert_eq!(told(&good, &bad), ["ResolvedRefsFalse"], "broken now");
        assert!(told(&bad, &bad).is_empty(), "still broken");
        assert_eq!(told(&bad, &good), ["ProgrammedTrue"], "working again");
        assert_eq!(told(&good, &conditions("True", "True", "False")), ["ProgrammedFalse"], "no other says why");
        let healthy = |status: &str| {
            [good.clone(), vec![Condition { type_: "Healthy".to_owned(), ..conditions(status, "", "")[0].clone() }]]
                .concat()
        };
        assert!(told(&good, &healthy("True")).is_empty() && told(&healthy("Unknown"), &healthy("True")).is_empty());
        assert_eq!(told(&healthy("True"), &healthy("False")), ["AcceptedFalse"], "its reason in this test");
        assert_eq!(told(&healthy("False"), &healthy("True")), ["AcceptedTrue"]);
        let long = transitions(&Entry::new("uid", &good), &bad).remove(0).note.expect("a note");
        assert!(long.len() <= 1024 && long.ends_with('…'));
    }
}
