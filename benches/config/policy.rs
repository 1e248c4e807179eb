//! What each section of a policy costs a request that passes: what it looks up, and the whole of it, by the processor time of a worker
//! that serves requests under it and requests without.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use floodway::api::{DEFAULT_CLASS, ProxyPolicy, ProxyRoute, ProxyUpstream};
use floodway::drain;
use floodway::proxy::{self, Config};
use floodway::ready::Live;
use floodway::resilience::Registry;
use floodway::settings::{RouteDefaults, Settings};
use floodway::snapshot::{IpAccess, Keyring, Networks, Origins};
use floodway::telemetry::Telemetry;
use floodway::translate::{Context, Key, Resources, SecretData, Translator};
use serde_json::{Value, json};

use crate::issuer;
use crate::measure::{Report, shown, time};

/// Networks of `ipAccess`, and keys of `apiKey`.
const MANY: u32 = 10_000;
/// Requests that are sent at once.
const AT_ONCE: usize = 32;
/// What is asked between two looks at the clock, and how often that is done with a section and without.
const REQUESTS: usize = 8_000;
const ROUNDS: usize = 7;

/// A policy with one section, and what a request says to pass.
struct Case {
    name: &'static str,
    spec: Value,
    lines: String,
    /// Whether requests go to a backend. Others are answered at once.
    forwarded: bool,
}

pub(crate) fn run(report: &mut Report) {
    lookups(report);
    sections(report);
}

/// Of networks that do not touch each other, the one at `index`.
fn network(index: u32, v6: bool) -> String {
    match v6 {
        false => format!("{}.{}.{}.0/24", 11 + (index >> 15), (index >> 7) & 0xff, (index & 0x7f) << 1),
        true => format!("2001:db8:{:x}::/48", index << 1),
    }
}

fn lookups(report: &mut Report) {
    report.table("What sections of policies look up", &["What", "Processor time"]);
    let networks = |v6| Networks::new((0..MANY).map(|index| network(index, v6).parse().unwrap()));
    // With one that is far away from all others, these lie close together.
    let uneven = Networks::new(
        (1..MANY).map(|index| network(index, true)).chain(["fd00::/8".to_owned()]).map(|one| one.parse().unwrap()),
    );
    for (name, v6, networks) in [
        ("IPv4", false, networks(false)),
        ("IPv6", true, networks(true)),
        ("IPv6, one far from all others", true, uneven),
    ] {
        let access = IpAccess { allow: None, deny: networks };
        // Different addresses each time, so that no branch is learnt by heart.
        let asked: Vec<IpAddr> = (0..4096_u32)
            .map(|index| network(index.wrapping_mul(2_654_435_761) % MANY, v6))
            .map(|network| network.replace("0/24", "77").replace("::/48", "::77").parse().unwrap())
            .collect();
        let mut next = 0;
        let took = time(|| {
            next = (next + 1) % asked.len();
            access.allows(asked[next])
        });
        report.row(&[&format!("an address in one of {MANY} networks, {name}"), &shown(took)]);
    }
    let mut keys = Keyring::default();
    (0..MANY).for_each(|index| keys.add(&format!("client-{index}"), key(index).as_bytes()).unwrap());
    let known = key(77);
    report.row(&[&format!("the owner of one of {MANY} keys"), &shown(time(|| keys.name(known.as_bytes()).is_some()))]);
    let texts: Vec<String> = (0..100).map(|index| format!("https://app-{index}.example.com")).collect();
    let origins = Origins::new(texts.iter().map(String::as_str));
    report.row(&["an origin among 100", &shown(time(|| origins.contain(b"https://app-77.example.com")))]);
}

fn key(index: u32) -> String {
    format!("{index:064x}")
}

