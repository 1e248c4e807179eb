//! The echo: shows a request as it came here, after what the proxy did to it.

use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::reply::{self, Body};

/// Method, target, fields and the length of the body as JSON.
pub(super) async fn answer(address: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, |data| data.len());
    }
    let mut headers = Map::new();
    for name in head.headers.keys() {
        let values = head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        headers.insert(name.to_string(), Value::String(values.collect::<Vec<_>>().join(", ")));
    }
    reply::json(&json!({
        "servedBy": address.to_string(),
        "protocol": format!("{:?}", head.version),
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers,
        "bodyBytes": length,
    }))
}
