#![allow(clippy::unwrap_used)]
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use http::StatusCode;

use super::*;
use crate::snapshot::{MissingKey, RateKey, RequestRate, Tell};

const SECOND: Duration = Duration::from_secs(1);

fn limit(requests: u32, per: Duration, burst: u32) -> RateLimit {
    RateLimit {
        identity: format!("{requests} {per:?} {burst}").into(),
        policy: "shop/fair".into(),
        name: "limit".into(),
        keys: [RateKey::Route].into(),
        missing: MissingKey::Share,
        rate: Some(RequestRate { requests, per, burst }),
        at_once: None,
        shared: None,
        web_socket: None,
        max_keys: 1000,
        status: StatusCode::TOO_MANY_REQUESTS,
        tell: Tell::Never,
    }
}

fn start() -> Moment {
    Moment::from_nanos(3_600_000_000_000)
}

/// What becomes of requests: `T` and `F` as in Envoy's tests, `|` after a time of `tick`.
fn plays(limit: &RateLimit, tick: Duration, script: &str) {
    let limiter = Limiter::new(limit);
    let mut now = start();
    for (at, step) in script.chars().enumerate() {
        match step {
            '|' => now = now + tick,
            expected => assert_eq!(limiter.take(7, now).is_ok(), expected == 'T', "{script} at {at}"),
        }
    }
}

/// The cases of Envoy's local_ratelimit_test.cc, (most, fill): a tick fills that many.
#[test]
fn buckets_of_envoy() {
    plays(&limit(1, SECOND, 1), SECOND, "TFF|TF||TF");
    plays(&limit(2, SECOND, 2), SECOND, "TTF|T|TTF");
    plays(&limit(1, SECOND, 2), SECOND, "TTF|TF");
}

/// The case of nginx's limit_req.t: 2 a second, and one more without delay; refusals are not counted.
#[test]
fn requests_of_nginx() {
    plays(&limit(2, SECOND, 2), SECOND / 2, "TTF|TF|TF");
}

#[test]
fn what_is_left_and_when_there_is_more() {
    let limiter = Limiter::new(&limit(60, 60 * SECOND, 3));
    let now = start();
    let left = |tokens, seconds| Ok(Some(Left { tokens, full_in: seconds * SECOND }));
    assert_eq!(limiter.take(1, now), left(2, 1));
    assert_eq!(limiter.take(1, now), left(1, 2));
    assert_eq!(limiter.take(1, now), left(0, 3));
    assert_eq!(limiter.take(1, now), Err(SECOND));
    assert_eq!(limiter.take(1, now + SECOND / 4), Err(SECOND * 3 / 4));
    limiter.give_back(1);
    assert_eq!(limiter.take(1, now), left(0, 3), "what was given back");
    assert_eq!(limiter.take(2, now), left(2, 1), "another key has its own");
    assert_eq!(limiter.limited(now).refused, 2);
    assert_eq!((limiter.limited(now).keys, limiter.limited(now + 3 * SECOND).keys), (2, 0));
}

#[test]
fn rates_that_divide_badly_and_extremes_stay_within_bounds() {
    let now = start();
    // 333,333,333.3 ns a token: rounded so that it is never more.
    plays(&limit(3, SECOND, 1), Duration::from_nanos(333_333_333), "TF");
    plays(&limit(3, SECOND, 1), Duration::from_nanos(333_333_334), "T|T|T");
    let many = Limiter::new(&limit(1_000_000, SECOND, 1_000_000));
    assert_eq!((0..1_000_001).filter(|_| many.take(1, now).is_ok()).count(), 1_000_000);
    let slow = Limiter::new(&limit(1, 24 * 3600 * SECOND, 365));
    assert_eq!((0..366).filter(|_| slow.take(1, now).is_ok()).count(), 365);
    assert_eq!(slow.limited(now + 365 * 24 * 3600 * SECOND).keys, 0);
}

