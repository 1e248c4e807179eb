//! Which objects of a kind a watch asks for. A gateway asks for all of them; a sidecar, of which there may be thousands, only for those
//! that the objects it read before name, and again whenever others are named. How a watch is kept up is `watch`'s to say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::kinds::Kind;
use crate::source::Store;
use crate::translate::{Key, Resources};

/// What is asked for of the kinds that other objects name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The Services whose endpoints are read.
    pub services: BTreeSet<Key>,
    /// Whether Secrets are read.
    pub secrets: bool,
    /// Whether ConfigMaps are read.
    pub config_maps: bool,
}

/// Says what the objects that were read name.
pub type Naming = dyn Fn(&Resources) -> Wanted + Send + Sync;

/// What a watch asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// No object: there is no watch.
    Nothing,
    /// All that the kind itself does not leave out.
    All,
    /// Those with these labels.
    Labels(String),
}

/// The label by which an EndpointSlice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The longest selector, as it stands in a URL. API servers take some hundred kilobytes, and what stands before them often 8 KB for
/// everything that a request says. It is room for some 200 names of 16 letters.
const MAX_SELECTOR_BYTES: usize = 4096;

/// The slices of these Services. Where they are too many for a selector, those of all.
pub(super) fn slices_of(services: &BTreeSet<Key>, namespace: &str) -> Selection {
    // What is no name of a Service is no Service's, and would be read as a part of the selector.
    let is_name = |name: &&str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-') && !name.ends_with('-')
    };
    let names: Vec<&str> = of(services, namespace).map(|key| &*key.name).filter(is_name).collect();
    if names.is_empty() {
        return Selection::Nothing;
    }
    let selector = format!("{SERVICE_NAME} in ({})", names.join(","));
    // Each comma, slash and parenthesis has three letters in a URL.
    if selector.len() + 2 * (names.len() + 2) > MAX_SELECTOR_BYTES {
        Selection::All
    } else {
        Selection::Labels(selector)
    }
}

/// Those of a namespace.
pub(super) fn of<'a>(services: &'a BTreeSet<Key>, namespace: &'a str) -> impl Iterator<Item = &'a Key> {
    services.iter().filter(move |key| *key.namespace == *namespace)
}

/// What a watch asks for, as it changes.
pub(super) struct Scope {
    /// Nothing: all, for ever.
    named: Option<Named>,
}

struct Named {
    wanted: watch::Receiver<Option<Wanted>>,
    namespace: String,
    store: Store,
}

/// What is asked for in one go.
pub(super) struct Asked {
    pub(super) selection: Selection,
    wanted: Option<Wanted>,
}

/// How long it is waited, at most, before a watch is begun anew for what is named now: many ask at once when something is
/// named, and what is named comes in bursts.
const SPREAD: Duration = Duration::from_secs(1);

impl Scope {
    /// All objects.
    pub(super) fn all() -> Self {
        Scope { named: None }
    }

    /// Those that are wanted in a namespace, once it is known which.
    pub(super) fn named(wanted: watch::Receiver<Option<Wanted>>, namespace: &str, store: &Store) -> Self {
        Scope { named: Some(Named { wanted, namespace: namespace.to_owned(), store: store.clone() }) }
    }

    /// What to ask for now; waits until that is known.
    pub(super) async fn asked<K: Kind>(&mut self) -> Asked {
        let Some(named) = &mut self.named else { return Asked { selection: Selection::All, wanted: None } };
        let wanted = named.wanted.wait_for(Option::is_some).await.ok().and_then(|wanted| wanted.clone());
        let Some(wanted) = wanted else { return std::future::pending().await };
        Asked { selection: K::selection(&wanted, &named.namespace), wanted: Some(wanted) }
    }

    /// All that was `asked` for is in the store.
    pub(super) fn complete<K: Kind>(&self, asked: &Asked) {
        if let (Some(named), Some(wanted)) = (&self.named, &asked.wanted) {
            named.store.update(|resources| K::complete(wanted, &named.namespace, resources));
        }
    }

    /// Waits until something else is to be asked for.
    pub(super) async fn another<K: Kind>(&self, asked: &Asked) {
        let Some(named) = &self.named else { return std::future::pending().await };
        let mut wanted = named.wanted.clone();
        let differs = |now: &Option<Wanted>| match (now, &asked.wanted) {
            (Some(now), Some(before)) => !K::wants_same(now, before, &named.namespace),
            _ => false,
        };
        if wanted.wait_for(differs).await.is_err() {
            return std::future::pending().await;
        }
        sleep(SPREAD.mul_f64(fastrand::f64())).await;
    }
}

/// Tells what is wanted, from when the objects that name it have been read (`first`) and whenever that changes; for ever.
pub(super) async fn follow(
    store: &Store,
    naming: &Arc<Naming>,
    first: impl Future<Output = bool>,
    tell: &watch::Sender<Option<Wanted>>,
) {
    let mut ticks = store.ticks();
    if !first.await {
        return std::future::pending().await;
    }
    loop {
        ticks.borrow_and_update();
        let wanted = store.read(|read| naming(read));
        tell.send_if_modified(|told| {
            let differs = told.as_ref() != Some(&wanted);
            if differs {
                *told = Some(wanted);
            }
            differs
        });
        if ticks.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(names: &[&str]) -> BTreeSet<Key> {
        names.iter().map(|name| Key::new("shop", *name)).chain([Key::new("far", "other")]).collect()
    }

    #[test]
    fn slices_are_asked_for_by_the_names_of_their_services() {
        let asked = |names: &[&str]| slices_of(&services(names), "shop");
        assert_eq!(asked(&[]), Selection::Nothing);
        assert_eq!(asked(&["b", "a-1"]), Selection::Labels("kubernetes.io/service-name in (a-1,b)".to_owned()));
        assert_eq!(asked(&["b),x in (c", "a"]), Selection::Labels("kubernetes.io/service-name in (a)".to_owned()));
        assert_eq!(asked(&["", "A", "-a", "a-", &"a".repeat(64)]), Selection::Nothing);
    }

    #[test]
    fn too_many_names_are_not_selected_by() {
        let names: Vec<String> = (0..400).map(|name| format!("service-{name:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Selection::Labels(selector) = slices_of(&services(&names[..200]), "shop") else { panic!("200 names fit") };
        let in_a_url = selector.replace([',', '(', ')', '/'], "%xx");
        assert!(in_a_url.len() <= MAX_SELECTOR_BYTES, "{}", in_a_url.len());
        assert_eq!(slices_of(&services(&names), "shop"), Selection::All);
    }
}
