//! Which pages of other origins may read answers.

use crate::api;
use crate::snapshot::{Cors, Origins, duration};
use crate::translate::conditions::Problem;

/// What browsers are told.
pub(super) fn cors(given: &api::Cors, path: &str, problems: &mut Vec<Problem>) -> Cors {
    let api::Cors {
        allow_origins,
        allow_methods,
        allow_headers,
        expose_headers,
        allow_credentials,
        max_age,
        refuse_others,
    } = given;
    if allow_origins.is_empty() {
        problems.push(Problem::invalid(path, "cors needs allowOrigins, for example ['https://shop.example.com']"));
    }
    let mut check = |texts: &[String], field: &str, valid: fn(&str) -> bool| {
        for (at, text) in texts.iter().enumerate() {
            let path = format!("{path}.{field}[{at}]");
            if text == "*" && *allow_credentials {
                problems.push(Problem::invalid(path, "browsers take no '*' where allowCredentials is true; name them"));
            } else if text != "*" && !valid(text) {
                problems.push(Problem::invalid(path, format_args!("{text:?} is not what {field} is made of")));
            }
        }
    };
    check(allow_origins, "allowOrigins", is_origin);
    check(allow_methods, "allowMethods", is_token);
    check(allow_headers, "allowHeaders", is_token);
    check(expose_headers, "exposeHeaders", is_token);
    let max_age = max_age.as_ref().and_then(|text| match duration::parse(text) {
        Ok(age) => Some(age.as_secs()),
        Err(error) => {
            problems.push(Problem::invalid(format!("{path}.maxAge"), error));
            None
        }
    });
    let list = |names: &[String]| (!names.is_empty()).then(|| names.join(", ").into());
    Cors {
        origins: Origins::new(allow_origins.iter().map(String::as_str)),
        methods: list(allow_methods),
        headers: list(allow_headers),
        expose: list(expose_headers),
        credentials: *allow_credentials,
        max_age,
        refuse_others: *refuse_others,
    }
}

/// A scheme and a host, which may begin with `*.`, and perhaps a port.
fn is_origin(text: &str) -> bool {
    let host = text.split_once("://").filter(|(scheme, _)| !scheme.contains('*')).map(|(_, host)| host);
    host.is_some_and(|host| {
        let rest = host.strip_prefix("*.").unwrap_or(host);
        !rest.is_empty()
            && rest
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' | b'[' | b']'))
    })
}

fn is_token(text: &str) -> bool {
    http::HeaderName::from_bytes(text.as_bytes()).is_ok()
}