fn cases() -> Vec<Case> {
    let case = |name, spec, lines: &str| Case { name, spec, lines: lines.to_owned(), forwarded: false };
    let networks: Vec<String> = (0..MANY).map(|index| network(index, false)).collect();
    let (keys, token) = issuer::es256(issuer::YEAR_2100);
    vec![
        case("`ipAccess`, 10,000 networks", json!({"ipAccess": {"deny": networks}}), ""),
        case(
            "`cors`, of a page that may read the answer",
            json!({"cors": {"allowOrigins": ["https://shop.example.com"], "allowCredentials": true}}),
            "Origin: https://shop.example.com\r\n",
        ),
        case(
            "`headers`",
            json!({"headers": {"security": {}, "hideServer": true, "requestRemove": ["x-internal-*"]}}),
            "",
        ),
        case(
            "`compression`, of an answer that is too short for it",
            json!({"compression": {}}),
            "Accept-Encoding: gzip\r\n",
        ),
        case(
            "`requestLimits`",
            json!({"requestLimits": {"bodyBytes": 1_048_576, "headerBytes": 8192, "methods": ["GET", "POST"]}}),
            "",
        ),
        case(
            "`basicAuth`, a password that is known",
            json!({"basicAuth": {"secretName": "users", "forwardUser": "x-user"}}),
            // ada:open sesame
            "Authorization: Basic YWRhOm9wZW4gc2VzYW1l\r\n",
        ),
        case(
            "`apiKey`",
            json!({"apiKey": {"secretName": "keys", "forwardName": "x-client"}}),
            &format!("X-Api-Key: {}\r\n", key(77)),
        ),
        case(
            "`jwt`, a token that is known",
            json!({"jwt": {
                "issuers": [{"issuer": "joe", "jwks": {"inline": keys}}],
                "requiredClaims": [{"claim": "realm_access.roles", "values": ["editor"]}],
                "claimsToHeaders": [{"claim": "sub", "header": "x-user"}],
            }}),
            &format!("Authorization: Bearer {token}\r\n"),
        ),
        case(
            "`rateLimit`, by user",
            json!({"rateLimit": [{
                "name": "plenty", "key": [{"header": "x-user"}], "requests": 1_000_000, "per": "1s", "tell": "Never",
            }]}),
            "X-User: ada\r\n",
        ),
        case("`externalAuth`, which lets it pass", json!({"externalAuth": {"upstream": {"name": "beside"}}}), ""),
        Case {
            forwarded: true,
            ..case("`mirror`, of a request to a backend", json!({"mirror": {"upstream": {"name": "beside"}}}), "")
        },
    ]
}

/// A server that says yes to everything, and how many answers it gave: the backend, who gets copies, and who is asked about requests.
fn beside() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (address, answered) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&answered);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            thread::spawn(move || answer(connection, &count));
        }
    });
    (address, answered)
}

fn answer(mut connection: TcpStream, count: &AtomicUsize) {
    const END: u32 = u32::from_be_bytes(*b"\r\n\r\n");
    connection.set_nodelay(true).unwrap();
    let (mut piece, mut last) = ([0; 4096], 0_u32);
    while let Ok(read @ 1..) = connection.read(&mut piece) {
        let ends = piece[..read].iter().filter(|byte| {
            last = last << 8 | u32::from(**byte);
            last == END
        });
        let ends = ends.count();
        count.fetch_add(ends, Ordering::Relaxed);
        if connection.write_all("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".repeat(ends).as_bytes()).is_err() {
            return;
        }
    }
}

fn objects(cases: &[Case], beside: SocketAddr) -> Resources {
    let mut resources = Resources::default();
    let named = |name: &str| Key::new("shop", name.to_owned());
    let object = |kind: &str, name: &str, spec: &Value| json!({"apiVersion": "floodway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let spec = json!({"endpoints": [{"address": beside.to_string()}]});
    let upstream: ProxyUpstream = serde_json::from_value(object("ProxyUpstream", "beside", &spec)).unwrap();
    resources.upstreams.insert(named("beside"), Arc::new(upstream.into()));
    let mut rules = Vec::new();
    let mut rule = |path: &str, policies: Value, forwarded| {
        let mut rule = json!({"matches": [{"path": {"value": path}}], "policies": policies});
        match forwarded {
            true => rule["backends"] = json!([{"upstream": {"name": "beside"}}]),
            false => rule["respond"] = json!({"status": 200, "body": "ok"}),
        }
        rules.push(rule);
    };
    for (at, case) in cases.iter().enumerate() {
        let name = format!("case-{at}");
        let policy: ProxyPolicy = serde_json::from_value(object("ProxyPolicy", &name, &case.spec)).unwrap();
        resources.policies.insert(named(&name), Arc::new(policy.into()));
        rule(&format!("/{at}"), json!([{"name": name}]), case.forwarded);
    }
    rule(PLAIN[0], json!([]), false);
    rule(PLAIN[1], json!([]), true);
    let route: ProxyRoute = serde_json::from_value(object("ProxyRoute", "all", &json!({"rules": rules}))).unwrap();
    resources.routes.insert(named("all"), Arc::new(route.into()));
    let users = format!("ada:{}", bcrypt::hash("open sesame", 4).unwrap());
    for (name, entries) in [("users", json!({"htpasswd": users})), ("keys", json!({"acme": key(77)}))] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries});
        resources.put_secret(named(name), Arc::new(SecretData::read(secret).unwrap()));
    }
    resources
}

