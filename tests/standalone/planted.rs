//! What clients show to pass, and what policies know to let them pass, comes out nowhere: on no page of the admin port, in no log however
//! talkative, in no answer to somebody else, in no finding.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::json;

use crate::secrets::{PLANTED, assert_silent};
use crate::server::{Server, eventually, floodway};

/// A service that answers every request so, and closes.
#[allow(clippy::disallowed_methods, reason = "a thread of the test's own")]
fn service(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut head, mut piece) = (Vec::new(), [0; 4096]);
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(read) if read > 0 => head.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

fn answer(status: &str, lines: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{lines}Content-Length: 2\r\nConnection: close\r\n\r\nok")
}

/// The key that tokens are signed with, and a token of somebody whose name is planted.
fn token() -> (String, String) {
    let key = format!("{PLANTED} {PLANTED} {PLANTED} {PLANTED} {PLANTED}");
    let claims = json!({"iss": "test", "sub": PLANTED, "exp": 4_102_444_800_u64});
    let message =
        [json!({"alg": "HS256"}), claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), message.as_bytes());
    (BASE64_URL_SAFE_NO_PAD.encode(key), format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref())))
}

/// Objects whose every secret holds what is planted; what else must not come out.
fn objects(dir: &Path) -> (String, Vec<String>) {
    let (key, token) = token();
    let hash = bcrypt::hash(PLANTED, 4).unwrap();
    let backend = service(answer("200 OK", &format!("Set-Cookie: a={PLANTED}\r\n")));
    let auth = service(answer("200 OK", &format!("X-Pass: {PLANTED}\r\n")));
    let refusing = service(answer("403 Forbidden", &format!("Set-Cookie: a={PLANTED}\r\n")));
    let policy = |name: &str, section: &str| {
        format!(
            "---\n{{apiVersion: floodway.dev/v1alpha1, kind: ProxyPolicy, metadata: {{name: {name}}}, spec: {{{section}}}}}\n"
        )
    };
    let upstream = |name: &str, address: SocketAddr| {
        format!(
            "---\n{{apiVersion: floodway.dev/v1alpha1, kind: ProxyUpstream, metadata: {{name: {name}}}, spec: {{endpoints: [{{address: \"{address}\"}}]}}}}\n"
        )
    };
    let rules: String = ["jwt", "key", "basic", "asked", "refused"]
        .map(|name| {
            format!(
                "    - {{matches: [{{path: {{value: /{name}}}}}], policies: [{{name: {name}}}], backends: [{{upstream: {{name: backend}}}}]}}\n"
            )
        })
        .concat();
    let text = [
        format!("apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: r}}\nspec:\n  rules:\n{rules}"),
        policy(
            "jwt",
            "jwt: {issuers: [{issuer: test, jwks: {secretName: keys}}], forward: true, \
             from: [{header: authorization}, {cookie: session}, {query: access_token}], \
             claimsToHeaders: [{claim: sub, header: x-user}]}",
        ),
        policy("key", "apiKey: {secretName: clients, from: [{header: x-api-key}, {query: key}]}"),
        policy("basic", "basicAuth: {secretName: users, forward: true, forwardUser: x-user}"),
        policy("asked", "externalAuth: {upstream: {name: auth}, backendHeaders: [x-pass]}"),
        policy("refused", "externalAuth: {upstream: {name: refusing}}"),
        upstream("backend", backend),
        upstream("auth", auth),
        upstream("refusing", refusing),
        format!(
            "---\n{{apiVersion: v1, kind: Secret, metadata: {{name: keys}}, stringData: {{jwks.json: '{{\"keys\": [{{\"kty\": \"oct\", \
             \"alg\": \"HS256\", \"k\": \"{key}\"}}]}}'}}}}\n"
        ),
        format!(
            "---\n{{apiVersion: v1, kind: Secret, metadata: {{name: clients}}, stringData: {{acme: {PLANTED}-of-a-client-of-ours}}}}\n"
        ),
        format!(
            "---\n{{apiVersion: v1, kind: Secret, metadata: {{name: users}}, stringData: {{htpasswd: 'ada:{hash}'}}}}\n"
        ),
    ];
    fs::write(dir.join("objects.yaml"), text.concat()).unwrap();
    let signature = token.rsplit('.').next().unwrap().to_owned();
    (token, vec![key, hash, signature])
}

/// Status and the whole answer.
fn ask(address: SocketAddr, target: &str, line: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{line}\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(), answer)
}

fn ask_over_http2(address: SocketAddr, target: &str, (name, value): (&str, &str)) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::get(format!("http://test{target}")).header(name, value).body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        let status = answer.await.unwrap().status().as_u16();
        connection.abort();
        status
    })
}

