//! Limits that all replicas count together, in a real Redis: exact over two gateways, killed and slow in mid-load, and keys of any kind.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use floodway::resilience::Moment;
use floodway::resilience::rate::{Limiters, Rate};
use floodway::settings;
use floodway::snapshot::{OnFailure, Policy, RateKey, RateLimit, RequestRate, Snapshot, Tell};
use http::HeaderName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::policies::{responding, under};
use super::policy_rate_limit::limit;
use super::redis_server::Redis;
use super::server::{Server, eventually as waits};
use super::support::*;

const HOUR: Duration = Duration::from_secs(3600);
const CONNECTED: &str = "floodway_rate_limit_connected";
const QUESTIONS: &str = "floodway_rate_limit_questions_total";

fn shared(name: &str, keys: &[RateKey], requests: u32, on_failure: OnFailure) -> RateLimit {
    RateLimit { shared: Some(on_failure), ..limit(name, keys, requests) }
}

fn user() -> RateKey {
    RateKey::Header(HeaderName::from_static("x-user"))
}

fn limited(limits: &[RateLimit]) -> Snapshot {
    let policy = Policy { rate_limit: Some(limits.into()), ..Policy::default() };
    snapshot(vec![under(policy, responding("/"))], Vec::new())
}

/// A gateway that counts there, and is patient, so that a busy machine is not taken for a Redis that is away.
fn gateway(address: std::net::SocketAddr, limits: &[RateLimit]) -> Plane {
    gateway_with(address, limits, |redis| redis.timeout = Duration::from_secs(10))
}

fn gateway_with(
    address: std::net::SocketAddr,
    limits: &[RateLimit],
    change: impl FnOnce(&mut settings::Redis),
) -> Plane {
    Plane::with(limited(limits), |settings| {
        let mut redis = settings::Redis { address: address.to_string(), ..settings::Redis::default() };
        change(&mut redis);
        settings.rate_limits.redis = Some(redis);
    })
}

async fn connected(plane: &Plane) {
    plane.metric_becomes(CONNECTED, "", 1.0).await;
}

