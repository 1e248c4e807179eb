//! One ProxyRoute, as far as it can be known without looking at other objects; what it refers to is `backend`'s to find.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backend::Lookup;
use super::clusters::Clusters;
use super::conditions::{Problem, Verdict, conditions, reason, sentences};
use super::tls::{self, TlsPlan, TlsState};
use super::unsaid::Unsaid;
use super::{Context, Key, Own, action, matches, retry, streaming};
use crate::api::{self, Condition};
use crate::snapshot::{
    Action, Backend, ClusterName, Forward, HeaderEdits, HostPattern, Invalid, Policy, Route, RouteName, Transport,
};

/// Older objects come first, then the order of names: the Gateway API's last resort between equals. Objects from files
/// have no age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age(pub(super) Option<Time>, pub(super) Key);

/// What is known of a ProxyRoute. Thousands are kept: what few have is boxed.
#[derive(Debug)]
pub(super) struct RouteState {
    pub(super) age: Age,
    pub(super) generation: Option<i64>,
    pub(super) hosts: Box<[HostPattern]>,
    pub(super) tls: TlsState,
    pub(super) rules: Box<[RuleState]>,
    /// What is wrong with the spec itself.
    problems: Box<[Problem]>,
    /// What is wrong with what it refers to.
    pub(super) unresolved: Box<[Problem]>,
    /// The matches that other routes have, and of how many.
    pub(super) lost: Box<[String]>,
    /// What was last said of all this.
    pub(super) conditions: Option<Arc<[Condition]>>,
}

/// A rule: its route as last built, and what its backends refer to, in the same order.
#[derive(Debug)]
pub(super) struct RuleState {
    pub(super) route: Arc<Route>,
    pub(super) targets: Box<[Target]>,
    /// The policies that it names.
    policies: Box<[Key]>,
}

impl RuleState {
    /// Nothing is served by it.
    fn refuse(&mut self, why: &Problem) {
        let action = Action::Invalid(Invalid(why.to_string().into()));
        self.route = Arc::new(Route { action, ..Route::clone(&self.route) });
        self.targets = Box::default();
    }
}

/// What a backend refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Service(Key, api::ServicePort),
    Upstream(Key),
}

impl RouteState {
    /// Reads a route; `None` if it is for another Floodway.
    pub(super) fn read(
        key: &Key,
        object: &Own<api::ProxyRouteSpec>,
        context: &Context,
        unsaid: &Unsaid,
    ) -> Option<Self> {
        let Own { created, generation, spec: api::ProxyRouteSpec { class_name, hosts, tls, rules }, unread: _ } =
            object;
        if class_name.as_deref().unwrap_or(api::DEFAULT_CLASS) != context.class_name {
            return None;
        }
        let mut problems = Vec::new();
        let mut patterns = Vec::with_capacity(hosts.len().max(1));
        for (at, host) in hosts.iter().enumerate() {
            match HostPattern::parse(host) {
                Ok(pattern) if patterns.contains(&pattern) => {}
                Ok(pattern) => patterns.push(pattern),
                // No request can ask for such a host, so that leaving it out opens nothing.
                Err(error) => problems.push(Problem::invalid(format!("spec.hosts[{at}]"), error)),
            }
        }
        let https = context.https_port;
        let has_hosts = !hosts.is_empty();
        let transport = tls.as_deref().and_then(|tls| tls::transport(tls, key, has_hosts, https, &mut problems));
        let mut plan = tls.as_deref().and_then(|tls| TlsPlan::read(tls, key, &mut problems));
        let passed = tls.as_deref().filter(|tls| tls.passthrough);
        let refused = passed.map(|tls| tls::passthrough::problems(tls, hosts, rules)).unwrap_or_default();
        let passed = passed.is_some() && !hosts.is_empty();
        if hosts.is_empty() {
            patterns.push(HostPattern::Any);
            if plan.take().is_some() {
                let why = "a certificate is chosen by the host that a client names; name hosts";
                problems.push(Problem::invalid("spec.tls.secretName", why));
            }
        }
        let object_name: Arc<str> = key.to_string().into();
        let rules = rules.iter().enumerate().map(|(at, one)| {
            let name = one.name.clone().unwrap_or_else(|| at.to_string());
            let name = RouteName { object: Arc::clone(&object_name), rule: name.into() };
            rule(one, name, &format!("spec.rules[{at}]"), key, unsaid, transport.clone(), &mut problems)
        });
        let mut rules: Box<[_]> = rules.collect();
        if let Some(why) = refused.first() {
            rules.iter_mut().for_each(|rule| rule.refuse(why));
        }
        problems.extend(refused);
        if rules.is_empty() {
            problems.push(Problem::invalid("spec.rules", "a route needs at least one rule"));
        }
        Some(RouteState {
            age: Age(created.clone(), key.clone()),
            generation: *generation,
            hosts: patterns.into(),
            tls: TlsState::of(plan, passed),
            rules,
            problems: problems.into(),
            unresolved: Box::default(),
            lost: Box::default(),
            conditions: None,
        })
    }

