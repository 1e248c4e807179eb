//! What a request is for: its host and path, wherever the protocol puts them.

use http::{Method, Version};

use super::error::Error;
use super::fields::Known;
use super::message::{Form, PathAndQuery, RequestHead};
use crate::snapshot::{PathMatch, PathRewrite, Redirect};

/// Host and path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Host and port as the client wrote them, for the Host field that goes on.
    pub authority: Box<str>,
    /// Host for routing: lower case, without port and trailing dot. Empty if an HTTP/1.0 request names none.
    pub host: Box<str>,
}

/// Takes the target of an HTTP/1 request line apart: its form, the authority if it names one, and the path.
///
/// # Errors
/// Characters that no target has.
pub(super) fn parse(target: &str) -> Result<(Form, Option<Box<str>>, PathAndQuery), Error> {
    if target.starts_with('/') {
        check_characters(target)?;
        return Ok((Form::Origin, None, PathAndQuery::new(target)));
    }
    let (form, authority, path) = match target.split_once("://") {
        _ if target == "*" => (Form::Asterisk, None, target),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
            match rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())) {
                // RFC 9110 4.2.1: "A recipient that processes such a URI reference [with an empty host] MUST reject it as invalid."
                ("", _) => (Form::Other, None, "/"),
                (authority, path) => (Form::Absolute, Some(authority.into()), path),
            }
        }
        _ => (Form::Other, None, "/"),
    };
    check_characters(path)?;
    // `http://a?b` has the path `/` without writing it.
    let path: Box<str> = match form {
        Form::Absolute if !path.starts_with('/') => format!("/{path}").into(),
        _ => path.into(),
    };
    Ok((form, authority, PathAndQuery::new(path)))
}

/// RFC 3986 3.3 and 3.4, and what browsers send beside it: `"`, `{`, `}`, `|`, `\`, `^`, `[` and `]`.
fn check_characters(path: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'`' | b'#');
    if path.bytes().all(fits) {
        Ok(())
    } else {
        Err(Error::BadRequest("characters in the request target that are not allowed there"))
    }
}

/// Finds the target of a request.
///
/// # Errors
/// CONNECT, and any doubt about the host.
pub(super) fn target(head: &RequestHead) -> Result<Target, Error> {
    if head.method == Method::CONNECT {
        return Err(Error::Method);
    }
    // RFC 9112 3.2.4: asterisk-form is for OPTIONS.
    if head.form == Form::Other || head.form == Form::Asterisk && head.method != Method::OPTIONS {
        return Err(Error::BadRequest("request target"));
    }
    let mut fields = head.fields.all(Known::Host);
    let field = fields.next();
    // RFC 9112 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a
    // Host header field and to any request message that contains more than one Host header field line or a Host header field
    // with an invalid field value."
    if fields.next().is_some() {
        return Err(Error::BadRequest("more than one Host"));
    }
    let field = match field {
        Some(value) => Some(std::str::from_utf8(value).map_err(|_| Error::BadRequest("Host"))?),
        None => None,
    };
    let inline = head.authority.as_deref();
    let authority = match (inline, field) {
        // RFC 9112 3.2.2 makes the target win over a Host that differs; RFC 9113 8.3.1 calls that malformed. A next server
        // might choose otherwise than we do, so it is refused.
        (Some(inline), Some(field)) if !inline.eq_ignore_ascii_case(field) => {
            return Err(Error::BadRequest("a Host that disagrees with the target"));
        }
        (Some(_), None) if head.version == Version::HTTP_11 => return Err(Error::BadRequest("no Host")),
        (Some(authority), _) | (None, Some(authority)) => authority,
        (None, None) if head.version == Version::HTTP_10 => "",
        (None, None) => return Err(Error::BadRequest("no Host")),
    };
    if authority.is_empty() {
        return if head.version == Version::HTTP_10 {
            Ok(Target { authority: "".into(), host: "".into() })
        } else {
            Err(Error::BadRequest("an empty Host"))
        };
    }
    let host = host_of(authority).ok_or(Error::BadRequest("Host"))?;
    Ok(Target { authority: authority.into(), host: host.to_ascii_lowercase().into() })
}