async fn ask(plane: &Plane, fields: &str) -> String {
    plane.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")).await
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

/// 40 of 400, whichever gateway they come to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_pass_as_may_over_all_gateways() {
    let Some(redis) = Redis::start(&[]) else { return };
    let limits = [shared("all", &[], 40, OnFailure::Local)];
    let planes = [gateway(redis.address, &limits), gateway(redis.address, &limits)].map(Arc::new);
    for plane in &planes {
        connected(plane).await;
    }
    let (passed, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..20).map(|client| {
        let (plane, passed, refused) = (Arc::clone(&planes[client % 2]), Arc::clone(&passed), Arc::clone(&refused));
        tokio::spawn(async move {
            for _ in 0..20 {
                match status(&ask(&plane, "").await) {
                    "200" => passed.fetch_add(1, Ordering::Relaxed),
                    "429" => refused.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{other}"),
                };
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!((passed.load(Ordering::Relaxed), refused.load(Ordering::Relaxed)), (40, 360));
    let told: f64 = planes.iter().map(|plane| plane.metric("floodway_rate_limited_total", "limit=\"all\"")).sum();
    let answered: f64 = planes.iter().map(|plane| plane.metric(QUESTIONS, "answered")).sum();
    assert_eq!((told, answered), (360.0, 400.0));
}

#[tokio::test]
async fn several_limits_are_one_question_and_who_is_refused_by_one_costs_the_others_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    let limits = [
        RateLimit { tell: Tell::Always, ..shared("some", &[], 3, OnFailure::Local) },
        RateLimit { tell: Tell::Always, ..limit("here", &[], 3) },
        shared("per-user", &[user()], 1, OnFailure::Local),
    ];
    let plane = gateway(redis.address, &limits);
    connected(&plane).await;
    let passed = ask(&plane, "X-User: ann\r\n").await;
    for told in ["ratelimit: \"some\";r=2;t=1200", "ratelimit: \"here\";r=2;t=1200"] {
        assert!(passed.contains(&format!("\r\n{told}\r\n")), "{passed}");
    }
    let refused = ask(&plane, "X-User: ann\r\n").await;
    assert!(refused.contains("\r\nretry-after: 3600\r\n"), "{refused}");
    assert!(refused.contains("\r\nratelimit: \"per-user\";r=0;t=3600\r\n"), "{refused}");
    assert!(refused.contains("\r\nx-floodway-reason: rate_limited\r\n"), "{refused}");
    let passed = ask(&plane, "X-User: bob\r\n").await;
    for told in ["ratelimit: \"some\";r=1;", "ratelimit: \"here\";r=1;"] {
        assert!(passed.contains(told), "a refusal cost nothing: {passed}");
    }
    assert_eq!(plane.metric(QUESTIONS, "answered"), 3.0);
    let stats = redis.ask("INFO commandstats");
    assert!(stats.contains("cmdstat_evalsha:calls=3,"), "one round trip each: {stats}");
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_told_again() {
    let Some(redis) = Redis::start(&[]) else { return };
    let plane = gateway(redis.address, &[shared("all", &[], 2, OnFailure::Refuse)]);
    connected(&plane).await;
    for expected in ["200", "200", "429"] {
        assert!(redis.ask("SCRIPT FLUSH").starts_with("+OK"));
        assert_eq!(status(&ask(&plane, "").await), expected);
    }
    assert_eq!(plane.metric(QUESTIONS, "answered"), 3.0);
}

/// Whoever is asked anything while Redis comes and goes gets an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_redis_is_killed_and_comes_back() {
    for on_failure in [OnFailure::Local, OnFailure::Allow] {
        let Some(mut redis) = Redis::start(&[]) else { return };
        let limits = [shared("all", &[], 1_000_000, on_failure)];
        let plane = Arc::new(gateway_with(redis.address, &limits, |_| {}));
        connected(&plane).await;
        let over = Arc::new(AtomicBool::new(false));
        let clients = (0..4).map(|_| {
            let (plane, over) = (Arc::clone(&plane), Arc::clone(&over));
            tokio::spawn(async move {
                let mut asked = 0;
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(status(&ask(&plane, "").await), "200");
                    asked += 1;
                }
                asked
            })
        });
        let clients: Vec<_> = clients.collect();
        for _ in 0..2 {
            let away = plane.metric(QUESTIONS, "away");
            let answered = plane.metric(QUESTIONS, "answered");
            eventually("answers", || plane.metric(QUESTIONS, "answered") > answered + 10.0).await;
            redis.kill();
            plane.metric_becomes(CONNECTED, "", 0.0).await;
            eventually("questions while it is away", || plane.metric(QUESTIONS, "away") > away + 10.0).await;
            assert!(redis.again(), "its port is its own");
            connected(&plane).await;
        }
        let answered = plane.metric(QUESTIONS, "answered");
        eventually("answers again", || plane.metric(QUESTIONS, "answered") > answered + 10.0).await;
        over.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.await.unwrap() > 0);
        }
    }
}

#[tokio::test]
async fn while_redis_is_away_requests_are_counted_here_or_pass_or_are_refused() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let plane = |on_failure, name: &str| {
        let limits = [RateLimit { tell: Tell::Always, ..shared(name, &[user()], 3, on_failure) }];
        gateway_with(redis.address, &limits, |_| {})
    };
    let local = plane(OnFailure::Local, "local");
    let (allow, refuse) = (plane(OnFailure::Allow, "allow"), plane(OnFailure::Refuse, "refuse"));
    for plane in [&local, &allow, &refuse] {
        connected(plane).await;
        assert_eq!(status(&ask(plane, "X-User: ann\r\n").await), "200");
    }
    redis.kill();
    for plane in [&local, &allow, &refuse] {
        plane.metric_becomes(CONNECTED, "", 0.0).await;
    }
    // What was counted there was counted here, too.
    for (user, expected) in [("ann", "200"), ("ann", "200"), ("ann", "429"), ("bob", "200")] {
        let answer = ask(&local, &format!("X-User: {user}\r\n")).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(answer.contains("\r\nratelimit: \"local\";r="), "{answer}");
    }
    for _ in 0..9 {
        let answer = ask(&allow, "X-User: ann\r\n").await;
        assert!(status(&answer) == "200" && !answer.contains("\r\nratelimit:"), "{answer}");
    }
    let answer = ask(&refuse, "X-User: ann\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    for field in ["x-floodway-reason: rate_limit_unavailable", "retry-after: 1"] {
        assert!(answer.contains(&format!("\r\n{field}\r\n")), "{answer}");
    }
}