    /// Looks up what the backends refer to, and builds those routes again for which the answer differs. Returns whether
    /// there were any.
    pub(super) fn resolve(&mut self, lookup: Lookup<'_>, clusters: &mut Clusters) -> bool {
        let mut unresolved = Vec::new();
        let mut changed = false;
        let (key, passed) = (&self.age.1, self.tls.passed);
        for (rule, RuleState { route, targets, policies }) in self.rules.iter_mut().enumerate() {
            let wrong = policies.iter().enumerate().filter_map(|(at, policy)| {
                lookup.policies.problem(policy, || format!("spec.rules[{rule}].policies[{at}]"))
            });
            let before = unresolved.len();
            unresolved.extend(wrong);
            // What is wrong with policies that the rule names is said there, and what is attached to it, here, once.
            let mut named = unresolved.len() > before;
            let mut attached = |policy: &Option<Arc<Policy>>| {
                let invalid = policy.as_ref().and_then(|policy| policy.invalid.as_ref()).filter(|_| !named)?;
                named = true;
                let path = format!("spec.rules[{rule}]");
                Some(Problem {
                    reason: reason::POLICY_INVALID,
                    path,
                    message: format!("attached policy: {}", invalid.0),
                })
            };
            let Action::Forward(forward) = &route.action else {
                let policy = lookup.policies.of_request(policies, key, None);
                unresolved.extend(attached(&policy));
                if route.policy != policy {
                    *route = Arc::new(Route { policy, ..Route::clone(route) });
                    changed = true;
                }
                continue;
            };
            let found = targets.iter().enumerate().map(|(at, target)| {
                match lookup.resolve(target, || format!("spec.rules[{rule}].backends[{at}]")) {
                    Ok((source, pending)) => {
                        unresolved.extend(pending);
                        let upstream = lookup.settings(&source).map(|plan| &plan.age.1);
                        let policy = lookup.policies.of_request(policies, key, upstream);
                        unresolved.extend(attached(&policy));
                        let unasked = || tls::passthrough::unasked(policy.as_deref(), rule);
                        unresolved.extend(passed.then(unasked).flatten());
                        (Ok(clusters.acquire(source)), policy)
                    }
                    Err(problem) => {
                        let why = Invalid(problem.to_string().into());
                        unresolved.push(problem);
                        (Err(why), None)
                    }
                }
            });
            let found: Vec<_> = found.collect();
            led_to(route).for_each(|name| clusters.release(name));
            let same = |(backend, (cluster, policy)): (&Backend, &(_, _))| {
                backend.cluster == *cluster && backend.policy == *policy
            };
            if !forward.backends.iter().zip(&found).all(same) {
                let backends = forward.backends.iter().zip(found);
                let backends = backends
                    .map(|(backend, (cluster, policy))| Backend { weight: backend.weight, cluster, policy })
                    .collect();
                let action = Action::Forward(Forward { backends, ..forward.clone() });
                *route = Arc::new(Route { action, ..Route::clone(route) });
                changed = true;
            }
        }
        if *self.unresolved != *unresolved {
            self.unresolved = unresolved.into();
            self.conditions = None;
        }
        changed
    }

    /// Its backends lead nowhere any more.
    pub(super) fn release(&self, clusters: &mut Clusters) {
        self.rules.iter().flat_map(|rule| led_to(&rule.route)).for_each(|name| clusters.release(name));
    }