#[test]
fn what_clients_show_and_policies_know_comes_out_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (token, others) = objects(dir.path());
    let access = tempfile::NamedTempFile::new().unwrap();
    for level in ["debug", "trace"] {
        let log = access.path().to_str().unwrap();
        let server = Server::start(dir.path(), &["--log", level, "--access-log", log]);
        let basic = |text: &str| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(text));
        let mut asked = 0;
        for (target, line, status) in [
            ("/jwt", format!("Authorization: Bearer {token}\r\n"), 200),
            ("/jwt", format!("Authorization: Bearer {token}x\r\n"), 401),
            ("/jwt", format!("Authorization: Bearer {PLANTED}.{PLANTED}.{PLANTED}\r\n"), 401),
            ("/jwt", format!("Cookie: session={token}\r\n"), 200),
            (&format!("/jwt?access_token={token}"), String::new(), 200),
            (&format!("/jwt?access_token={PLANTED}"), String::new(), 401),
            ("/key", format!("X-Api-Key: {PLANTED}-of-a-client-of-ours\r\n"), 200),
            ("/key", format!("X-Api-Key: {PLANTED}-of-nobody\r\n"), 401),
            (&format!("/key?key={PLANTED}"), String::new(), 401),
            ("/basic", basic(&format!("ada:{PLANTED}")), 200),
            ("/basic", basic(&format!("{PLANTED}:{PLANTED}-wrong")), 401),
            ("/basic", format!("Authorization: Basic {PLANTED}\r\n"), 401),
            ("/asked", format!("Authorization: {PLANTED}\r\nCookie: {PLANTED}\r\n"), 200),
            ("/refused", format!("Authorization: {PLANTED}\r\nCookie: {PLANTED}\r\n"), 403),
        ] {
            let (got, answer) = ask(server.http, target, &line);
            assert_eq!(got, status, "{target} {line}{answer}\n{}", server.said());
            // What an endpoint, or the service that refuses, tells the client is the client's.
            if status == 401 {
                assert_silent("a refusal", &answer);
            }
            asked += 1;
        }
        assert_eq!(ask_over_http2(server.http, "/jwt", ("authorization", &format!("Bearer {token}"))), 200);
        assert_eq!(ask_over_http2(server.http, "/key", ("x-api-key", &format!("{PLANTED}-of-nobody"))), 401);
        asked += 2;
        let mut lines = String::new();
        eventually("every line of the access log", || {
            lines = fs::read_to_string(access.path()).unwrap();
            lines.lines().count() >= asked
        });
        let pages = ["/config_dump", "/metrics", "/upstreams", "/readyz", "/log"].map(|path| {
            let (status, text) = server.admin(path);
            assert_eq!(status, 200, "{path}");
            (path, text)
        });
        let said = server.said();
        let all = pages
            .iter()
            .map(|(path, text)| (*path, text.as_str()))
            .chain([("the access log", &*lines), ("the log", &said)]);
        for (what, text) in all {
            assert_silent(what, text);
            for secret in &others {
                assert!(!text.contains(secret), "{what} tells {secret}:\n{text}");
            }
        }
        fs::write(access.path(), "").unwrap();
    }
}

/// Secrets that policies cannot use, whole or in part: what is said of them is not what they hold.
#[test]
fn what_a_policy_cannot_use_is_told_of_without_being_told() {
    let dir = tempfile::tempdir().unwrap();
    let secret = |name: &str, entry: &str, content: &str| {
        let object =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {entry: content}});
        fs::write(dir.path().join(format!("{name}-secret.yaml")), object.to_string()).unwrap();
    };
    let policy = |name: &str, spec: serde_json::Value| {
        let object = json!({
            "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyPolicy", "metadata": {"name": name}, "spec": spec,
        });
        fs::write(dir.path().join(format!("{name}.yaml")), object.to_string()).unwrap();
    };
    let htpasswd =
        ["@", "ada:@", ":@", "ada:{SHA}@", "ada:$apr1$@", "ada:$2y$05$@", "@\u{7}:x", "ada:$2y$31$@@@@@@@@@@@@@@@"];
    for (at, text) in htpasswd.iter().enumerate() {
        let name = format!("users-{at}");
        secret(&name, "htpasswd", &text.replace('@', PLANTED));
        policy(&name, json!({"basicAuth": {"secretName": name}}));
    }
    let jwks = [
        "@",
        "\"@\"",
        "{\"keys\": \"@\"}",
        "{\"keys\": [\"@\"]}",
        "{\"keys\": [{\"kty\": \"oct\", \"alg\": \"HS256\", \"k\": \"@\"}]}",
        "{\"keys\": [{\"kty\": \"oct\", \"alg\": \"HS256\", \"k\": \"@!\"}]}",
        "{\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-256\", \"x\": \"@\", \"y\": \"@\", \"d\": \"@\"}]}",
        "{\"keys\": [{\"kty\": \"RSA\", \"n\": \"@\", \"e\": \"@\"}], \"@",
    ];
    for (at, text) in jwks.iter().enumerate() {
        let name = format!("keys-{at}");
        secret(&name, "jwks.json", &text.replace('@', PLANTED));
        policy(&name, json!({"jwt": {"issuers": [{"issuer": "test", "jwks": {"secretName": name}}]}}));
    }
    secret("clients", "acme", PLANTED);
    policy("clients", json!({"apiKey": {"secretName": "clients"}}));
    let policies = htpasswd.len() + jwks.len() + 1;

    let output = floodway(&["check", dir.path().to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    for at in 0..htpasswd.len() {
        assert!(said.contains(&format!("users-{at}.yaml")), "users-{at}: {said}");
    }
    for at in 0..jwks.len() {
        assert!(said.contains(&format!("keys-{at}.yaml")), "keys-{at}: {said}");
    }
    assert!(said.contains("clients.yaml"), "{said}");
    assert_silent("floodway check", &said);

    let route = "apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {name: r}\nspec: {rules: [{respond: {status: 200, body: ok}}]}\n";
    fs::write(dir.path().join("route.yaml"), route).unwrap();
    let server = Server::start(dir.path(), &["--log", "trace"]);
    server.waits_for("/", 200, "ok");
    let (_, metrics) = server.admin("/metrics");
    let rejected = format!("floodway_config_rejected_objects{{kind=\"ProxyPolicy\"}} {policies}\n");
    assert!(metrics.contains(&rejected), "{metrics}");
    let (_, dump) = server.admin("/config_dump");
    assert_silent("the dump", &dump);
    assert_silent("the log", &server.said());
}