/// It took the question, and does not answer: who asks waits as long as it may, and after a few nobody waits any more.
#[tokio::test]
async fn who_does_not_answer_is_waited_for_a_few_times() {
    let Some(redis) = Redis::start(&[]) else { return };
    let limits = [shared("all", &[], 1_000_000, OnFailure::Allow)];
    let plane = gateway_with(redis.address, &limits, |redis| redis.timeout = Duration::from_millis(20));
    connected(&plane).await;
    redis.signal("-STOP");
    let mut asked = 0.0;
    while plane.metric(CONNECTED, "") > 0.0 {
        assert_eq!(status(&ask(&plane, "").await), "200");
        asked += 1.0;
    }
    assert!(plane.metric(QUESTIONS, "timeout") <= 3.0 && asked > 0.0);
    assert_eq!(status(&ask(&plane, "").await), "200");
    assert!(plane.metric(QUESTIONS, "away") > 0.0);
    redis.signal("-CONT");
    connected(&plane).await;
    assert_eq!(status(&ask(&plane, "").await), "200");
}

/// It accepts connections, and never says a word: nobody ever waits for it.
#[tokio::test]
async fn a_redis_that_never_answers_is_never_waited_for() {
    let silent = backend(|mut client| async move {
        let mut everything = Vec::new();
        let _ = client.0.read_to_end(&mut everything).await;
    })
    .await;
    let limits = [shared("all", &[], 1_000_000, OnFailure::Local)];
    let plane = gateway_with(silent, &limits, |redis| redis.timeout = Duration::from_secs(10));
    for _ in 0..10 {
        assert_eq!(status(&ask(&plane, "").await), "200");
    }
    assert_eq!((plane.metric(QUESTIONS, "away"), plane.metric(CONNECTED, "")), (10.0, 0.0));
}

