//! The same bytes to our codec and to hyper's: what we take, hyper takes, and reads the same. What hyper takes and we do not is
//! refused for a reason of these lists.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::laws::tests::messages;
use super::laws::{End, fields, read_request, read_response};
use crate::proxy::message::Form;
use crate::proxy::target;
use crate::settings::Limits;

/// Why we refuse requests that hyper takes.
const STRICTER: &[&str] = &[
    "malformed request: LF without CR",
    "malformed request: CR without LF",
    "malformed request: empty lines before the request",
    "malformed request: both Content-Length and Transfer-Encoding",
    "malformed request: more than one Content-Length",
    "malformed request: a Transfer-Encoding other than chunked",
    "malformed request: Transfer-Encoding in HTTP/1.0",
    "malformed request: Content-Length",
    "malformed request: characters in the request target that are not allowed there",
    "malformed request: a fragment in the request target",
    "expectation not supported",
    // Space before a chunk's extension, control characters in it, a bare LF, more than 15 digits, fields in the trailer
    // section that are none.
    "chunk",
];

/// A message as it was read, whole.
#[derive(Debug)]
struct Read<H> {
    head: H,
    content: Vec<u8>,
    trailers: HeaderMap,
}

async fn whole(body: Incoming) -> Option<(Vec<u8>, HeaderMap)> {
    let collected = body.collect().await.ok()?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Some((collected.to_bytes().to_vec(), trailers))
}

/// The first request that hyper's server reads to its end.
async fn hypers_request(raw: &[u8]) -> Option<Read<Request<()>>> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    client.write_all(raw).await.unwrap();
    client.shutdown().await.unwrap();
    let first = Arc::new(Mutex::new(None));
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let first = Arc::clone(&first);
        async move {
            let (parts, body) = request.into_parts();
            let read = whole(body).await;
            first.lock().unwrap().get_or_insert(read.map(|(content, trailers)| Read {
                head: Request::from_parts(parts, ()),
                content,
                trailers,
            }));
            Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut settings = hyper::server::conn::http1::Builder::new();
    let _ = settings.half_close(true).serve_connection(TokioIo::new(server), service).await;
    first.lock().unwrap().take().flatten()
}

/// The answer to a request with `method` that hyper's client reads to its end.
async fn hypers_response(raw: &[u8], method: &Method) -> Option<Read<Response<()>>> {
    let (client, mut server) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    let answering = async {
        let mut request = [0; 1024];
        let _ = server.read(&mut request).await;
        let _ = server.write_all(raw).await;
        drop(server);
    };
    let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
    let asking = async {
        let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
        let (content, trailers) = whole(body).await?;
        Some(Read { head: Response::from_parts(parts, ()), content, trailers })
    };
    let (read, (), _) = tokio::join!(asking, answering, connection);
    read
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(work)
}

/// Trailers that we pass on. Those that must not be any are dropped, and hyper gives them.
fn same_trailers(ours: &HeaderMap, hypers: &HeaderMap) -> bool {
    ours.iter().all(|(name, _)| ours.get_all(name).iter().eq(hypers.get_all(name).iter()))
}

fn compare_requests(raw: &[u8]) -> Result<(), TestCaseError> {
    let ours = read_request(raw, raw.len(), &Limits::default());
    let hypers = run(hypers_request(raw));
    match (&ours.end, hypers) {
        (End::Whole, Some(hypers)) => {
            let head = &ours.head.as_ref().unwrap().request;
            let path_and_query = hypers.head.uri().path_and_query().map(|text| text.as_str());
            prop_assert_eq!(&head.method, hypers.head.method());
            if head.form != Form::Other {
                // `http://a?b` has the path `/` without writing it; hyper leaves it so.
                let path_and_query =
                    path_and_query.map(|text| text.replacen('?', "/?", usize::from(text.starts_with('?'))));
                prop_assert_eq!(Some(head.path_and_query.as_str()), path_and_query.as_deref());
            }
            prop_assert_eq!(head.version, hypers.head.version());
            prop_assert_eq!(&fields(&head.fields), hypers.head.headers());
            prop_assert_eq!(&ours.content, &hypers.content);
            prop_assert!(same_trailers(&ours.trailers, &hypers.trailers));
        }
        // A target that is none of those of RFC 9112 3.2, or has no host, is refused when it is looked at.
        (End::Whole, None) if target::target(&ours.head.as_ref().unwrap().request).is_err() => {}
        (End::Whole, None) => prop_assert!(false, "hyper does not take {:?}", Bytes::copy_from_slice(raw)),
        (End::Unfinished, Some(hypers)) => prop_assert!(false, "hyper finds an end: {:?}", hypers),
        (End::Refused(why), Some(_)) => prop_assert!(STRICTER.contains(&&**why), "refused for {:?}", why),
        (End::Unfinished | End::Refused(_), None) => {}
    }
    Ok(())
}

