#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::ready::Ready;
use crate::snapshot::{KeyHosts, KeyUrl, Protocol, UpstreamTerms, UpstreamTls};
use crate::source::dns;
use crate::telemetry::Telemetry;

/// Every name is this machine.
#[derive(Clone)]
struct Here;

impl Resolve for Here {
    async fn resolve(&self, name: &str) -> Result<dns::Answer, String> {
        if name == "nowhere.test" {
            return Err("nobody knows".to_owned());
        }
        Ok(dns::Answer { addresses: vec![IpAddr::from([127, 0, 0, 1])], valid: Duration::from_secs(60) })
    }
}

/// RFC 7515 A.3, under a name.
fn set(kid: &str) -> String {
    format!(
        r#"{{"keys": [{{"kty": "EC", "crv": "P-256", "kid": "{kid}",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}}]}}"#
    )
}

fn ok(content: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len())
}

/// Reads a request, and answers with what `answer` has for its path.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: impl Fn(&str) -> Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("GET /") && head.contains("\r\nhost: "), "{head}");
    // Whoever asks may have enough before the end.
    let _ = stream.write_all(&answer(head.split(' ').nth(1).unwrap())).await;
    let _ = stream.shutdown().await;
}

async fn listening(answer: impl Fn(&str) -> Vec<u8> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer.clone()));
        }
    });
    address
}

fn source(url: &str) -> KeySource {
    let url = KeyUrl::parse(url).unwrap();
    KeySource { url, issuer: None, insecure: true, tls: None, hosts: KeyHosts::default() }
}

fn names(keys: &FetchedKeys) -> Vec<String> {
    let loaded = keys.load();
    let all = loaded.iter().flat_map(|fetched| fetched.keys.iter());
    all.filter_map(|key| key.id.as_deref().map(str::to_owned)).collect()
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn answers_are_taken_only_if_they_are_short_and_plain_and_keys() {
    let long = "x".repeat(fetch::MOST_CONTENT + 1);
    let answers = [
        ("/keys", ok(&set("a"))),
        (
            "/chunked",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                set("a").len(),
                set("a")
            ),
        ),
        ("/to-the-end", format!("HTTP/1.1 200 OK\r\n\r\n{}", set("a"))),
        ("/moved", "HTTP/1.1 302 Found\r\nLocation: /keys\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("/absent", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("/nothing", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("/announced", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", long.len())),
        ("/long", format!("HTTP/1.1 200 OK\r\n\r\n{long}")),
        ("/head", format!("HTTP/1.1 200 OK\r\nX: {long}\r\n\r\n")),
        ("/packed", format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n{}", set("a"))),
        ("/cut", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned()),
        ("/closed", String::new()),
        ("/garbage", "\0\0\0\0\r\n\r\n".to_owned()),
        ("/page", ok("<html>hush</html>")),
        ("/none", ok(r#"{"keys": []}"#)),
        ("/unusable", ok(r#"{"keys": [{"kty": "hush"}, {"kty": "oct", "alg": "HS256", "k": "aHVzaA"}]}"#)),
    ];
    let told = answers.clone();
    let address = listening(move |path| told.iter().find(|(at, _)| *at == path).unwrap().1.clone().into_bytes()).await;
    for (path, _) in &answers {
        let fetched = fetch::fetch(&source(&format!("http://keys.test:{}{path}", address.port())), &Here).await;
        let seen = fetched.map(|answer| answer.keys.iter().count());
        let told = match *path {
            "/keys" | "/chunked" | "/to-the-end" => {
                assert_eq!(seen, Ok(1), "{path}");
                continue;
            }
            "/moved" => "it redirects (status 302)",
            "/absent" => "status 404 instead of 200",
            "/nothing" => "status 204 instead of 200",
            "/announced" | "/long" => "the answer is longer than 256 KiB",
            "/head" => "its head is too long",
            "/packed" => "the answer has a content coding",
            "/cut" | "/closed" => "the connection broke",
            "/garbage" => "not HTTP/1 as it should be",
            "/page" => "this is no JSON Web Key Set",
            _ => "there is no key for signatures",
        };
        let why = seen.unwrap_err().to_string();
        assert!(why.starts_with(told) && !why.contains("hush"), "{path}: {why}");
    }
    let why = |url: &str| {
        let source = source(url);
        async move { fetch::fetch(&source, &Here).await.unwrap_err().to_string() }
    };
    assert!(why("http://nowhere.test/").await.contains("cannot be resolved"));
    // Bound, and not listened on.
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").map(|one| one.local_addr().unwrap().port()).unwrap();
    assert!(why(&format!("http://127.0.0.1:{refusing}/")).await.contains("cannot connect"));
}

#[tokio::test]
async fn an_issuer_may_tell_where_its_keys_are() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://id.test:{}", listener.local_addr().unwrap().port());
    let document = format!(r#"{{"issuer": "{issuer}", "jwks_uri": "{issuer}/keys", "more": {{}}}}"#);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let document = document.clone();
            tokio::spawn(serve(stream, move |path| match path {
                "/keys" => ok(&set("a")).into_bytes(),
                _ => ok(&document).into_bytes(),
            }));
        }
    });
    let url = format!("{issuer}/.well-known/openid-configuration");
    let mut source = KeySource { issuer: Some(issuer.into()), ..source(&url) };
    assert_eq!(fetch::fetch(&source, &Here).await.map(|answer| answer.keys.iter().count()), Ok(1));
    source.issuer = Some("http://other.test".into());
    assert!(fetch::fetch(&source, &Here).await.unwrap_err().to_string().contains("another issuer"));
}

#[tokio::test]
async fn only_the_host_that_is_meant_is_believed() {
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let issued = rcgen::generate_simple_self_signed(["id.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![issued.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, |_| ok(&set("a")).into_bytes()).await;
                }
            });
        }
    });
    let trusting = |whom: &[&rcgen::Certificate], host: &str| {
        let mut roots = RootCertStore::empty();
        whom.iter().for_each(|one| roots.add(one.der().clone()).unwrap());
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let terms = UpstreamTerms {
            server_name: None,
            alternatives: Vec::new(),
            authority: None,
            identity: None,
            insecure: false,
            protocol: Protocol::Http1,
        };
        let tls = Some(UpstreamTls { terms, config });
        KeySource { tls, ..source(&format!("https://{host}:{port}/keys")) }
    };
    let stranger = rcgen::generate_simple_self_signed(["id.test".to_owned()]).unwrap();
    assert!(fetch::fetch(&trusting(&[&issued.cert], "id.test"), &Here).await.is_ok());
    for (source, told) in [
        (trusting(&[&issued.cert], "other.test"), "for another name"),
        (trusting(&[&stranger.cert], "id.test"), "no TLS: its certificate"),
    ] {
        let why = fetch::fetch(&source, &Here).await.unwrap_err();
        assert!(matches!(why, Failure::Tls(_)) && why.to_string().contains(told), "{why}");
    }
}

