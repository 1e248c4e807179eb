//! Connecting to several endpoints at once, one a little after the other: RFC 8305, "Happy Eyeballs", where the addresses of a
//! name are the endpoints of a cluster. Where addresses come from is `source`'s to know.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use super::error::Error;
use super::exchange::Exchange;
use super::upstream::{Chosen, Host, Lease, Upstream, Wish};
use crate::clock;
use crate::resilience::Outcome;

/// Connects to `first`, and, as long as there is no connection, every `after` to one more endpoint, up to `most` altogether.
/// RFC 8305 5: "A simple implementation can have a fixed delay for how long to wait before starting the next connection
/// attempt"; "once one of these connection attempts succeeds […], all other connections attempts […] are canceled". One that
/// fails lets the next one begin at once. `tried` gets the others that failed; `told` hears of every attempt that ended.
///
/// # Errors
/// That of the last one, if there is no connection to any.
pub(super) async fn connect<'a>(
    upstream: &'a Upstream,
    first: Chosen<'a>,
    (after, limit, most): (Duration, Duration, usize),
    tried: &mut Vec<SocketAddr>,
    wish: &Wish,
    exchange: &Exchange,
    told: impl Fn(&Result<Lease, Error>),
) -> Result<(Lease, &'a Rc<Host>), Error> {
    let one = |Chosen { host, place }: Chosen<'a>| async move {
        let connected = match Lease::waiting(upstream, host) {
            Some(lease) => Ok(lease),
            None => Lease::connect(upstream, host, place, exchange.client(), limit).await,
        };
        (host, connected)
    };
    let mut failure = None;
    let beside = |host| Chosen { host, place: None };
    let mut begun = vec![first.host];
    let host = first.host;
    let mut racing = FuturesUnordered::from_iter([one(first)]);
    let first = host;
    loop {
        let next = if begun.len() < most { other(upstream, &begun, tried, wish) } else { None };
        tokio::select! {
            biased;
            Some((host, connected)) = racing.next() => {
                told(&connected);
                let error = match connected {
                    Ok(lease) => return Ok((lease, host)),
                    Err(error) => error,
                };
                if error != Error::UpstreamOverflow {
                    failure = Some(error);
                }
                match error {
                    // It was not tried: there is no place for another connection to it.
                    Error::UpstreamOverflow => {}
                    _ if Rc::ptr_eq(host, first) => exchange.attempt_failed(error),
                    _ => {
                        host.state.report(Outcome::Unreachable, clock::now());
                        tried.push(host.endpoint.address);
                    }
                }
                match next {
                    Some(next) => {
                        begun.push(next);
                        racing.push(one(beside(next)));
                    }
                    None if racing.is_empty() => return Err(failure.unwrap_or(error)),
                    None => {}
                }
            }
            () = sleep(after), if next.is_some() => {
                begun.extend(next);
                racing.extend(next.map(beside).map(one));
            }
        }
    }
}

/// The endpoint that is tried next: RFC 8305 4, if possible one of the other family than the last one.
fn other<'a>(upstream: &'a Upstream, begun: &[&Rc<Host>], tried: &[SocketAddr], wish: &Wish) -> Option<&'a Rc<Host>> {
    let used: Vec<SocketAddr> = tried.iter().copied().chain(begun.iter().map(|host| host.endpoint.address)).collect();
    let last_is_v6 = begun.last().is_some_and(|host| host.endpoint.address.is_ipv6());
    let same_family = upstream.addresses().filter(|address| address.is_ipv6() == last_is_v6);
    let avoided: Vec<SocketAddr> = used.iter().copied().chain(same_family).collect();
    upstream.pick(&avoided, wish).or_else(|| upstream.pick(&used, wish))
}