/// Why we refuse this answer, whose reason the codec does not tell apart, and hyper does not.
fn stricter_with_answers(raw: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(raw).to_ascii_lowercase();
    let (head, content) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let count = |name| head.matches(name).count();
    let line_feeds = |text: &str| text.matches('\n').count() > text.matches("\r\n").count();
    let length = text.split("\r\ncontent-length:").nth(1).map(|rest| rest.split("\r\n").next().unwrap().trim());
    let (lengths, codings) = (count("\r\ncontent-length:"), count("\r\ntransfer-encoding:"));
    let reasons = [
        (line_feeds(&text), "a line that ends without CR"),
        (lengths > 0 && codings > 0, "a Content-Length beside a Transfer-Encoding"),
        (lengths > 1, "more than one Content-Length"),
        (length.is_some_and(|length| length.parse::<u64>().is_err()), "a Content-Length that is no number"),
        (codings > count("\r\ntransfer-encoding: chunked\r\n"), "a coding other than chunked"),
        (codings > 1, "more than one Transfer-Encoding"),
        (text.starts_with("http/1.0") && codings > 0, "a Transfer-Encoding in HTTP/1.0"),
        (codings == 1 && !content.is_empty(), "something that is not exactly a chunk"),
    ];
    reasons.iter().find(|(holds, _)| *holds).map(|(_, reason)| *reason)
}

fn compare_responses(raw: &[u8], method: &Method) -> Result<(), TestCaseError> {
    let ours = read_response(raw, raw.len(), method);
    let hypers = run(hypers_response(raw, method));
    match (&ours.end, hypers) {
        (End::Whole, Some(hypers)) => {
            let head = &ours.head.as_ref().unwrap().response;
            prop_assert_eq!(head.status, hypers.head.status());
            prop_assert_eq!(&fields(&head.fields), hypers.head.headers());
            prop_assert_eq!(&ours.content, &hypers.content);
            prop_assert!(same_trailers(&ours.trailers, &hypers.trailers));
        }
        // An interim response is whole for the codec; hyper waits for the final one, which does not come.
        (End::Whole, None) if ours.head.as_ref().unwrap().response.status.is_informational() => {}
        (End::Whole, None) => prop_assert!(false, "hyper does not take it"),
        (End::Unfinished, Some(hypers)) => prop_assert!(false, "hyper finds an end: {:?}", hypers),
        (End::Refused(_), Some(_)) => prop_assert!(stricter_with_answers(raw).is_some(), "for no reason"),
        (End::Unfinished | End::Refused(_), None) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_are_read_as_hyper_reads_them(raw in messages(&[
        "GET / HTTP/1.1\r\n", "POST /x?y HTTP/1.1\r\n", "PUT / HTTP/1.0\r\n", "OPTIONS * HTTP/1.1\r\n",
        "GET http://a/?q HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\n", "\r\n\r\nGET / HTTP/1.1\r\n", "GET  / HTTP/1.1\r\n",
        "GET /#x HTTP/1.1\r\n", "GET / HTTP/1.1\n", "GET / HTTP/1.2\r\n",
    ])) {
        compare_requests(&raw)?;
    }

    #[test]
    fn answers_are_read_as_hyper_reads_them(head in any::<bool>(), raw in messages(&[
        "HTTP/1.1 200 OK\r\n", "HTTP/1.1 204\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.0 304 Not Modified\r\n",
        "HTTP/1.1 999 \r\n", "HTTP/1.1 200 OK\n",
    ])) {
        compare_responses(&raw, &if head { Method::HEAD } else { Method::GET })?;
    }
}
