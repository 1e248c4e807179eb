#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Answers from a script; the last answer of a name is repeated.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<BTreeMap<String, Answers>>>, Arc<AtomicUsize>);

type Answers = VecDeque<Result<Answer, String>>;

impl Script {
    fn of(name: &str, answers: impl IntoIterator<Item = Result<(&'static [&'static str], u64), &'static str>>) -> Self {
        let script = Script::default();
        let answers = answers.into_iter().map(|answer| match answer {
            Ok((addresses, seconds)) => Ok(Answer {
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                valid: Duration::from_secs(seconds),
            }),
            Err(error) => Err(error.to_owned()),
        });
        script.0.lock().unwrap().insert(name.to_owned(), answers.collect());
        script
    }

    fn asked(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Resolve for Script {
    async fn resolve(&self, name: &str) -> Result<Answer, String> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let mut script = self.0.lock().unwrap();
        let Some(answers) = script.get_mut(name) else { return Err("nobody knows".to_owned()) };
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn resolved(store: &Store, name: &str) -> Option<Vec<String>> {
    store.read(|resources| resources.resolved.get(name).map(|found| found.iter().map(IpAddr::to_string).collect()))
}

fn start(script: &Script, wanted: &[&str]) -> (Store, watch::Sender<BTreeSet<String>>) {
    let store = Store::default();
    let (sender, receiver) = watch::channel(names(wanted));
    tokio::spawn(run(store.clone(), receiver, script.clone(), |_| ()));
    (store, sender)
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn answers_are_merged_sorted_and_renewed() {
    let script =
        Script::of("a.example", [Ok((&["10.0.0.2", "::1", "10.0.0.1", "10.0.0.2"][..], 60)), Ok((&["10.0.0.3"], 60))]);
    let (store, _wanted) = start(&script, &["a.example"]);
    store.changed().await;
    assert_eq!(resolved(&store, "a.example").unwrap(), ["10.0.0.1", "10.0.0.2", "::1"]);
    seconds(59).await;
    assert_eq!(script.asked(), 1);
    store.changed().await;
    assert_eq!(resolved(&store, "a.example").unwrap(), ["10.0.0.3"]);
}

#[tokio::test(start_paused = true)]
async fn times_to_live_are_bounded() {
    let script = Script::of("a.example", [Ok((&["10.0.0.1"][..], 0)), Ok((&["10.0.0.1"], 1_000_000))]);
    let (store, _wanted) = start(&script, &["a.example"]);
    store.changed().await;
    seconds(4).await;
    assert_eq!(script.asked(), 1, "asked again too early");
    seconds(2).await;
    assert_eq!(script.asked(), 2);
    seconds(300).await;
    assert_eq!(script.asked(), 3, "a long time to live is cut");
}

#[tokio::test(start_paused = true)]
async fn an_equal_answer_does_not_tick() {
    let script = Script::of("a.example", [Ok((&["10.0.0.1", "10.0.0.2"][..], 5)), Ok((&["10.0.0.2", "10.0.0.1"], 5))]);
    let (store, _wanted) = start(&script, &["a.example"]);
    store.changed().await;
    assert!(timeout(Duration::from_secs(100), store.changed()).await.is_err());
    assert!(script.asked() > 10);
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_last_good_answer_and_is_tried_again_soon() {
    let good = Ok((&["10.0.0.1"][..], 5));
    let script =
        Script::of("a.example", [good, Err("SERVFAIL"), Err("SERVFAIL"), Ok((&[], 5)), Ok((&["10.0.0.9"], 5))]);
    let (store, _wanted) = start(&script, &["a.example"]);
    store.changed().await;
    seconds(7).await;
    assert_eq!(script.asked(), 3, "asked after 5 s and 6 s");
    assert_eq!(resolved(&store, "a.example").unwrap(), ["10.0.0.1"]);
    store.changed().await;
    assert_eq!(resolved(&store, "a.example").unwrap(), ["10.0.0.9"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_without_addresses_is_known_and_an_unknown_one_is_not() {
    let script = Script::of("none.example", [Ok((&[][..], 5))]);
    let (store, _wanted) = start(&script, &["none.example", "lost.example"]);
    store.changed().await;
    seconds(1).await;
    assert_eq!(resolved(&store, "none.example"), Some(vec![]));
    assert_eq!(resolved(&store, "lost.example"), None);
}

#[tokio::test(start_paused = true)]
async fn names_come_and_go() {
    let script = Script::of("a.example", [Ok((&["10.0.0.1"][..], 5))]);
    let (store, wanted) = start(&script, &[]);
    wanted.send_replace(names(&["a.example"]));
    store.changed().await;
    wanted.send_replace(names(&[]));
    seconds(1).await;
    assert_eq!(resolved(&store, "a.example"), None);
    let asked = script.asked();
    seconds(100).await;
    assert_eq!(script.asked(), asked, "nobody wants it");
}

#[tokio::test]
async fn the_system_knows_localhost_and_literal_addresses() {
    let system = System::new();
    for (name, expected) in [("127.0.0.9", "127.0.0.9"), ("[fd00::1]", "fd00::1"), ("localhost", "127.0.0.1")] {
        let answer = system.resolve(name).await.unwrap();
        assert!(answer.addresses.contains(&expected.parse().unwrap()), "{name}: {answer:?}");
    }
}
