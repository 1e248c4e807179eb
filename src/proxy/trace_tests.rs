//! The cases of the W3C's own test harness for Trace Context, as far as they are of a proxy that is trusted or not.

#![allow(clippy::unwrap_used)]

use super::*;

const TRACE: &str = "12345678901234567890123456789012";
const REQUEST: &str = "0af7651916cd43dd8448eb211c80319c";
const SETTINGS: Tracing = Tracing { begin: true, sampled_percent: 100 };

/// What goes on of these fields.
fn passed(lines: &[(&str, &str)], trusted: bool, settings: &Tracing) -> Vec<(String, String)> {
    let mut fields = Fields::of(lines);
    let trace = Trace::of(&fields, trusted, REQUEST, settings.begin, || unreachable!("the request has an id"));
    trace.pass_on(&mut fields, REQUEST, settings);
    fields.to_lines()
}

/// Whether a new trace begins for a request that a trusted proxy sends with these fields.
fn begins(lines: &[(&str, &str)]) -> bool {
    let passed = passed(lines, true, &SETTINGS);
    let [(name, value)] = &passed[..] else { return false };
    name == "traceparent" && value.starts_with(&format!("00-{REQUEST}-")) && value.ends_with("-01")
}

#[test]
fn what_a_trusted_proxy_says_goes_on_and_what_a_stranger_says_does_not() {
    let given = format!("00-{TRACE}-1234567890123456-00");
    let lines = [("traceparent", &*given), ("tracestate", "a=1, b=2")];
    let goes_on = |settings: &Tracing| {
        let passed = passed(&lines, true, settings);
        let [(state, kept), (parent, value)] = &passed[..] else { panic!("{passed:?}") };
        assert_eq!((state.as_str(), kept.as_str(), parent.as_str()), ("tracestate", "a=1, b=2", "traceparent"));
        // The same trace and flags, and a span of our own.
        assert_eq!((&value[..36], &value[52..]), (&*format!("00-{TRACE}-"), "-00"));
        assert!(is_hex(&value[36..52], 16) && !["1234567890123456", "0000000000000000"].contains(&&value[36..52]));
    };
    goes_on(&SETTINGS);
    let new = passed(&lines, false, &SETTINGS);
    let [(name, value)] = &new[..] else { panic!("{new:?}") };
    assert_eq!((name.as_str(), value.len(), &value[..36]), ("traceparent", 55, &*format!("00-{REQUEST}-")));
    assert_ne!(&value[36..52], "0000000000000000");
    let silent = Tracing { begin: false, ..SETTINGS };
    assert_eq!(passed(&lines, false, &silent), []);
    goes_on(&silent);
    assert_eq!(passed(&[("tracestate", "a=1")], true, &silent), [], "without a parent");
}

#[test]
fn what_is_no_parent_begins_a_new_trace() {
    let with = |version: &str, trace: &str, span: &str, flags: &str| format!("{version}-{trace}-{span}-{flags}");
    let (zeros, span) = ("0".repeat(32), "1234567890123456");
    for wrong in [
        String::new(),
        "00".to_owned(),
        format!("00-{TRACE}"),
        format!("00-{TRACE}-{span}"),
        with("ff", TRACE, span, "01"),
        with(".0", TRACE, span, "01"),
        with("0.", TRACE, span, "01"),
        with("000", TRACE, span, "01"),
        with("0", TRACE, span, "01"),
        with("0A", TRACE, span, "01"),
        with("00", &zeros, span, "01"),
        with("00", ".2345678901234567890123456789012", span, "01"),
        with("00", "1234567890123456789012345678901.", span, "01"),
        with("00", "1234567890123456789012345678901", span, "01"),
        with("00", "123456789012345678901234567890123", span, "01"),
        with("00", "ABCDEF78901234567890123456789012", span, "01"),
        with("00", TRACE, "0000000000000000", "01"),
        with("00", TRACE, ".234567890123456", "01"),
        with("00", TRACE, "123456789012345.", "01"),
        with("00", TRACE, "123456789012345", "01"),
        with("00", TRACE, "12345678901234567", "01"),
        with("00", TRACE, span, ".0"),
        with("00", TRACE, span, "0."),
        with("00", TRACE, span, "0"),
        with("00", TRACE, span, "001"),
        with("00", TRACE, span, "01-"),
        with("00", TRACE, span, "01-what-the-future-will-be-like"),
        with("00", TRACE, span, "01.what-the-future-will-not-be-like"),
        with("cc", TRACE, span, "01.what-the-future-will-not-be-like"),
        format!("00_{TRACE}_{span}_01"),
        with("00", TRACE, "123456789012345é", "01"),
    ] {
        assert!(begins(&[("traceparent", &wrong), ("tracestate", "a=1")]), "{wrong}");
    }
    let given = with("00", TRACE, span, "01");
    assert!(begins(&[("traceparent", &given), ("traceparent", &given)]), "two of them");
    assert!(begins(&[("tracestate", "a=1")]) && begins(&[]));
}

