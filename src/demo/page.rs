//! The page that shows the rest: one file without outside parts, and the routes it lists.

use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::reply::{self, Body};
use super::server::Place;
use super::token;

const PAGE: &str = include_str!("page.html");

/// The page at `/`, its data under `/demo`, and at `/demo/echo` how the echo backends are.
pub(super) async fn answer(request: &Request<Incoming>, place: &Place) -> Response<Body> {
    let Place { folder, ward, proxy } = place;
    let path = request.uri().path();
    if path == "/demo/echo" || path.starts_with("/demo/echo/") {
        return ward.answer(request.method(), path, proxy).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return reply::only("GET, HEAD");
    }
    let mut response = match path {
        "/" => reply::whole("text/html; charset=utf-8", PAGE),
        "/demo/routes.json" => reply::json(&folder.rules()),
        "/demo/token" => token::answer(folder, request.uri().query()),
        _ => return reply::refusal(StatusCode::NOT_FOUND, "The page is at /."),
    };
    let fields: [(HeaderName, &str); 4] = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
             connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ];
    response.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}
