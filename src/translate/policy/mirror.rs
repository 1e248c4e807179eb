//! Copies of requests for another service. Which cluster that service is, is looked up with what the backends of rules refer to; while
//! it is missing there are no copies, and requests pass as they would without this section.

use std::sync::Arc;
use std::time::Duration;

use super::{Lead, Material};
use crate::api;
use crate::snapshot::Mirror;
use crate::translate::Key;
use crate::translate::conditions::Problem;
use crate::translate::route::target;
use crate::translate::streaming::time_within;

const BODY_BYTES: u32 = 64 * 1024;
const CONCURRENT: u32 = 100;
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a section says of copies; their cluster is still to be found.
pub(super) fn mirror(
    given: &api::Mirror,
    path: &str,
    material: &mut Material<'_>,
    problems: &mut Vec<Problem>,
) -> Mirror {
    let api::Mirror { service, upstream, percent, body_bytes, concurrent, timeout, without_credentials } = given;
    let beside = Key::new(Arc::clone(material.namespace), "");
    match target(service.as_ref(), upstream.as_ref(), &beside, path) {
        Ok(target) => material.leads.push((Lead::Mirror, target)),
        Err(problem) => problems.push(problem),
    }
    let timeout = time_within(timeout, api::MIRROR_TIMEOUT, || format!("{path}.timeout")).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let percent = percent.unwrap_or(100);
    if percent > 100 {
        problems.push(Problem::invalid(format!("{path}.percent"), "write a number from 0 to 100"));
    }
    let concurrent = concurrent.unwrap_or(CONCURRENT);
    if concurrent == 0 {
        let why = "write at least 1; for no copies leave mirror out, or write percent: 0";
        problems.push(Problem::invalid(format!("{path}.concurrent"), why));
    }
    Mirror {
        cluster: None,
        percent: percent.min(100) as u8,
        body_bytes: body_bytes.unwrap_or(BODY_BYTES) as usize,
        concurrent,
        timeout: timeout.unwrap_or(TIMEOUT),
        without_credentials: *without_credentials,
    }
}
