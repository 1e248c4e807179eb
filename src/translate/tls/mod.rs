//! TLS with clients: what a route asks of it, and which host gets which certificates, or has its TLS passed on. How a Secret becomes a certificate is
//! `certificate`'s.
//!
//! A Secret that cannot be served leaves its last good version in force. That is no memory of translation: whoever puts Secrets into
//! [`Resources`] keeps that version there, beside the one that is wrong.

mod certificate;
mod clients;
pub(super) mod passthrough;
mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use certificate::{WrongCertificate, check_certificate};
pub(super) use plan::{TlsPlan, transport};

use self::clients::ClientTable;
use super::changes::Changes;
use super::conditions::{Problem, Verdict, reason, sentences};
use super::hosts::Hosts;
use super::route::{Age, RouteState};
use super::{Key, Resources, SecretData, UNREAD_SECRET};
use crate::settings::ClientCertificates;
use crate::snapshot::{Certificate, HostPattern, HostTls, Map, Tls};

/// Whether a Secret has a certificate that can be served.
pub(super) fn is_sound(key: &Key, secret: &SecretData) -> bool {
    certificate::read(key, secret).is_ok()
}

/// What became of a Secret that something refers to.
#[derive(Clone, Debug, Default)]
struct Found {
    /// What is served.
    certificate: Option<Arc<Certificate>>,
    /// Why that is nothing, or not the present version: a reason and a sentence.
    wrong: Option<(&'static str, String)>,
    /// What is not served of it.
    less: Option<String>,
}

/// What is known of a route's TLS. In boxes, because most routes say nothing of it.
#[derive(Debug, Default)]
pub(super) struct TlsState {
    /// `None`: it gives its hosts no certificate.
    pub(super) plan: Option<Box<TlsPlan>>,
    /// It has TLS of its hosts passed on.
    pub(super) passed: bool,
    /// `None`: there is nothing to tell but that all is well.
    words: Option<Box<Words>>,
}

/// What the owner of a route is told of its certificates.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    /// What cannot be served.
    wrong: Vec<Problem>,
    /// What is served although it may not be meant.
    warnings: Vec<Problem>,
    /// Whether there is nothing to serve.
    refused: bool,
    /// Whether all its hosts are another's, so that nothing is passed on.
    lost: bool,
    /// Whether clients have to be verified and cannot be.
    unverified: bool,
}

/// All is well.
static SILENCE: Words =
    Words { wrong: Vec::new(), warnings: Vec::new(), refused: false, lost: false, unverified: false };

impl TlsState {
    pub(super) fn of(plan: Option<TlsPlan>, passed: bool) -> Self {
        TlsState { plan: plan.map(Box::new), passed, words: None }
    }

    fn words(&self) -> &Words {
        self.words.as_deref().unwrap_or(&SILENCE)
    }

    /// Whether it says anything of TLS at its hosts.
    fn asks(&self) -> bool {
        self.plan.is_some() || self.passed
    }

    fn secrets(&self) -> impl Iterator<Item = &Key> {
        self.plan.iter().flat_map(|plan| plan.secrets())
    }

    /// What cannot be served.
    pub(super) fn wrong(&self) -> &[Problem] {
        &self.words().wrong
    }

    /// What is served although it may not be meant.
    pub(super) fn warnings(&self) -> &[Problem] {
        &self.words().warnings
    }

    /// Whether there is nothing to tell but that all is well.
    pub(super) fn is_flawless(&self) -> bool {
        self.words.is_none()
    }