/// The host of `uri-host [ ":" port ]` (RFC 9110 7.2), without a trailing dot; `None` if it is not one. User names, which
/// RFC 9110 4.2.4 tells recipients to treat as an error, are not.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (literal, port) = rest.split_once(']')?;
            literal.parse::<std::net::Ipv6Addr>().ok()?;
            (&authority[..literal.len() + 2], port)
        }
        None => {
            let colon = memchr::memchr(b':', authority.as_bytes()).unwrap_or(authority.len());
            let (host, port) = authority.split_at(colon);
            let host = host.strip_suffix('.').unwrap_or(host);
            if host.is_empty() || host.len() > 253 {
                return None;
            }
            // Labels have a length and plain characters.
            let mut last = b'.';
            for byte in host.bytes() {
                if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || byte == b'.' && last != b'.') {
                    return None;
                }
                last = byte;
            }
            (host, port)
        }
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Some(host),
        Some(digits)
            if digits.is_empty()
                || digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok() =>
        {
            Some(host)
        }
        _ => None,
    }
}

/// The new path that a rewrite makes of `path`, which `matched` matched.
pub(super) fn rewrite_path(rewrite: &PathRewrite, matched: &PathMatch, path: &str) -> String {
    match (rewrite, matched) {
        (PathRewrite::Full(full), _) => full.to_string(),
        (PathRewrite::Prefix(replacement), PathMatch::Prefix(prefix)) => {
            let rest = path.strip_prefix(&**prefix).unwrap_or(path);
            let replacement = replacement.strip_suffix('/').unwrap_or(replacement);
            match (replacement, rest) {
                ("", "") => "/".to_owned(),
                (replacement, rest) if rest.is_empty() || rest.starts_with('/') => format!("{replacement}{rest}"),
                (replacement, rest) => format!("{replacement}/{rest}"),
            }
        }
        // Translation lets this through for prefixes only.
        (PathRewrite::Prefix(_), _) => path.to_owned(),
    }
}

/// A new path with the query that was there.
///
/// # Errors
/// A path that is none.
pub(super) fn path_and_query(path: &str, query: Option<&str>) -> Result<PathAndQuery, Error> {
    check_characters(path)?;
    Ok(PathAndQuery::new(match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }))
}

/// Where a redirect sends the client; `None` if that cannot be written in a field.
pub(super) fn location(
    redirect: &Redirect,
    matched: &PathMatch,
    (authority, host): (&str, &str),
    path: &str,
    query: Option<&str>,
    scheme: &str,
) -> Option<String> {
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let host = redirect.host.as_deref().unwrap_or(host);
    // The port stays only while everything that it belongs to stays.
    let port = match redirect.port {
        Some(port) => Some(port),
        None if new_scheme == scheme && redirect.host.is_none() => port_of(authority),
        None => None,
    };
    let default = if new_scheme == "https" { 443 } else { 80 };
    let port = port.filter(|port| *port != default).map(|port| format!(":{port}")).unwrap_or_default();
    let new_path = redirect.path.as_ref().map(|rewrite| rewrite_path(rewrite, matched, path));
    let path = new_path.as_deref().unwrap_or(path);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{new_scheme}://{host}{port}{path}{query}");
    location.bytes().all(|byte| byte.is_ascii_graphic()).then_some(location)
}