    /// Whether a backend refers to one of these Services.
    pub(super) fn uses_any(&self, services: &BTreeSet<Key>) -> bool {
        let mut targets = self.rules.iter().flat_map(|rule| &rule.targets);
        targets.any(|target| matches!(target, Target::Service(key, _) if services.contains(key)))
    }

    /// Takes over what still holds of the state that this one replaces: routes that are equal, and what was lost, until
    /// its hosts are built again.
    pub(super) fn keep(&mut self, before: &Self) {
        self.lost.clone_from(&before.lost);
        for (new, old) in self.rules.iter_mut().zip(&before.rules) {
            if new.route == old.route {
                new.route = Arc::clone(&old.route);
            }
        }
    }

    /// Whether it serves what `other` does, by the very same routes.
    pub(super) fn serves_like(&self, other: &Self) -> bool {
        let same_route = |(new, old): (&RuleState, &RuleState)| Arc::ptr_eq(&new.route, &old.route);
        self.age == other.age
            && self.hosts == other.hosts
            && self.rules.len() == other.rules.len()
            && self.rules.iter().zip(&other.rules).all(same_route)
    }

    /// How many requests it asks for: matches times hosts.
    fn wanted(&self) -> usize {
        self.hosts.len() * self.rules.iter().map(|rule| rule.route.matches.len()).sum::<usize>()
    }

    /// Whether there is nothing to tell its owner but that all is well.
    pub(super) fn is_flawless(&self) -> bool {
        self.problems.is_empty() && self.unresolved.is_empty() && self.lost.is_empty() && self.tls.is_flawless()
    }

    /// What to tell its owner.
    pub(super) fn verdicts(&self) -> Arc<[Condition]> {
        let accepted = Verdict::of_problems(&self.problems);
        let resolved = Verdict::of_problems(&self.unresolved);
        let mut programmed = if accepted.is_some() {
            Verdict::bad(reason::INVALID, "what is not accepted of the spec is answered with 500, or not served at all")
        } else if resolved.as_ref().is_some_and(|verdict| verdict.reason == reason::PENDING) {
            Verdict::pending("some requests are answered with 503, until a name is resolved")
        } else if self.unresolved.iter().any(|problem| problem.reason == reason::NAME_NOT_FOUND) {
            Verdict::bad(reason::INVALID, "some requests are answered with 503, for want of an address")
        } else if resolved.is_some() {
            Verdict::bad(
                reason::INVALID,
                "some requests are answered with 500 or 503, because references are not resolved",
            )
        } else if self.lost.is_empty() {
            self.tls.programmed()
        } else if self.lost.len() >= self.wanted() {
            Verdict::bad(reason::CONFLICTED, sentences(&self.lost))
        } else {
            Verdict { reason: reason::PARTIALLY_CONFLICTED, ..Verdict::good("", &sentences(&self.lost)) }
        };
        // Whatever else is wrong, the loser of a conflict is told of it.
        for more in [sentences(&self.lost), sentences(self.tls.warnings())] {
            if !more.is_empty() && !programmed.message.contains(&more) {
                programmed.message = format!("{}; {more}", programmed.message);
            }
        }
        conditions(
            self.generation,
            accepted.unwrap_or_else(|| Verdict::good("Accepted", "the spec is valid")),
            Verdict::of_problems(&[&self.unresolved[..], self.tls.wrong()].concat())
                .unwrap_or_else(|| Verdict::good("ResolvedRefs", "all references are resolved")),
            programmed,
        )
    }
}

/// The clusters that the backends of a route lead to.
fn led_to(route: &Route) -> impl Iterator<Item = &ClusterName> {
    let backends = match &route.action {
        Action::Forward(forward) => &forward.backends[..],
        _ => &[],
    };
    backends.iter().filter_map(|backend| backend.cluster.as_ref().ok())
}