    /// How a route is served with which nothing else is wrong.
    pub(super) fn programmed(&self) -> Verdict {
        let Words { wrong, warnings, refused, lost, unverified } = self.words();
        match warnings.first() {
            _ if *lost => Verdict::bad(reason::CONFLICTED, sentences(warnings)),
            _ if *refused => {
                Verdict::bad(reason::INVALID, "handshakes for its hosts are refused, for want of a certificate")
            }
            _ if *unverified => Verdict::bad(
                reason::INVALID,
                "handshakes for its hosts are refused, because clients cannot be verified",
            ),
            Some(first) => Verdict { reason: first.reason, ..Verdict::good("", &sentences(warnings)) },
            None if wrong.is_empty() => Verdict::good("Programmed", "requests are served as the spec says"),
            None => Verdict::good("Programmed", "requests are served as the spec says, with the last good certificate"),
        }
    }
}

/// What routes ask of TLS, host by host.
#[derive(Debug, Default)]
pub(super) struct TlsTable {
    /// The Secret of the default certificate.
    default: Option<Key>,
    /// What is wrong with that.
    default_wrong: Option<String>,
    /// The routes that give each host a certificate, or have its TLS passed on, oldest first.
    hosts: Map<HostPattern, BTreeSet<Age>>,
    /// The routes that refer to each Secret, and what was found there.
    secrets: Map<Key, (BTreeSet<Key>, Found)>,
    /// Which certificates clients show.
    clients: ClientTable,
    /// Hosts whose routes or certificates changed since they were built.
    dirty: BTreeSet<HostPattern>,
}

impl TlsTable {
    /// A table with this Secret for clients that name no known host, and what is asked of those that no route asks.
    pub(super) fn new(default: Option<Key>, clients: Option<&ClientCertificates>) -> Self {
        let mut table = TlsTable { default, clients: ClientTable::new(clients), ..TlsTable::default() };
        table.find_default(&Resources::default(), &mut Tls::default());
        table
    }

