//! Who gets the next request: power of two choices on requests in flight (Mitzenmacher, "The power of two choices in
//! randomized load balancing"), relative to weights.

use std::net::SocketAddr;
use std::rc::Rc;

use super::Host;

/// The less loaded of two random endpoints that were not tried yet.
pub(super) fn power_of_two<'a>(hosts: &'a [Rc<Host>], tried: &[SocketAddr]) -> Option<&'a Rc<Host>> {
    match hosts {
        [] => return None,
        [only] => return (!tried.contains(&only.endpoint.address)).then_some(only),
        _ => {}
    }
    let (first, second) = two_of(hosts.len());
    let fresh = |host: &&Rc<Host>| !tried.contains(&host.endpoint.address);
    let chosen = [&hosts[first], &hosts[second]].into_iter().filter(fresh).min_by(|a, b| load(a, b));
    // Both were tried: take the least loaded of those that were not, if there are any.
    chosen.or_else(|| hosts.iter().filter(fresh).min_by(|a, b| load(a, b)))
}

/// Two different indexes below `count`, which is at least 2.
fn two_of(count: usize) -> (usize, usize) {
    let first = fastrand::usize(..count);
    let second = fastrand::usize(..count - 1);
    (first, if second >= first { second + 1 } else { second })
}

/// Compares (in flight + 1) / weight without dividing.
fn load(a: &Host, b: &Host) -> std::cmp::Ordering {
    let cost = |host: &Host, other: &Host| (u128::from(host.state.in_flight()) + 1) * u128::from(other.endpoint.weight);
    cost(a, b).cmp(&cost(b, a))
}