#[test]
fn of_a_later_version_goes_on_what_is_known_of_it() {
    for later in ["cc", "01", "fe"] {
        for more in ["", "-", "-what-the-future-will-be-like"] {
            let given = format!("{later}-{TRACE}-1234567890123456-03{more}");
            let passed = passed(&[("traceparent", &given)], true, &SETTINGS);
            let [(_, value)] = &passed[..] else { panic!("{passed:?}") };
            assert_eq!((value.len(), &value[..36], &value[52..]), (55, &*format!("00-{TRACE}-"), "-01"));
        }
    }
}

#[test]
fn flags_that_are_known_go_on_and_others_do_not() {
    for (given, expected) in [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03"), ("fc", "00")] {
        let parent = format!("00-{TRACE}-1234567890123456-{given}");
        let passed = passed(&[("traceparent", &parent)], true, &SETTINGS);
        assert_eq!(&passed[0].1[53..], expected, "{given}");
    }
}

/// Whether this goes on beside a valid parent.
fn keeps(states: &[&str]) -> bool {
    let given = format!("00-{TRACE}-1234567890123456-01");
    let mut lines = vec![("traceparent", &*given)];
    lines.extend(states.iter().map(|state| ("tracestate", *state)));
    let mut passed = passed(&lines, true, &SETTINGS);
    let (name, parent) = passed.pop().unwrap();
    assert_eq!((name.as_str(), &parent[..36]), ("traceparent", &given[..36]));
    let kept: Vec<_> = passed.iter().map(|(_, value)| value.as_str()).collect();
    assert!(kept.is_empty() || kept == states, "{kept:?}");
    !kept.is_empty()
}

#[test]
fn the_state_goes_on_whole_or_not_at_all() {
    let members = |count: usize| (0..count).map(|at| format!("bar{at:02}={at:02}")).collect::<Vec<_>>().join(",");
    let long = |key: usize, value: usize| format!("{}={}", "z".repeat(key), "v".repeat(value));
    for kept in [
        "foo=1",
        "foo=1,bar=2",
        "foo=1 \t , \t bar=2, \t baz=3",
        "foo=1,",
        "foo=1,,bar=2",
        "0foo=1",
        "foo@bar=1",
        "fo_o-b*a/r=1",
        "foo=!\"#$%&'()*+-./0:;<>?@[\\]^_`{|}~",
        "foo=a b",
        &members(32),
        &long(256, 256),
    ] {
        assert!(keeps(&[kept]), "{kept}");
    }
    assert!(keeps(&["foo=1", "bar=2", "", "rojo=1"]), "in several lines");
    for dropped in [
        "foo",
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "@foo=1",
        "_foo=1",
        "=1",
        "foo=",
        "foo=bar=baz",
        "foo=1,foo\t=2",
        "foo=b\u{e9}",
        "foo bar=1",
        &members(33),
        &long(257, 1),
        &long(1, 257),
        &[long(200, 200), long(201, 200)].join(",").repeat(12),
    ] {
        assert!(!keeps(&[dropped]), "{dropped}");
    }
    assert!(!keeps(&[&members(20), &members(20)]), "too many in several lines");
}

#[test]
fn an_id_that_is_no_trace_id_gets_another_beside_it() {
    let fields = Fields::new();
    for other in ["abc-123", "0AF7651916CD43DD8448EB211C80319C", "00000000000000000000000000000000", ""] {
        let trace = Trace::of(&fields, true, other, true, || TRACE.into());
        assert_eq!((trace.id(other), &trace.which), (Some(TRACE), &Which::Begun(TRACE.into())));
    }
    assert_eq!(Trace::of(&fields, true, REQUEST, true, || TRACE.into()).id(REQUEST), Some(REQUEST));
    assert_eq!((Trace::none().id(REQUEST), Trace::none().span()), (None, None));
}

#[test]
fn as_many_are_sampled_as_wanted() {
    let sampled = |sampled_percent| {
        let settings = Tracing { begin: true, sampled_percent };
        (0..2000).filter(|_| passed(&[], false, &settings)[0].1.ends_with("-01")).count()
    };
    assert_eq!((sampled(0), sampled(100)), (0, 2000));
    assert!((100..900).contains(&sampled(25)));
}
