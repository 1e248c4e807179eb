//! What requests get for which nobody may be asked.

use crate::api;
use crate::snapshot::Fallback;
use crate::translate::conditions::Problem;
use crate::translate::route::{Target, target};
use crate::translate::{Key, action};

/// A fallback, or what has to be looked up for it.
pub(super) fn fallback(
    spec: &api::ProxyUpstreamSpec,
    key: &Key,
    problems: &mut Vec<Problem>,
) -> (Option<Fallback>, Option<Target>) {
    let at = "spec.fallback";
    let Some(api::Fallback { service, upstream, respond, redirect }) = &spec.fallback else { return (None, None) };
    let read = match (service, upstream, respond, redirect) {
        (Some(service), None, None, None) if spec.target_refs.iter().any(|one| one.name == service.name) => {
            Err(Problem::invalid("spec", "a Service cannot be its own fallback"))
        }
        (None, Some(upstream), None, None) if *upstream.name == *key.name => {
            Err(Problem::invalid(format!("{at}.upstream"), "an upstream cannot be its own fallback"))
        }
        (service @ Some(_), None, None, None) => {
            target(service.as_ref(), None, key, at).map(|target| (None, Some(target)))
        }
        (None, upstream @ Some(_), None, None) => {
            target(None, upstream.as_ref(), key, at).map(|target| (None, Some(target)))
        }
        (None, None, Some(respond), None) => {
            action::respond(respond, &format!("{at}.respond")).map(|respond| (Some(Fallback::Respond(respond)), None))
        }
        (None, None, None, Some(redirect)) => match &redirect.path {
            Some(path) if path.type_ != api::PathRewriteType::ReplaceFull => Err(Problem::invalid(
                at,
                "a fallback knows no prefix that could be replaced: the path of its redirect is of type ReplaceFull",
            )),
            _ => action::redirect(redirect, &[], &format!("{at}.redirect"))
                .map(|redirect| (Some(Fallback::Redirect(redirect)), None)),
        },
        _ => Err(Problem::invalid(at, "a fallback needs exactly one of service, upstream, respond and redirect")),
    };
    read.unwrap_or_else(|problem| {
        problems.push(problem);
        (None, None)
    })
}