/// The port that an authority names.
pub(super) fn port_of(authority: &str) -> Option<u16> {
    let (host, port) = authority.rsplit_once(':')?;
    if host.starts_with('[') != host.ends_with(']') { None } else { port.parse().ok() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(version: Version, uri: &str, hosts: &[&str]) -> Result<Box<str>, Error> {
        let (form, authority, path_and_query) = parse(uri)?;
        let fields = hosts.iter().map(|host| ("host", *host)).collect::<Vec<_>>();
        let fields = super::super::fields::Fields::of(&fields);
        let head = RequestHead { method: Method::GET, version, form, authority, path_and_query, fields };
        target(&head).map(|target| target.host)
    }

    #[test]
    fn the_host_is_found_in_every_form() {
        for (version, uri, hosts, expected) in [
            (Version::HTTP_11, "/", &["a.example"][..], "a.example"),
            (Version::HTTP_11, "/", &["A.Example:8080"], "a.example"),
            (Version::HTTP_11, "/", &["a.example."], "a.example"),
            (Version::HTTP_11, "/", &["a_b.example:"], "a_b.example"),
            (Version::HTTP_11, "/", &["127.0.0.1:80"], "127.0.0.1"),
            (Version::HTTP_11, "/", &["[::1]:80"], "[::1]"),
            (Version::HTTP_11, "http://a.example/x", &["a.example"], "a.example"),
            (Version::HTTP_2, "http://a.example/x", &[], "a.example"),
            (Version::HTTP_10, "/", &[], ""),
        ] {
            assert_eq!(find(version, uri, hosts).as_deref(), Ok(expected), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn prefixes_are_replaced_by_whole_segments() {
        for (prefix, replacement, path, expected) in [
            ("/old", "/new", "/old", "/new"),
            ("/old", "/new", "/old/x", "/new/x"),
            ("/old", "/new/", "/old/x", "/new/x"),
            ("/old", "/", "/old/x", "/x"),
            ("/old", "/", "/old", "/"),
            ("", "/new", "/x", "/new/x"),
            ("", "/new", "/", "/new/"),
        ] {
            let rewrite = PathRewrite::Prefix(replacement.into());
            assert_eq!(rewrite_path(&rewrite, &PathMatch::Prefix(prefix.into()), path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn redirects_keep_what_they_do_not_change() {
        let nothing = Redirect { scheme: None, host: None, port: None, path: None, status: http::StatusCode::FOUND };
        let target = ("a.example:8080", "a.example");
        let https = Redirect { scheme: Some("https".into()), ..nothing.clone() };
        let host = Redirect { host: Some("b.example".into()), ..nothing.clone() };
        let port = Redirect { port: Some(80), ..nothing.clone() };
        let full = Redirect { path: Some(PathRewrite::Full("/y".into())), ..nothing.clone() };
        for (redirect, expected) in [
            (nothing, "http://a.example:8080/x?q=1"),
            (https, "https://a.example/x?q=1"),
            (host, "http://b.example/x?q=1"),
            (port, "http://a.example/x?q=1"),
            (full, "http://a.example:8080/y?q=1"),
        ] {
            let matched = PathMatch::Prefix("".into());
            assert_eq!(location(&redirect, &matched, target, "/x", Some("q=1"), "http").unwrap(), expected);
        }
    }

    #[test]
    fn doubts_about_the_host_are_refused() {
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &[""]),
            ("/", &["a", "a"]),
            ("/", &["a", "b"]),
            ("/", &["a,b"]),
            ("/", &["a b"]),
            ("/", &["a/b"]),
            ("/", &["user@a"]),
            ("/", &["a:port"]),
            ("/", &["a:99999"]),
            ("/", &["a:80:80"]),
            ("/", &[".a"]),
            ("/", &["a..b"]),
            ("/", &["[::1"]),
            ("/", &["[::x]"]),
            ("/", &["::1"]),
            ("http://a.example/", &[]),
            ("http:///x", &["a.example"]),
            ("http://?x", &["a.example"]),
            ("http://a.example/", &["b.example"]),
            ("http://user@a.example/", &["user@a.example"]),
            ("ftp://a.example/", &["a.example"]),
            ("a.example:80", &["a.example:80"]),
            ("*", &["a"]),
        ] {
            assert!(matches!(find(Version::HTTP_11, uri, hosts), Err(Error::BadRequest(_))), "{uri} {hosts:?}");
        }
        assert!(find(Version::HTTP_10, "http:///x", &[]).is_err(), "only who names no host may have none");
    }
}
