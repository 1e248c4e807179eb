#![allow(clippy::unwrap_used)]

use super::*;

fn places() -> [JwtPlace; 4] {
    [
        JwtPlace::Header(http::header::AUTHORIZATION, "Bearer".into()),
        JwtPlace::Header(http::HeaderName::from_static("x-token"), "".into()),
        JwtPlace::Cookie("session".into()),
        JwtPlace::Query("access_token".into()),
    ]
}

#[test]
fn tokens_are_found_in_the_first_place_that_has_one() {
    for (lines, target, expected) in [
        (&[("authorization", "Bearer a.b.c")][..], "/", Ok(Some("a.b.c"))),
        (&[("authorization", "bEARER   a.b.c ")], "/", Ok(Some("a.b.c"))),
        (&[("authorization", "Bearera.b.c")], "/", Ok(None)),
        (&[("authorization", "Basic a.b.c")], "/", Ok(None)),
        (&[("authorization", "Bearer")], "/", Ok(None)),
        (&[("authorization", "")], "/", Ok(None)),
        (&[("authorization", "Basic x"), ("x-token", "t")], "/", Ok(Some("t"))),
        (&[("authorization", "Bearer a"), ("authorization", "Bearer b")], "/", Err(())),
        (&[("cookie", "a=b; session=t; c=d")], "/", Ok(Some("t"))),
        (&[("cookie", "a=session=t; Session=u; xsession=v; session")], "/", Ok(None)),
        (&[("cookie", "session=t"), ("cookie", "session=u")], "/", Err(())),
        (&[], "/?a=1&access_token=t&b", Ok(Some("t"))),
        (&[], "/?access%5Ftoken=t", Ok(Some("t"))),
        (&[], "/?access_token=&access_token", Ok(None)),
        (&[], "/?access_token=t&access_token=t", Err(())),
        (&[("x-token", "h"), ("cookie", "session=c")], "/?access_token=q", Ok(Some("h"))),
    ] {
        let (fields, target) = (Fields::of(lines), PathAndQuery::new(target));
        let found = find(&places(), &fields, &target).map_err(|_| ());
        assert_eq!(found, expected.map(|token| token.map(str::as_bytes)), "{lines:?} {target:?}");
    }
}

#[test]
fn what_was_shown_is_taken_out() {
    for (before, after) in [
        ("/a?access_token=t", Some("/a")),
        ("/a?x=1&access_token=t&y=%20", Some("/a?x=1&y=%20")),
        ("/a?access%5ftoken=t&access_token=u&z", Some("/a?z")),
        ("/a?x=access_token", None),
        ("/a", None),
    ] {
        let stripped = strip_query(&PathAndQuery::new(before), "access_token");
        assert_eq!(stripped.as_ref().map(PathAndQuery::as_str), after, "{before}");
    }
    for (before, after) in [
        (&[("cookie", "session=t")][..], &[][..]),
        (&[("cookie", "a=1; session=t;b=2")], &[("cookie", "a=1; b=2")]),
        (&[("cookie", "a=1"), ("cookie", "session=t")], &[("cookie", "a=1")]),
        (&[("cookie", "a=1;b=2"), ("cookie", "xsession=t")], &[("cookie", "a=1;b=2"), ("cookie", "xsession=t")]),
    ] {
        let mut fields = Fields::of(before);
        strip_cookie(&mut fields, "session");
        assert_eq!(fields.to_lines(), Fields::of(after).to_lines());
    }
}
