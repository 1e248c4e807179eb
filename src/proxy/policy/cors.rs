//! The server's side of the CORS protocol (Fetch standard, 3.3): preflights are answered here, and the answers to other requests get
//! the fields that let a page read them. What the backend says of that does not go on.

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN};
use http::{Method, StatusCode};

use super::Asked;
use crate::proxy::body::Body;
use crate::proxy::error::Error;
use crate::proxy::message::Response;
use crate::snapshot::{Cors, FieldLines, Origins};

/// What the names of all fields begin with by which a server speaks of CORS.
const FAMILY: &str = "access-control-";
/// What the answer to a preflight depends on.
const PREFLIGHT: &str = "origin, access-control-request-method, access-control-request-headers";

/// Answers a preflight, and tells for other requests what their answers get.
///
/// # Errors
/// [`Error::OriginDenied`].
pub(super) fn admit(cors: &Cors, asked: &Asked<'_>) -> Result<Option<Response>, Error> {
    let (exchange, fields) = (asked.exchange, &asked.head.fields);
    // More than one line makes a list, which is no origin.
    let origin = fields.value(&ORIGIN);
    let allowed = match &cors.origins {
        Origins::Any => Some(&b"*"[..]),
        origins => origin.as_deref().filter(|origin| origins.contain(origin)),
    };
    exchange.strip(FAMILY);
    // An answer that is for some origins only differs for those that send none, too: a cache must not mix them up.
    if cors.origins != Origins::Any {
        exchange.vary("origin");
    }
    if origin.is_some() && allowed.is_none() && cors.refuse_others {
        return Err(Error::OriginDenied);
    }
    if let Some(allowed) = allowed {
        exchange.adorn_once("access-control-allow-origin", allowed);
        if cors.credentials {
            exchange.adorn_once("access-control-allow-credentials", b"true");
        }
    }
    // "It uses `OPTIONS` as method and includes these headers: `Access-Control-Request-Method`."
    let has = |name: &HeaderName| fields.value(name).is_some();
    if origin.is_none() || asked.head.method != Method::OPTIONS || !has(&ACCESS_CONTROL_REQUEST_METHOD) {
        if let (Some(_), Some(expose)) = (allowed, &cors.expose) {
            exchange.adorn_once("access-control-expose-headers", expose.as_bytes());
        }
        return Ok(None);
    }
    exchange.vary(PREFLIGHT);
    if allowed.is_some() {
        let lists = [("access-control-allow-methods", &cors.methods), ("access-control-allow-headers", &cors.headers)];
        for (name, list) in lists {
            if let Some(list) = list {
                exchange.adorn_once(name, list.as_bytes());
            }
        }
        if let Some(seconds) = cors.max_age {
            exchange.adorn_once("access-control-max-age", itoa::Buffer::new().format(seconds).as_bytes());
        }
    }
    Ok(Some(Response::new(StatusCode::NO_CONTENT, Body::empty())))
}
