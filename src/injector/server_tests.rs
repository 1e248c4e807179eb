#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::drain::DrainTrigger;
use crate::injector::Pair;
use crate::telemetry::Telemetry;

const NAME: &str = "floodway-injector.edge.svc";

struct Server {
    address: SocketAddr,
    telemetry: Telemetry,
    serving: Serving,
    trigger: DrainTrigger,
    task: tokio::task::JoinHandle<()>,
    trusted: String,
}

fn pair() -> Pair {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    Pair::make(&[NAME.to_owned()], i64::try_from(now).unwrap(), Duration::from_secs(3600)).unwrap()
}

async fn server() -> Server {
    let (telemetry, serving, pair) = (Telemetry::default(), Serving::default(), pair());
    serving.serve(pair.certified().unwrap());
    let door = Door::new(serving.clone(), Template::new("floodway"), telemetry.metrics().injections()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, watcher) = crate::drain::channel();
    let task = tokio::spawn(async move { door.serve(listener, watcher).await });
    Server { address, telemetry, serving, trigger, task, trusted: pair.authority().to_owned() }
}

impl Server {
    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusted.as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config.with_no_client_auth()))
            .connect(ServerName::try_from(NAME).unwrap(), stream)
            .await
    }

    /// What a request on a connection of its own is answered.
    async fn said(&self, request: &str) -> String {
        let mut stream = self.connect().await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    fn count(&self, result: &str) -> bool {
        self.telemetry.metrics().text().contains(&format!("floodway_injections_total{{result=\"{result}\"}} 1\n"))
    }
}

fn question(pod: &Value) -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u1", "operation": "CREATE", "object": pod,
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
    }})
    .to_string()
}

fn post(body: &str, more: &str) -> String {
    let length = body.len();
    format!(
        "POST /inject?timeout=5s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n{more}content-length: \
         {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn questions_are_answered_over_tls_and_counted() {
    let server = server().await;
    let pod = json!({"metadata": {"annotations": {"sidecar.floodway.dev/inject": "true"}}, "spec": {"containers": [{"name": "app"}]}});
    let said = server.said(&post(&question(&pod), "")).await;
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("\"patchType\":\"JSONPatch\""), "{said}");
    assert!(server.count("injected"));
    let said = server.said(&post(&question(&json!({})), "")).await;
    assert!(said.contains("\"allowed\":true") && !said.contains("patch"), "{said}");
    assert!(server.count("skipped"));
    let wrong = json!({"metadata": {"annotations": {"sidecar.floodway.dev/inject": "maybe"}}});
    let said = server.said(&post(&question(&wrong), "")).await;
    assert!(said.contains("\"allowed\":false") && said.contains("write one of the two"), "{said}");
    assert!(server.count("refused") && !server.count("failed"));
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let server = server().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), "404"),
        ("GET /inject HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), "405"),
        ("POST /inject HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}".to_owned(), "415"),
        (post("{}", ""), "400"),
        (post("not json", ""), "400"),
        (post(&"[".repeat(10_000), ""), "400"),
        (
            format!(
                "POST /inject HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                LONGEST + 1
            ),
            "413",
        ),
        ("nonsense\r\n\r\n".to_owned(), "400"),
    ] {
        let said = server.said(&request).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.80}: {said}");
    }
    // Without a length, too.
    let chunk = format!("{:x}\r\n{}\r\n", LONGEST, " ".repeat(LONGEST));
    let head =
        "POST /inject HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let said = server.said(&format!("{head}{chunk}{chunk}0\r\n\r\n")).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 413 "), "{said}");
}

#[tokio::test]
async fn another_certificate_is_served_without_a_break() {
    let mut server = server().await;
    let mut open = server.connect().await.unwrap();
    let next = pair();
    server.serving.serve(next.certified().unwrap());
    assert!(server.connect().await.is_err(), "the old authority did not sign the new certificate");
    server.trusted = next.authority().to_owned();
    server.connect().await.unwrap();
    // Who was there goes on.
    open.write_all(post(&question(&json!({})), "").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = open.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn one_peer_does_not_take_all_places_and_the_end_waits_for_nobody_idle() {
    let server = server().await;
    let mut open = Vec::new();
    for _ in 0..OF_A_PEER {
        open.push(server.connect().await.unwrap());
    }
    assert!(server.connect().await.is_err());
    drop(open.pop());
    // The place is free once the server has noticed.
    let mut tries = 0;
    while server.connect().await.is_err() {
        tries += 1;
        assert!(tries < 1000, "the place does not come free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.trigger.begin(Duration::ZERO);
    server.task.await.unwrap();
}
