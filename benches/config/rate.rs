//! Counting a request under a rate limit: finding the limit, hashing its key and taking a token, alone and with other threads doing
//! the same; and remembering keys that are new.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use floodway::resilience::Moment;
use floodway::resilience::rate::Limiters;
use floodway::snapshot::{MissingKey, RateKey, RateLimit, RequestRate, Tell};
use http::{HeaderName, StatusCode};

use crate::measure::{Report, contended, shown, time};

fn limit(name: &str, requests: u32) -> RateLimit {
    RateLimit {
        identity: format!("shop/fair {name} {requests}/1s {requests} 65536 [Header(\"x-user\")]").into(),
        policy: "shop/fair".into(),
        name: name.into(),
        keys: [RateKey::Header(HeaderName::from_static("x-user"))].into(),
        missing: MissingKey::Share,
        rate: Some(RequestRate { requests, per: Duration::from_secs(1), burst: requests }),
        shared: None,
        web_socket: None,
        at_once: None,
        max_keys: 65_536,
        status: StatusCode::TOO_MANY_REQUESTS,
        tell: Tell::Refused,
    }
}

/// As the data plane does it. Time goes on by a microsecond with each request.
fn take(limiters: &Limiters, limit: &RateLimit, user: &str, nanos: &AtomicU64) -> bool {
    use std::hash::Hasher as _;

    let now = Moment::from_nanos(nanos.fetch_add(1000, Ordering::Relaxed));
    limiters.with(limit, |limiter| {
        let mut hasher = limiter.hasher();
        Some(user.as_bytes()).hash(&mut hasher);
        limiter.take(hasher.finish(), now).is_ok()
    })
}

pub(crate) fn run(report: &mut Report) {
    let others = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    report.table("A request under a rate limit of a policy", &["Keys", "Threads that do the same", "Processor time"]);
    let (limiters, nanos) = (Limiters::default(), AtomicU64::new(3_600_000_000_000));
    let users: Vec<String> = (0..50_000).map(|user| format!("user-{user}@example.com")).collect();
    let plenty = limit("plenty", 1_000_000);
    let one = || take(&limiters, &plenty, &users[0], &nanos);
    report.row(&["one, which passes", "none", &shown(time(one))]);
    report.row(&["one, which passes", &others.to_string(), &shown(contended(others + 1, || one))]);
    let few = limit("few", 1);
    report.row(&["one, which is refused", "none", &shown(time(|| take(&limiters, &few, &users[0], &nanos)))]);
    let next = AtomicU64::new(0);
    let each = || take(&limiters, &plenty, &users[next.fetch_add(1, Ordering::Relaxed) as usize % users.len()], &nanos);
    report.row(&["50,000 in turn", "none", &shown(time(each))]);
    report.row(&["50,000 in turn", &others.to_string(), &shown(contended(others + 1, || each))]);
    // Each key is new, and all places are taken by keys whose buckets are not full.
    let flooded = limit("flooded", 2);
    let flood = || {
        let user = next.fetch_add(1, Ordering::Relaxed).to_string();
        take(&limiters, &flooded, &user, &nanos)
    };
    report.row(&["each another, more than there is room for", "none", &shown(time(flood))]);
}