    /// What is wrong with the default certificate, and with what clients are asked.
    pub(super) fn complaint(&self) -> Option<String> {
        let certificate = self.default_wrong.as_ref().map(|why| format!("listeners.tls.defaultCertificate: {why}"));
        let all: Vec<_> = certificate.into_iter().chain(self.clients.complaint()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// A route asks for TLS at its hosts.
    pub(super) fn join(&mut self, route: &RouteState, resources: &Resources) {
        self.look_again(route);
        if !route.tls.asks() {
            return;
        }
        for secret in route.tls.secrets() {
            let (routes, found) = self.secrets.entry(secret.clone()).or_default();
            if routes.is_empty() {
                *found = look_up(secret, resources, found);
            }
            routes.insert(route.age.1.clone());
        }
        if let Some(plan) = &route.tls.plan {
            self.clients.join(&plan.clients, &route.age.1, resources);
        }
        for host in &route.hosts {
            self.hosts.entry(host.clone()).or_default().insert(route.age.clone());
        }
        self.dirty.extend(route.hosts.iter().cloned());
    }

    /// A route comes or goes that may be the oldest of a host, and so decide whether TLS is passed on there.
    fn look_again(&mut self, route: &RouteState) {
        self.dirty.extend(route.hosts.iter().filter(|host| self.hosts.contains_key(host)).cloned());
    }

    /// What a route passes TLS on to has changed.
    pub(super) fn touch(&mut self, route: &RouteState) {
        if route.tls.passed {
            self.dirty.extend(route.hosts.iter().cloned());
        }
    }

    /// A route asks for it no longer.
    pub(super) fn leave(&mut self, route: &RouteState) {
        self.look_again(route);
        if !route.tls.asks() {
            return;
        }
        for secret in route.tls.secrets() {
            if let Some((routes, _)) = self.secrets.get_mut(secret) {
                routes.remove(&route.age.1);
            }
        }
        if let Some(plan) = &route.tls.plan {
            self.clients.leave(&plan.clients, &route.age.1);
        }
        for host in &route.hosts {
            if let Some(members) = self.hosts.get_mut(host) {
                members.remove(&route.age);
            }
        }
        self.dirty.extend(route.hosts.iter().cloned());
    }

    /// Looks at the Secrets that changed and builds the hosts that were touched; returns the routes whose words about TLS changed.
    pub(super) fn build(
        &mut self,
        changes: &Changes,
        resources: &Resources,
        hosts: &Hosts,
        routes: &mut Map<Key, Box<RouteState>>,
        tls: &mut Tls,
    ) -> Vec<Key> {
        let changed = &changes.secrets;
        let (asking, by_default) = self.clients.follow(changes, resources);
        if by_default || self.default.as_ref().is_some_and(|key| changed.contains(key)) {
            self.find_default(resources, tls);
        }
        if by_default {
            self.dirty.extend(self.hosts.keys().cloned());
        }
        let asking = asking.iter().filter_map(|key| routes.get(key));
        self.dirty.extend(asking.flat_map(|route| route.hosts.iter().cloned()));
        if changed.is_empty() && self.dirty.is_empty() {
            return Vec::new();
        }
        self.secrets.retain(|_, (routes, _)| !routes.is_empty());
        for secret in changed {
            let Some((users, found)) = self.secrets.get_mut(secret) else { continue };
            *found = look_up(secret, resources, found);
            let users = users.iter().filter_map(|key| routes.get(key));
            self.dirty.extend(users.flat_map(|route| route.hosts.iter().cloned()));
        }
        let mut affected = BTreeSet::new();
        for host in std::mem::take(&mut self.dirty) {
            let Some(members) = self.hosts.get(&host) else { continue };
            affected.extend(members.iter().map(|Age(_, key)| key.clone()));
            match self.first(&host, hosts, routes) {
                Some((key, route)) => {
                    let terms = self.terms(key, route);
                    if tls.get(&host).is_none_or(|before| **before != terms) {
                        tls.insert(host, Arc::new(terms));
                    }
                }
                None => {
                    tls.remove(&host);
                    if members.is_empty() {
                        self.hosts.remove(&host);
                    }
                }
            }
        }
        let told = affected.into_iter().filter(|key| {
            let Some(words) = routes.get(key).map(|route| self.words(key, route, hosts, routes)) else { return false };
            let Some(route) = routes.get_mut(key) else { return false };
            let differs = *route.tls.words() != words;
            if differs {
                (route.tls.words, route.conditions) = ((words != SILENCE).then(|| Box::new(words)), None);
            }
            differs
        });
        told.collect()
    }

    /// Gives clients that name no known host what the settings say.
    fn find_default(&mut self, resources: &Resources, tls: &mut Tls) {
        let Some(key) = &self.default else { return };
        let Found { certificate, wrong, less } = look_up(key, resources, &Found::default());
        self.default_wrong = wrong.map(|(_, why)| why).or(less);
        match certificate {
            Some(certificate) => {
                let clients = self.clients.of(&Default::default());
                let terms = HostTls { certificates: vec![certificate], clients, ..HostTls::default() };
                if tls.unnamed().is_none_or(|before| **before != terms) {
                    tls.insert(HostPattern::Any, Arc::new(terms));
                }
            }
            None => drop(tls.remove(&HostPattern::Any)),
        }
    }

    /// What a route gives its hosts.
    fn terms(&self, key: &Key, route: &RouteState) -> HostTls {
        let found = route.tls.secrets().filter_map(|secret| self.secrets.get(secret)?.1.certificate.clone());
        HostTls {
            route: Some(key.to_string().into()),
            certificates: found.collect(),
            min_version: route.tls.plan.as_ref().and_then(|plan| plan.min_version),
            passed: route.rules.first().filter(|_| route.tls.passed).map(|rule| Arc::clone(&rule.route)),
            clients: route.tls.plan.as_ref().and_then(|plan| self.clients.of(&plan.clients)),
        }
    }

    /// What the owner of a route is told.
    fn words(&self, key: &Key, route: &RouteState, hosts: &Hosts, routes: &Map<Key, Box<RouteState>>) -> Words {
        if route.tls.passed {
            return self.words_of_passed(key, route, hosts, routes);
        }
        let Some(plan) = &route.tls.plan else { return Words::default() };
        let (mut wrong, mut warnings, mut refused) = (Vec::new(), Vec::new(), true);
        for (secret, path) in plan.references() {
            let Some((_, found)) = self.secrets.get(secret) else { continue };
            let problem =
                |reason, message: &str| Problem { reason, path: path.to_owned(), message: message.to_owned() };
            wrong.extend(found.wrong.iter().map(|(reason, why)| problem(reason, why)));
            warnings.extend(found.less.iter().map(|why| problem(reason::INVALID_STAPLE, why)));
            let Some(certificate) = &found.certificate else { continue };
            refused = false;
            let uncovered = route.hosts.iter().filter(|host| !covers(certificate, host)).map(ToString::to_string);
            let uncovered: Vec<_> = uncovered.collect();
            if !uncovered.is_empty() {
                let named: Vec<_> = certificate.names.iter().take(8).map(ToString::to_string).collect();
                let named = if named.is_empty() { "no host".to_owned() } else { named.join(", ") };
                let why =
                    format!("the certificate of Secret {secret} is not for {}, but for {named}", uncovered.join(", "));
                warnings.push(problem(reason::CERTIFICATE_MISMATCH, &why));
            }
        }
        wrong.extend(self.clients.problem(&plan.clients));
        let unverified = self.clients.of(&plan.clients).is_some_and(|auth| auth.verifier.is_none());
        for host in &route.hosts {
            let Some((first, theirs)) = self.first(host, hosts, routes).filter(|(first, _)| *first != key) else {
                continue;
            };
            let what = match &theirs.tls.plan {
                Some(theirs) if theirs.serves_like(plan) => continue,
                Some(_) => format!(
                    "says which certificate host {host} has, from which version of TLS on, and which its clients show"
                ),
                None => format!("has TLS of host {host} passed through, so that nobody comes to this route with it"),
            };
            warnings.push(passthrough::conflict("spec.tls", first, &what));
        }
        Words { wrong, warnings, refused, lost: false, unverified }
    }
}

/// Looks a Secret up. What is equal to what was `before` stays the same.
fn look_up(key: &Key, resources: &Resources, before: &Found) -> Found {
    let kept = |certificate: Certificate| match &before.certificate {
        Some(same) if **same == certificate => Arc::clone(same),
        _ => Arc::new(certificate),
    };
    let Some(secret) = resources.secrets.get(key) else {
        let why = format!("Secret {key} {UNREAD_SECRET}; until it is, handshakes for hosts that need it are refused");
        return Found { wrong: Some((reason::REF_NOT_FOUND, why)), ..Found::default() };
    };
    match certificate::read(key, secret) {
        Ok(certificate::Read { certificate, staple }) => Found {
            certificate: Some(kept(certificate)),
            wrong: None,
            less: staple.map(|wrong| format!("Secret {key}: {wrong}")),
        },
        Err(wrong) => {
            let good = resources.good_secrets.get(key).and_then(|good| certificate::read(key, good).ok());
            let then = match good {
                Some(_) => "its last good version stays in force",
                None => "until that is put right, handshakes for hosts that need it are refused",
            };
            let why = format!("Secret {key}: {wrong}; {then}");
            let certificate = good.map(|good| kept(good.certificate));
            Found { certificate, wrong: Some((reason::INVALID_CERTIFICATE, why)), less: None }
        }
    }
}

/// Whether a certificate is for the hosts of a pattern. One that has a wildcard is for those one label below it, and no
/// certificate is for more (RFC 9525 6.3).
fn covers(certificate: &Certificate, host: &HostPattern) -> bool {
    match host {
        HostPattern::Exact(name) => certificate.covers(name),
        HostPattern::Wildcard(_) => certificate.names.contains(host),
        HostPattern::Any => true,
    }
}

#[cfg(test)]
mod tests;
