//! An issuer that begins to sign with another key, takes the old one away, and goes down: nobody with a good token is refused, nobody with
//! an old one is let in again, and the streams that are open go on.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::keys::{set, signed};
use crate::server::{Server, eventually};

/// An issuer whose keys are to be had with TLS; while it has none to say, its connections just end.
struct IssuerOfKeys {
    address: SocketAddr,
    certificate: String,
    says: Arc<Mutex<Option<String>>>,
}

impl IssuerOfKeys {
    fn start(first: String) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(Some(first)));
        let told = Arc::clone(&says);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(answer) = told.lock().unwrap().clone() else { continue };
                // Whoever does not like the certificate leaves.
                let _ = serve(stream, &config, &answer);
            }
        });
        IssuerOfKeys { address, certificate: certificate.pem(), says }
    }

    fn says(&self, answer: Option<String>) {
        *self.says.lock().unwrap() = answer;
    }
}

fn serve(stream: TcpStream, config: &Arc<ServerConfig>, answer: &str) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len())?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// An endpoint of one event stream, which tells an event whenever it is asked to.
fn events() -> (SocketAddr, mpsc::SyncSender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::sync_channel(8);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).lines().map_while(Result::ok).find(String::is_empty);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        write!(stream, "{head}").unwrap();
        while told.recv().is_ok() {
            write!(stream, "9\r\ndata: x\n\n\r\n").unwrap();
        }
    });
    (address, tell)
}

/// The authorities of the issuer. Whatever changes in them has keys fetched anew at once.
fn write_authorities(dir: &Path, certificate: &str, others: usize) {
    let text = (0..others).fold(certificate.to_owned(), |text, _| {
        let other = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        text + &other.pem()
    });
    let written = dir.join("issuer.new");
    fs::write(&written, text).unwrap();
    fs::rename(written, dir.join("issuer.ca")).unwrap();
}

fn event(stream: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while line != "data: x\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended");
    }
}

#[test]
fn keys_rotate_while_requests_and_streams_go_on() {
    let ((old, old_token), (new, new_token)) = (signed("old"), signed("new"));
    let issuer = IssuerOfKeys::start(set(&[&old]));
    let (endpoint, tell) = events();
    let dir = tempfile::tempdir().unwrap();
    write_authorities(dir.path(), &issuer.certificate, 0);
    let objects = format!(
        r#"
apiVersion: floodway.dev/v1alpha1
kind: ProxyPolicy
metadata: {{name: signed-in}}
spec:
  jwt:
    issuers: [{{issuer: joe, jwks: {{url: "https://{}/keys", caConfigMapName: issuer}}}}]
    from: [{{query: t}}]
---
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {{name: r}}
spec:
  rules:
    - matches: [{{path: {{value: /events}}}}]
      policies: [{{name: signed-in}}]
      backends: [{{upstream: {{name: events}}}}]
    - policies: [{{name: signed-in}}]
      respond: {{status: 200, body: ok}}
---
apiVersion: floodway.dev/v1alpha1
kind: ProxyUpstream
metadata: {{name: events}}
spec: {{endpoints: [{{address: "{endpoint}"}}]}}
"#,
        issuer.address
    );
    fs::write(dir.path().join("objects.yaml"), objects).unwrap();
    let server = Server::start(dir.path(), &[]);
    let ok = (200, "ok".to_owned());
    let (old_path, new_path) = (format!("/?t={old_token}"), format!("/?t={new_token}"));
    server.waits_for(&old_path, 200, "ok");
    let stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(&stream, "GET /events?t={old_token} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut stream = BufReader::new(stream);
    tell.send(()).unwrap();
    event(&mut stream);

    // The first request with a token of the new key is served: it waits until that was fetched.
    issuer.says(Some(set(&[&old, &new])));
    assert_eq!(server.get(&new_path), ok);
    assert_eq!(server.get(&old_path), ok);

    // The old key goes, and with it the tokens that it has signed, but not what they have opened.
    issuer.says(Some(set(&[&new])));
    write_authorities(dir.path(), &issuer.certificate, 1);
    eventually("the old key is forgotten", || server.get(&old_path).0 == 401);
    assert_eq!(server.get(&new_path), ok);
    tell.send(()).unwrap();
    event(&mut stream);

    // While the issuer is down, what was fetched last counts.
    issuer.says(None);
    write_authorities(dir.path(), &issuer.certificate, 2);
    let failed = || {
        let (_, metrics) = server.admin("/metrics");
        let mut fetches = metrics.lines().filter(|line| line.starts_with("floodway_jwks_fetches_total"));
        fetches.any(|line| !line.contains("outcome=\"fetched\"") && !line.ends_with(" 0"))
    };
    eventually("a fetch that failed", failed);
    assert_eq!(server.get(&new_path), ok);
    assert_eq!(server.get(&old_path).0, 401);
    tell.send(()).unwrap();
    event(&mut stream);
}