fn rule(
    rule: &api::Rule,
    name: RouteName,
    at: &str,
    key: &Key,
    unsaid: &Unsaid,
    transport: Option<Arc<Transport>>,
    problems: &mut Vec<Problem>,
) -> RuleState {
    let (matches, mut wrong) = matches::matches(&rule.matches, at);
    let read = parts(rule, at, key, unsaid);
    wrong.extend(read.as_ref().err().cloned());
    let (parts, targets) = match (read, wrong.first()) {
        (Ok(read), None) => read,
        (_, first) => {
            let why = first.map(ToString::to_string).unwrap_or_default();
            (Parts { action: Action::Invalid(Invalid(why.into())), ..Parts::default() }, Vec::new())
        }
    };
    problems.extend(wrong);
    let Parts { request_headers, response_headers, action } = parts;
    let beside = |policy: &api::PolicyRef| Key::new(Arc::clone(&key.namespace), policy.name.as_str());
    RuleState {
        // What it is under is found with what it refers to.
        route: Arc::new(Route { name, matches, request_headers, response_headers, transport, policy: None, action }),
        targets: targets.into(),
        policies: rule.policies.iter().map(beside).collect(),
    }
}

struct Parts {
    request_headers: Option<Box<HeaderEdits>>,
    response_headers: Option<Box<HeaderEdits>>,
    action: Action,
}

impl Default for Parts {
    fn default() -> Self {
        let (request_headers, response_headers) = Default::default();
        Parts { request_headers, response_headers, action: Action::Invalid(Invalid("".into())) }
    }
}

fn parts(rule: &api::Rule, at: &str, key: &Key, unsaid: &Unsaid) -> Result<(Parts, Vec<Target>), Problem> {
    let api::Rule {
        name: _,
        matches,
        backends,
        redirect,
        respond,
        request_headers,
        response_headers,
        rewrite,
        timeouts,
        retry,
        streaming,
        policies: _,
    } = rule;
    let mut targets = Vec::with_capacity(backends.len());
    let action = match (&backends[..], redirect, respond) {
        ([], Some(redirect), None) => Action::Redirect(action::redirect(redirect, matches, &format!("{at}.redirect"))?),
        ([], None, Some(respond)) => Action::Respond(action::respond(respond, &format!("{at}.respond"))?),
        ([_, ..], None, None) => {
            let mut all = Vec::with_capacity(backends.len());
            for (position, api::Backend { service, upstream, weight }) in backends.iter().enumerate() {
                let at = format!("{at}.backends[{position}]");
                targets.push(target(service.as_ref(), upstream.as_ref(), key, &at)?);
                all.push(Backend {
                    weight: action::weight(*weight, &at)?,
                    cluster: Err(Invalid("".into())),
                    policy: None,
                });
            }
            let timeouts = action::timeouts(timeouts.as_deref(), &unsaid.timeouts, &format!("{at}.timeouts"))?;
            Action::Forward(Forward {
                backends: all,
                rewrite: action::rewrite(rewrite.as_deref(), matches, &format!("{at}.rewrite"))?,
                retry: retry::retry(retry.as_deref(), timeouts.request, &format!("{at}.retry"))?,
                timeouts,
                streaming: streaming::streaming(streaming.as_deref(), &format!("{at}.streaming"))?,
            })
        }
        _ => return Err(Problem::invalid(at, "a rule needs exactly one of backends, redirect and respond")),
    };
    let for_upstreams =
        rewrite.is_some() || timeouts.is_some() || retry.is_some() || streaming.is_some() || request_headers.is_some();
    if targets.is_empty() && for_upstreams {
        return Err(Problem::invalid(at, "rewrite, timeouts, retry, streaming and requestHeaders need backends"));
    }
    let request_headers = action::header_edits(request_headers.as_deref(), &format!("{at}.requestHeaders"))?;
    let response_headers = action::header_edits(response_headers.as_deref(), &format!("{at}.responseHeaders"))?;
    Ok((Parts { request_headers, response_headers, action }, targets))
}

/// What a reference to exactly one of both refers to.
pub(super) fn target(
    service: Option<&api::ServiceRef>,
    upstream: Option<&api::UpstreamRef>,
    key: &Key,
    at: &str,
) -> Result<Target, Problem> {
    let beside = |name: &str| Key { namespace: Arc::clone(&key.namespace), name: name.into() };
    match (service, upstream) {
        (Some(api::ServiceRef { name, port }), None) => Ok(Target::Service(beside(name), port.clone())),
        (None, Some(api::UpstreamRef { name })) => Ok(Target::Upstream(beside(name))),
        _ => Err(Problem::invalid(at, "a backend needs exactly one of service and upstream")),
    }
}