/// Answers that make no sense are none.
#[tokio::test]
async fn nonsense_is_no_answer() {
    for nonsense in
        ["*1\r\n:7\r\n", "+OK\r\n", "*-1\r\n", "$5\r\nhello\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "*3\r\n:0\r\n"]
    {
        let endpoint = backend(move |mut client| async move {
            let mut some = [0; 4096];
            while client.0.read(&mut some).await.is_ok_and(|read| read > 0) {
                let _ = client.0.write_all(nonsense.as_bytes()).await;
            }
        })
        .await;
        let plane = gateway(endpoint, &[shared("all", &[], 1, OnFailure::Local)]);
        for expected in ["200", "429"] {
            assert_eq!(status(&ask(&plane, "").await), expected, "{nonsense:?}");
        }
        assert_eq!(plane.metric(CONNECTED, ""), 0.0);
    }
}

#[tokio::test]
async fn keys_of_any_kind_are_short_apart_from_each_other_and_gone_in_time() {
    let Some(redis) = Redis::start(&[]) else { return };
    let keys = [user(), RateKey::Query("q".into())];
    let limits = [RateLimit { policy: "shop/fair".into(), ..shared("both", &keys, 1, OnFailure::Refuse) }];
    let plane = gateway(redis.address, &limits);
    connected(&plane).await;
    let long = "x".repeat(20_000);
    let values =
        ["a", "ab", "}{x}", "{shop/fair}both:", "a b\tc", "%00", "*", "\u{e4}\u{1f600}", &long, "', '", "EVAL \"x\" 0"];
    let mut sent = 0;
    for value in values {
        for query in ["", "b", "%7B%7D", "%00%0d%0a"] {
            let request =
                format!("GET /?q={query} HTTP/1.1\r\nHost: a\r\nX-User: {value}\r\nConnection: close\r\n\r\n");
            let answer = plane.exchange(&request).await;
            // Those without a part are all one.
            let expected = if query.is_empty() && value != "a" { "429" } else { "200" };
            assert_eq!(status(&answer), expected, "{value} {query}");
            assert_eq!(status(&plane.exchange(&request).await), "429", "{value} {query}");
            sent += usize::from(!query.is_empty());
        }
    }
    let listed = redis.ask("KEYS *");
    let keys: Vec<&str> = listed.lines().filter(|line| line.starts_with("floodway:")).collect();
    let keys: Vec<_> = keys.into_iter().filter(|key| *key != "floodway:{probe}").collect();
    assert_eq!(keys.len(), sent + 1, "{listed}");
    for key in keys {
        assert!(key.starts_with("floodway:{shop/fair}both:") && key.len() < 100, "{key}");
        let left: i64 = redis.ask(&format!("PTTL {key}")).lines().next().unwrap()[1..].parse().unwrap();
        assert!((1..=3_600_000).contains(&left), "{key} {left}");
    }
}

/// The script and the buckets of this process say the same, to the nanosecond, whatever the rate and whenever it is asked.
#[tokio::test]
async fn the_script_says_what_the_buckets_here_say() {
    let Some(redis) = Redis::start(&[]) else { return };
    let script = include_str!("../../src/tally/script.lua");
    let clock = "redis.call('TIME')";
    assert_eq!(script.matches(clock).count(), 1);
    let script = script.replace(clock, "{ARGV[#ARGV - 1], ARGV[#ARGV]}");
    let stream = tokio::net::TcpStream::connect(redis.address).await.unwrap();
    let info: &'static _ = Box::leak(Box::new(redis::RedisConnectionInfo::default()));
    let (mut connection, driver) = redis::aio::MultiplexedConnection::new(info, stream).await.unwrap();
    tokio::spawn(driver);
    let mut random = fastrand::Rng::with_seed(7);
    for case in 0..60 {
        let (most, most_at_once) = (10_u32.pow(random.u32(0..7)), 10_u32.pow(random.u32(0..4)));
        let (requests, burst) = (random.u32(1..=most), random.u32(1..=most_at_once));
        let per = Duration::from_millis(random.u64(1000..=86_400_000));
        let rate = Rate::new(requests, per, burst);
        let limit = RateLimit {
            identity: format!("case {case}").into(),
            rate: Some(RequestRate { requests, per, burst }),
            ..limit("all", &[], 1)
        };
        let limiters = Limiters::default();
        let limiter = limiters.with(&limit, Arc::clone);
        let (token, depth) = rate.times();
        // In microseconds, as Redis tells the time; it is set back once in a while.
        let mut now = 1_000_000_000_000_u64 + random.u64(0..1_000_000);
        for step in 0..60 {
            let pause = token.as_micros() as u64 * random.u64(0..4) / 2;
            now = if step % 20 == 19 { now - token.as_micros() as u64 } else { now + pause + random.u64(0..2) };
            let said: Vec<i64> = redis::cmd("EVAL")
                .arg(&script)
                .arg(1)
                .arg(format!("case {case}"))
                .arg(token.as_secs())
                .arg(token.subsec_nanos())
                .arg(depth.as_secs())
                .arg(depth.subsec_nanos())
                .arg(now / 1_000_000)
                .arg(now % 1_000_000)
                .query_async(&mut connection)
                .await
                .unwrap();
            // Its own time went on: keep what is there from going.
            let _: i64 = redis::cmd("PERSIST").arg(format!("case {case}")).query_async(&mut connection).await.unwrap();
            let time = Duration::new(said[1] as u64, said[2] as u32);
            let here = limiter.take(1, Moment::from_nanos(now * 1000));
            match here {
                Ok(left) => assert_eq!((said[0], Some(rate.left_of(time))), (0, left), "{rate:?} step {step}"),
                Err(wait) => assert_eq!((said[0], time), (1, wait), "{rate:?} step {step}"),
            }
        }
    }
}

/// Two requests may pass.
pub const OBJECTS: &str = "
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {name: r}
spec: {rules: [{policies: [{name: p}], respond: {status: 200, body: ok}}]}
---
apiVersion: floodway.dev/v1alpha1
kind: ProxyPolicy
metadata: {name: p}
spec: {rateLimit: [{name: all, requests: 2, per: 24h, scope: Global, onFailure: Refuse}]}
";

/// The program with a Redis at this address, and a password.
fn program(address: std::net::SocketAddr, password: &str) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("objects")).unwrap();
    fs::write(folder.path().join("objects/all.yaml"), OBJECTS).unwrap();
    fs::write(folder.path().join("password"), format!("{password}\n")).unwrap();
    let settings = folder.path().join("settings.yaml");
    let file = folder.path().join("password").display().to_string();
    let redis = format!("{{address: \"{address}\", passwordFile: {file}, timeout: 10s}}");
    fs::write(&settings, format!("rateLimits: {{redis: {redis}}}\n")).unwrap();
    let more = ["--config", settings.to_str().unwrap(), "--log", "trace"];
    (Server::start(&folder.path().join("objects"), &more), folder)
}