/// A set of keys that was fetched once, and the store that is told of it.
fn fetched_once() -> (Set, Store, Metrics) {
    let (source, keys) = (Arc::new(source("http://id.test/keys")), FetchedKeys::new(Arc::default()));
    let due = None;
    let mut one = Set { source, keys, due, hastened: None, tried: false, fetched: false, failures: 0 };
    let (store, metrics) = (Store::default(), Telemetry::default().metrics().clone());
    let answer = |kid: &str| Answer { keys: crate::snapshot::Keys::fetched(set(kid).as_bytes()).unwrap(), valid: None };
    one.learn(&"id".into(), Ok(answer("a")), &store, &metrics);
    (one, store, metrics)
}

fn told(store: &Store) -> Option<String> {
    store.read(|resources| resources.key_sets["id"].trouble.as_deref().map(str::to_owned))
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_fetched_anew_go_on_to_count_and_it_is_told_when_that_lasts() {
    let (mut one, store, metrics) = fetched_once();
    assert_eq!((told(&store), names(&one.keys)), (None, vec!["a".to_owned()]));
    let mut waits = Vec::new();
    for failures in 1..=8 {
        one.learn(&"id".into(), Err(Failure::Status(500)), &store, &metrics);
        waits.push((one.due.unwrap() - Instant::now()).as_secs());
        let expected = (failures >= TOLD_AFTER).then(|| "status 500 instead of 200".to_owned());
        assert_eq!((told(&store), names(&one.keys)), (expected, vec!["a".to_owned()]), "{failures}");
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    let metrics = metrics.text();
    assert!(metrics.contains("floodway_jwks_fetches_total{outcome=\"status\",source=\"id\"} 8"), "{metrics}");
    assert!(metrics.contains("floodway_jwks_last_fetch_timestamp_seconds{source=\"id\"} "), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_before_they_are_old_and_early_when_one_is_missing_but_not_too_often() {
    let (mut one, store, metrics) = fetched_once();
    for (valid, least, most) in
        [(None, 540, 600), (Some(0), 54, 60), (Some(120), 108, 120), (Some(100_000), 3240, 3600)]
    {
        let keys = crate::snapshot::Keys::fetched(set("b").as_bytes()).unwrap();
        one.learn(&"id".into(), Ok(Answer { keys, valid: valid.map(Duration::from_secs) }), &store, &metrics);
        let wait = one.due.unwrap() - Instant::now();
        assert!((Duration::from_secs(least)..=Duration::from_secs(most)).contains(&wait), "{valid:?}: {wait:?}");
    }
    let begun = Instant::now();
    one.due = Some(begun + USUALLY);
    one.hasten();
    assert_eq!(one.due, Some(begun), "the first one is asked for at once");
    one.due = Some(begun + USUALLY);
    for _ in 0..3 {
        one.hasten();
        assert_eq!(one.due, Some(begun + EARLY), "somebody makes keys up");
    }
    tokio::time::advance(3 * EARLY).await;
    one.due = Some(Instant::now() + USUALLY);
    one.hasten();
    assert_eq!(one.due, Some(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn who_misses_a_key_waits_for_a_fetch_that_is_near_and_for_no_other() {
    let (mut one, store, metrics) = fetched_once();
    let keys = Arc::clone(&one.keys);
    let mut waiting = Box::pin(keys.renewed());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    one.hasten();
    assert!(futures_util::poll!(&mut waiting).is_pending(), "it is fetched now");
    one.due = None;
    one.hasten();
    assert!(futures_util::poll!(&mut waiting).is_pending(), "it is being fetched");
    one.learn(&"id".into(), Err(Failure::Status(500)), &store, &metrics);
    assert!(waiting.await, "however that ends");
    let mut waiting = Box::pin(keys.renewed());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    one.due = Some(Instant::now() + USUALLY);
    one.hasten();
    assert!(waiting.await, "the next one is too far away");
}

#[tokio::test]
async fn what_is_wanted_is_fetched_again_and_again_and_what_is_not_is_forgotten() {
    let current = Arc::new(std::sync::Mutex::new(String::from("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")));
    let answer = Arc::clone(&current);
    let address = listening(move |_| answer.lock().unwrap().clone().into_bytes()).await;
    let (store, ready, telemetry) = (Store::default(), Ready::default(), Telemetry::default());
    let source = Arc::new(source(&format!("http://{address}/keys")));
    let sources = || KeySources::from([(Arc::from("id"), Arc::clone(&source))]);
    let (want, wanted) = watch::channel(sources());
    let first = ready.block("keys");
    let running = tokio::spawn(run(store.clone(), wanted, Here, telemetry.metrics().clone(), first));
    let known = || store.read(|resources| resources.key_sets.get("id").cloned());

    eventually("failure is told", || known().is_some_and(|known| known.trouble.is_some())).await;
    eventually("nobody waits any longer", || ready.reasons().is_empty()).await;
    let keys = known().unwrap().keys;
    assert!(!known().unwrap().fetched && keys.load().is_none());
    *current.lock().unwrap() = ok(&set("a"));
    eventually("they are tried again", || known().is_some_and(|known| known.fetched && known.trouble.is_none())).await;
    assert!(Arc::ptr_eq(&keys, &known().unwrap().keys), "tables keep the place");
    assert_eq!(names(&keys), ["a"]);

    // Other authorities, say: it is fetched at once.
    *current.lock().unwrap() = ok(&set("b"));
    let other =
        KeySource { hosts: KeyHosts::only(crate::snapshot::HostPattern::parse("*.test")), ..KeySource::clone(&source) };
    want.send_replace(KeySources::from([(Arc::from("id"), Arc::new(other))]));
    eventually("it is fetched anew", || names(&keys) == ["b"]).await;

    want.send_replace(KeySources::new());
    eventually("it is forgotten", || known().is_none()).await;
    assert!(!telemetry.metrics().text().contains("source=\"id\""));
    drop(want);
    timeout(Duration::from_secs(20), running).await.unwrap().unwrap();
}