/// Where requests are under no policy: that Floodway answers, and that go to a backend.
const PLAIN: [&str; 2] = ["/answered", "/forwarded"];

fn sections(report: &mut Report) {
    let cases = cases();
    let (backend, answered) = beside();
    let context = Context {
        class_name: DEFAULT_CLASS.to_owned(),
        zone: None,
        defaults: RouteDefaults::default(),
        policy: Default::default(),
        shared_limits: false,
        default_certificate: None,
        client_certificates: None,
        https_port: 443,
        roots: Default::default(),
        key_hosts: Default::default(),
    };
    let mut settings = Settings::default();
    settings.listeners.http = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let (publisher, reader) = floodway::snapshot::channel();
    publisher.publish(Translator::new(context).translate(&objects(&cases, backend)).snapshot);
    let (trigger, watcher) = drain::channel();
    let config =
        Config { settings: Arc::new(settings), workers: 1, live: Live::default(), registry: Registry::default() };
    let plane = proxy::start(config, reader, &Telemetry::default(), watcher).unwrap();

    report.table(
        "What each section of a policy adds to a request that passes, and that Floodway itself answers",
        &["Section", "Processor time", "Beside that without a policy"],
    );
    let mut client = Client::connect(plane.addresses()[0]);
    for (at, case) in cases.iter().enumerate() {
        // All that is needed is the same but for the policy: its request asks on the same connection, with the same lines.
        let plain = PLAIN[usize::from(case.forwarded)].to_owned();
        let [with, without] = [format!("/{at}"), plain].map(|path| {
            let lines = &case.lines;
            format!(
                "GET {path} HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n{lines}\r\n"
            )
        });
        let [with, without] = [with, without].map(|request| client.prepared(&request));
        let before = answered.load(Ordering::Relaxed);
        let mut rounds: Vec<(i128, u128)> = (0..ROUNDS)
            .map(|_| {
                let mut took = [Duration::ZERO; 2];
                for which in [0, 1, 1, 0] {
                    took[which] += client.ask([&with, &without][which], REQUESTS / 2);
                }
                let [with, without] = took.map(|took| took.as_nanos() / REQUESTS as u128);
                (with.cast_signed() - without.cast_signed(), without)
            })
            .collect();
        // Requests of both kinds and copies of one: hardly any may have been left out.
        let all = if case.forwarded { 3 * ROUNDS * REQUESTS } else { 0 };
        assert!(answered.load(Ordering::Relaxed) - before >= all * 99 / 100, "{}", case.name);
        rounds.sort_unstable();
        let (more, without) = rounds[ROUNDS / 2];
        let more = Duration::from_nanos(u64::try_from(more).unwrap_or_default());
        report.row(&[case.name, &shown(more), &shown(Duration::from_nanos(without as u64))]);
    }
    trigger.begin(Duration::ZERO);
}

/// One connection, on which requests are sent some at a time.
struct Client(TcpStream);

/// Some requests at a time, and how many bytes their answers have.
struct Prepared {
    requests: Vec<u8>,
    answers: usize,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(stream)
    }

    /// Asks once, to see that the request passes and how long the answer is.
    fn prepared(&mut self, request: &str) -> Prepared {
        self.0.write_all(request.as_bytes()).unwrap();
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"\r\n\r\nok") {
            let read = self.0.read(&mut piece).unwrap();
            answer.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&answer);
            assert!(read > 0 && text.starts_with("HTTP/1.1 200 "), "{request}{text}");
        }
        Prepared { requests: request.repeat(AT_ONCE).into_bytes(), answers: answer.len() * AT_ONCE }
    }

    /// The processor time that the worker needed for so many.
    fn ask(&mut self, prepared: &Prepared, count: usize) -> Duration {
        let before = worker();
        let mut piece = vec![0; 1 << 16];
        for _ in 0..count / AT_ONCE {
            self.0.write_all(&prepared.requests).unwrap();
            let mut left = prepared.answers;
            while left > 0 {
                let most = left.min(piece.len());
                left -= self.0.read(&mut piece[..most]).unwrap();
            }
        }
        worker() - before
    }
}

/// Time that the worker of this process has spent on a processor.
fn worker() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let is_worker = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim_end() == "worker-0")
    };
    let task = tasks.into_iter().find(is_worker).unwrap();
    let times = fs::read_to_string(task.path().join("schedstat")).unwrap();
    Duration::from_nanos(times.split(' ').next().unwrap().parse().unwrap())
}