#[test]
fn two_programs_with_the_password_count_as_one_and_a_wrong_one_is_told_of_but_not_told() {
    let Some(redis) = Redis::start(&["--requirepass", "c4n4ry-right"]) else { return };
    let programs = ["c4n4ry-right", "c4n4ry-right", "c4n4ry-wrong"].map(|password| program(redis.address, password));
    let [(one, _), (other, _), (wrong, folder)] = &programs;
    waits("both are connected", || {
        [one, other].iter().all(|program| program.admin("/metrics").1.contains("\nfloodway_rate_limit_connected 1\n"))
    });
    let answers = [one, other, one, other].map(|program| program.get("/").0);
    assert_eq!(answers, [200, 200, 429, 429]);
    waits("the wrong one is told of", || wrong.said().contains("it does not take the user and the password"));
    assert_eq!(wrong.get("/").0, 503);
    // It is read again for each connection.
    fs::write(folder.path().join("password"), "c4n4ry-right").unwrap();
    waits("it is connected", || wrong.admin("/metrics").1.contains("\nfloodway_rate_limit_connected 1\n"));
    assert_eq!(wrong.get("/").0, 429);
    for (program, _) in &programs {
        let told = [program.said(), program.admin("/metrics").1, program.admin("/config_dump").1].concat();
        assert!(!told.contains("c4n4ry"), "{told}");
    }
}

/// Redis repeats in an error what it was asked where AUTH has another name.
#[tokio::test]
async fn a_redis_that_repeats_the_password_does_not_bring_it_into_the_log() {
    let echo = backend(|mut client| async move {
        let mut some = [0; 4096];
        while let Ok(read @ 1..) = client.0.read(&mut some).await {
            let asked = String::from_utf8_lossy(&some[..read]).replace("\r\n", " ");
            let _ = client.0.write_all(format!("-ERR unknown command, with args: {asked}\r\n").as_bytes()).await;
        }
    })
    .await;
    let said = tokio::task::spawn_blocking(move || {
        let (program, _folder) = program(echo, "c4n4ry");
        waits("it is told of", || program.said().contains("it does not take the user and the password"));
        assert_eq!(program.get("/").0, 503);
        program.said()
    });
    assert!(!said.await.unwrap().contains("c4n4ry"));
}

#[test]
fn without_a_redis_a_policy_that_needs_one_lets_nobody_pass() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.yaml"), OBJECTS).unwrap();
    let program = Server::start(folder.path(), &[]);
    assert_eq!(program.get("/").0, 503);
    waits("it is told of", || program.said().contains("the settings have no rateLimits.redis"));
}
