//! What the proxy knows of the backends: asked at its admin port, as anybody on this machine may.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Much more than the demo's endpoints take.
const MAX_ANSWER: usize = 1 << 20;

/// The proxy before the backends. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxy(Arc<OnceLock<SocketAddr>>);

impl Proxy {
    /// Where its admin port is; the first word counts.
    pub(super) fn is_at(&self, admin: SocketAddr) {
        let _ = self.0.set(admin);
    }

    /// The endpoints that `/upstreams` tells of; none if it cannot be asked.
    pub(super) async fn endpoints(&self) -> Vec<Value> {
        let Some(admin) = self.0.get() else { return Vec::new() };
        let told = timeout(PATIENCE, ask(*admin)).await.ok().and_then(Result::ok).unwrap_or_default();
        let upstreams = told["upstreams"].as_array().into_iter().flatten();
        upstreams.flat_map(|upstream| upstream["endpoints"].as_array().into_iter().flatten()).cloned().collect()
    }
}

async fn ask(admin: SocketAddr) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/upstreams").header(header::HOST, admin.to_string()).body(Empty::<Bytes>::new())?;
    let asked = async {
        let body = Limited::new(sender.send_request(request).await?.into_body(), MAX_ANSWER);
        Ok(serde_json::from_slice(&body.collect().await?.to_bytes())?)
    };
    tokio::pin!(asked);
    tokio::select! {
        told = &mut asked => told,
        // It may close at once what it has answered whole.
        _ = connection => asked.await,
    }
}