/// N of M, never one more, whoever asks at the same time: of one key, and of many that come to be at the same time.
#[test]
fn limits_are_exact_under_concurrency() {
    const THREADS: usize = 8;
    for keys in [1, 300_u64] {
        let limiter = Limiter::new(&limit(50, 3600 * SECOND, 50));
        let passed: Vec<AtomicU32> = (0..keys).map(|_| AtomicU32::new(0)).collect();
        let together = Barrier::new(THREADS);
        let key = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    together.wait();
                    for number in (0..100).flat_map(|_| 0..keys) {
                        if limiter.take(key(number), start()).is_ok() {
                            passed[number as usize].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let passed: Vec<u32> = passed.into_iter().map(AtomicU32::into_inner).collect();
        assert!(passed.iter().all(|passed| *passed == 50), "{passed:?}");
    }
}

/// Who has used up what they had keeps that, however many new keys come; and no more memory is taken than there may be.
#[test]
fn a_flood_of_keys_drives_out_itself() {
    let limiter = Limiter::new(&limit(10, 3600 * SECOND, 10));
    let now = start();
    let hash = |number: u64| number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let spent: Vec<u64> = (0..100).map(hash).collect();
    for key in &spent {
        assert_eq!((0..20).filter(|_| limiter.take(*key, now).is_ok()).count(), 10);
    }
    (1000..101_000).map(hash).for_each(|key| assert!(limiter.take(key, now).is_ok()));
    assert!(spent.iter().all(|key| limiter.take(*key, now).is_err()), "nobody gets a new bucket");
    let keys = limiter.limited(now).keys;
    assert!((1000..=2048).contains(&keys), "{keys}");
}

#[test]
fn as_many_at_once_as_there_may_be() {
    let limiter = Arc::new(Limiter::new(&RateLimit { rate: None, at_once: Some(2), ..limit(1, SECOND, 1) }));
    assert_eq!(limiter.take(1, start()), Ok(None), "no rate");
    let first = limiter.enter(1).unwrap().unwrap();
    let _second = limiter.enter(1).unwrap().unwrap();
    assert_eq!(limiter.enter(1).unwrap_err(), Full);
    let _other = limiter.enter(2).unwrap().unwrap();
    drop(first);
    let _third = limiter.enter(1).unwrap().unwrap();
    assert_eq!(limiter.enter(1).unwrap_err(), Full);
    assert_eq!(limiter.limited(start()).keys, 2);
    drop((_second, _third, _other));
    assert_eq!(limiter.limited(start()).keys, 0);
}

#[test]
fn what_is_kept_outlives_snapshots_and_is_forgotten_at_rest() {
    let limiters = Limiters::default();
    let (one, same, other) = (limit(1, SECOND, 1), limit(1, SECOND, 1), limit(2, SECOND, 1));
    let take = |limit: &RateLimit, now| limiters.with(limit, |limiter| limiter.take(1, now).is_ok());
    let now = start();
    assert!(take(&one, now) && !take(&same, now), "an equal limit is the same");
    assert!(take(&other, now), "one that changed is another");
    let limited = limiters.limited(now);
    assert_eq!(limited.len(), 1, "of one name: {limited:?}");
    assert_eq!((limited[0].refused, limited[0].keys), (1, 2));
    limiters.sweep(now + SWEEP);
    assert_eq!(limiters.all.load().len(), 2, "asked since the last sweep");
    assert!(take(&one, now + SWEEP));
    limiters.sweep(now + 2 * SWEEP);
    assert_eq!(limiters.all.load().len(), 1, "nobody asked for the other, and it is full");
    let limiter = limiters.with(&one, Arc::clone);
    limiters.sweep(now + 3 * SWEEP);
    limiters.sweep(now + 4 * SWEEP);
    assert!(limiters.all.load().is_empty() && limiter.is_retired());
    assert!(take(&one, now + 4 * SWEEP), "made anew");
}
