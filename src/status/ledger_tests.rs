#![allow(clippy::unwrap_used)]

use super::*;
use crate::translate::Key;

const SECOND: Duration = Duration::from_secs(1);

fn conditions(status: &str) -> Arc<[Condition]> {
    let condition = Condition {
        type_: "Accepted".to_owned(),
        status: status.to_owned(),
        observed_generation: Some(1),
        reason: "Reason".to_owned(),
        message: String::new(),
        last_transition_time: String::new(),
    };
    [condition].into()
}

fn key(name: &str) -> Key {
    Key::new("ns", name)
}

fn id(name: &str) -> Id {
    Id { kind: Kind::Route, key: key(name) }
}

fn statuses(routes: &[(&str, &str)]) -> Statuses {
    let routes = routes.iter().map(|(name, status)| (key(name), conditions(status)));
    Statuses { routes: routes.collect(), ..Statuses::default() }
}

fn holding(objects: &[(&str, &[Condition])]) -> BTreeMap<Id, Entry> {
    objects.iter().map(|(name, conditions)| (id(name), Entry::new("uid", conditions))).collect()
}

fn names(ledger: &mut Ledger, entries: &BTreeMap<Id, Entry>, now: Instant) -> Vec<String> {
    let (due, _) = ledger.due(entries, now);
    due.iter().map(|write| format!("{} {}", write.id.key.name, write.wanted.conditions.len())).collect()
}

#[test]
fn only_what_differs_is_written() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    ledger.want(statuses(&[("new", "True"), ("same", "True"), ("changed", "False"), ("gone", "True")]));
    let fine = conditions("True");
    let entries = holding(&[("new", &[]), ("same", &fine), ("changed", &fine), ("not-ours", &fine)]);
    assert_eq!(names(&mut ledger, &entries, now), ["changed 1", "new 1"]);
}

#[test]
fn a_watch_that_lags_behind_causes_no_second_write_but_another_change_does() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    ledger.want(statuses(&[("a", "True")]));
    let entries = holding(&[("a", &[])]);
    let (due, _) = ledger.due(&entries, now);
    ledger.done(id("a"), due[0].wanted.digest, true, now);
    let (due, next) = ledger.due(&entries, now + SECOND);
    assert!(due.is_empty());
    assert_eq!(next, Some(now + SETTLE), "then it is looked at again");
    assert_eq!(names(&mut ledger, &entries, now + SETTLE), ["a 1"], "somebody took it away");
    ledger.want(statuses(&[("a", "False")]));
    assert_eq!(names(&mut ledger, &entries, now + SECOND), ["a 1"], "there is something else to say");
}

#[test]
fn failures_are_tried_again_after_growing_pauses() {
    let mut now = Instant::now();
    let mut ledger = Ledger::default();
    ledger.want(statuses(&[("a", "True")]));
    let entries = holding(&[("a", &[])]);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let (due, _) = ledger.due(&entries, now);
        ledger.done(id("a"), due[0].wanted.digest, false, now);
        let (due, next) = ledger.due(&entries, now);
        assert!(due.is_empty());
        pauses.push((next.unwrap() - now).as_secs());
        now = next.unwrap();
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn an_object_that_leaves_loses_our_words_unless_others_spoke() {
    let now = Instant::now();
    let fine = conditions("True");
    let mut ledger = Ledger::default();
    ledger.want(statuses(&[("a", "True"), ("b", "True"), ("c", "True")]));
    ledger.want(statuses(&[("c", "True")]));
    // Whoever serves `b` now has written already; `a` is still as we left it.
    let entries = holding(&[("a", &fine), ("b", &conditions("False")), ("c", &fine)]);
    assert_eq!(names(&mut ledger, &entries, now), ["a 0"]);
    ledger.done(id("a"), digest(&[]), true, now);
    assert!(names(&mut ledger, &entries, now).is_empty());

    // One that comes back is ours again; one that does not lead says no farewell.
    ledger.want(statuses(&[]));
    ledger.want(statuses(&[("c", "False")]));
    assert_eq!(names(&mut ledger, &entries, now), ["c 1"]);
    ledger.want(statuses(&[]));
    ledger.stand_down();
    assert!(names(&mut ledger, &entries, now).is_empty());
}

#[test]
fn a_batch_is_bounded() {
    let mut ledger = Ledger::default();
    let names: Vec<String> = (0..2 * BATCH).map(|at| format!("r{at}")).collect();
    ledger.want(statuses(&names.iter().map(|name| (name.as_str(), "True")).collect::<Vec<_>>()));
    let entries = holding(&names.iter().map(|name| (name.as_str(), [].as_slice())).collect::<Vec<_>>());
    assert_eq!(ledger.due(&entries, Instant::now()).0.len(), BATCH);
}
