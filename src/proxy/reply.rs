//! What a client gets when Floodway itself answers: JSON, HTML or plain text by Accept, or what gRPC has instead, with the
//! request id and a reason from the closed set, and never an inner detail.

use bytes::Bytes;
use http::StatusCode;

use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::fields::{Fields, Known};
use super::grpc;
use super::message::Response;
use crate::snapshot::{ErrorPage, Page, Redirect, Respond};

/// The field that carries the reason.
pub(super) const REASON: &str = "x-floodway-reason";

/// What kind of text a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/json`
    Json,
    /// `text/html`
    Html,
    /// `text/plain`
    Plain,
    /// Trailers only, for a gRPC client
    Grpc,
}

impl Format {
    /// What the client likes best of what we have (RFC 9110 12.5.1); plain text if it does not say.
    pub(super) fn preferred(fields: &Fields) -> Format {
        if grpc::is_grpc(fields) {
            return Format::Grpc;
        }
        let mut best = (Format::Plain, 0.0);
        for value in fields.all(Known::Accept) {
            for range in std::str::from_utf8(value).unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                    "application/json" | "application/problem+json" => Format::Json,
                    "text/html" | "application/xhtml+xml" => Format::Html,
                    "text/plain" => Format::Plain,
                    _ => continue,
                };
                let quality = parts
                    .find_map(|part| part.strip_prefix("q="))
                    .map_or(1.0, |quality| quality.parse::<f32>().unwrap_or(0.0));
                if quality > best.1 {
                    best = (format, quality);
                }
            }
        }
        best.0
    }

    /// What it is called.
    pub(super) fn content_type(self) -> &'static [u8] {
        match self {
            Format::Json => b"application/json",
            Format::Html => b"text/html; charset=utf-8",
            Format::Plain => b"text/plain; charset=utf-8",
            Format::Grpc => b"application/grpc",
        }
    }

    /// The page in it, if there is one.
    pub(super) fn of(self, page: &ErrorPage) -> Option<&Page> {
        match self {
            Format::Html => page.html.as_ref(),
            Format::Json => page.json.as_ref(),
            Format::Plain => page.plain.as_ref(),
            Format::Grpc => None,
        }
    }
}

/// The answer to a failed exchange: the first of the pages that is for it, if that one has this format.
pub(super) fn failure(error: Error, format: Format, request_id: &str, pages: &[ErrorPage]) -> Response {
    if format == Format::Grpc {
        return grpc::failure(error);
    }
    let status = error.status();
    let title = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    let reason = error.reason();
    // Nothing here needs escaping: the words are ours and a request id is visible ASCII without quotes or brackets.
    let own = || match format {
        Format::Json => format!(
            "{{\"status\":{code},\"title\":\"{title}\",\"reason\":\"{reason}\",\"requestId\":\"{request_id}\"}}\n"
        ),
        Format::Html => format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{code} {title}</title>\n\
             <style>body{{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:32em;padding:0 1em;\
             color-scheme:light dark}}code{{opacity:.7}}</style>\n\
             <h1>{code} {title}</h1>\n<p><code>{reason}</code></p>\n<p>Request <code>{request_id}</code></p>\n\
             </html>\n"
        ),
        Format::Plain | Format::Grpc => format!("{code} {title}\nreason: {reason}\nrequest: {request_id}\n"),
    };
    let page = pages.iter().find(|page| page.is_for(code, reason)).and_then(|page| format.of(page));
    let text = page.map_or_else(own, |page| page.filled(code, reason, request_id));
    let mut response = Response::new(status, Body::full(Bytes::from(text)));
    let fields = &mut response.head.fields;
    fields.add("content-type", format.content_type());
    fields.add("cache-control", b"no-store");
    fields.add(REASON, reason.as_bytes());
    if let Some(seconds) = error.retry_after() {
        fields.add("retry-after", itoa::Buffer::new().format(seconds).as_bytes());
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110 15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
        fields.add("allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");
    }
    response
}

/// An answer that the configuration gives.
pub(super) fn direct(respond: &Respond) -> Response {
    let mut response = Response::new(respond.status, Body::full(respond.body.clone()));
    if let Some(content_type) = &respond.content_type {
        response.head.fields.add("content-type", content_type.as_bytes());
    }
    response
}

/// An answer with another location, if that can be written.
pub(super) fn moved(redirect: &Redirect, location: Option<String>, exchange: &Exchange) -> Result<Response, Error> {
    let mut response = Response::new(redirect.status, Body::empty());
    response.head.fields.add("location", location.ok_or(Error::InvalidRoute)?.as_bytes());
    exchange.replied(redirect.status);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_accept() {
        for (accept, expected) in [
            ("", Format::Plain),
            ("*/*", Format::Plain),
            ("application/json", Format::Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Html),
            ("text/html;q=0.5, application/json;q=0.9", Format::Json),
            ("text/html;q=0, text/plain", Format::Plain),
            ("text/html;q=x", Format::Plain),
        ] {
            assert_eq!(Format::preferred(&Fields::of(&[("accept", accept)])), expected, "{accept}");
        }
    }
}
