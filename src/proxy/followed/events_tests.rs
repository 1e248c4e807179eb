//! Laws of `EventScan`, held against a reader that does what the specification says, line by line.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

/// What a client knows after `bytes`: how many blocks of fields have ended, and whether nothing but comments came since.
fn read(bytes: &[u8]) -> (u64, bool) {
    let bytes = match bytes.strip_prefix(BOM) {
        Some(rest) => rest,
        None if bytes.len() < BOM.len() && BOM.starts_with(bytes) => return (0, bytes.is_empty()),
        None => bytes,
    };
    let (mut ended, mut fields, mut line) = (0, 0, Vec::new());
    let mut bytes = bytes.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\r' && bytes.peek() == Some(&b'\n') {
            bytes.next();
        } else if byte != b'\n' && byte != b'\r' {
            line.push(byte);
            continue;
        }
        match line.first() {
            None => {
                ended += u64::from(fields > 0);
                fields = 0;
            }
            Some(b':') => {}
            Some(_) => fields += 1,
        }
        line.clear();
    }
    (ended, fields == 0 && line.is_empty())
}

fn scanned(pieces: &[&[u8]]) -> (u64, bool) {
    let mut scan = EventScan::default();
    for piece in pieces {
        scan.pass(piece);
    }
    (scan.take_ended(), scan.in_gap())
}

#[test]
fn the_examples_of_the_specification() {
    for (stream, ended, gap) in [
        ("", 0, true),
        ("\u{feff}", 0, true),
        ("\u{feff}: welcome\n", 0, true),
        ("data: YHOO\ndata: +2\ndata: 10\n\n", 1, true),
        (": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n", 2, false),
        ("data\n\ndata\ndata\n\ndata:", 2, false),
        ("data: a\rdata: b\r\rid: 1\r\r", 2, true),
        ("data: a\r\n\r\n: b\r\n", 1, true),
        ("data: a\n\r\n", 1, true),
        ("data: a\n:within an event\n", 0, false),
        ("data: a\n\n\u{feff}\n", 1, false),
        ("\n\n\r\n\r", 0, true),
        (": a comment that has not ended", 0, false),
        ("id: 7\n", 0, false),
    ] {
        assert_eq!(read(stream.as_bytes()), (ended, gap), "{stream:?} by the reader");
        assert_eq!(scanned(&[stream.as_bytes()]), (ended, gap), "{stream:?}");
    }
}

#[test]
fn a_byte_order_mark_behind_heartbeats_is_taken_out() {
    let stream = "\u{feff}data: a\n\n".as_bytes();
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let mut scan = EventScan::default();
            assert_eq!(scan.beat(), ":\n\n");
            assert_eq!(scan.beat(), ":\n\n");
            let mut passed = Vec::new();
            for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                if !piece.is_empty() {
                    let piece = scan.after_beats(Bytes::copy_from_slice(piece));
                    scan.pass(&piece);
                    passed.extend_from_slice(&piece);
                }
            }
            assert_eq!(passed, b"data: a\n\n", "{first} {second}");
            assert_eq!((scan.take_ended(), scan.in_gap()), (1, true));
        }
    }
    // Only there, only if it is one, and only behind a heartbeat.
    let go_on = |beaten: bool, pieces: &[&'static [u8]]| {
        let mut scan = EventScan::default();
        if beaten {
            scan.beat();
        }
        pieces.iter().map(|piece| scan.after_beats(Bytes::from_static(piece))).collect::<Vec<_>>().concat()
    };
    assert_eq!(go_on(true, &[b"\xef", b"\xbb\xbe"]), b"\xef\xbb\xbe");
    assert_eq!(go_on(true, &[b"data: \xef\xbb\xbf"]), b"data: \xef\xbb\xbf");
    assert_eq!(go_on(true, &[b"\xef\xbb\xbf\xef\xbb\xbf"]), b"\xef\xbb\xbf");
    assert_eq!(go_on(false, &[b"\xef\xbb\xbfdata"]), b"\xef\xbb\xbfdata");
}

fn streams() -> impl Strategy<Value = Vec<u8>> {
    let pieces =
        ["\n", "\r", "\r\n", "\n\n", "\r\r", ":", "data: x", "id", "\u{feff}", "a", " ", "\0"].map(str::as_bytes);
    let odd = [&b"\xef"[..], b"\xef\xbb", b"\xbf"];
    let piece = proptest::sample::select([&pieces[..], &odd[..]].concat());
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// However the bytes are split, the same events have ended at the same places, and those are the reader's.
    #[test]
    fn any_split_is_read_as_the_specification_says(stream in streams(), cuts in proptest::collection::vec(0usize..64, 0..6)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.sort_unstable();
        let mut scan = EventScan::default();
        let (mut from, mut ended) = (0, 0);
        for cut in cuts.into_iter().chain([stream.len()]) {
            scan.pass(&stream[from..cut]);
            ended += scan.take_ended();
            from = cut;
            prop_assert_eq!((ended, scan.in_gap()), read(&stream[..cut]), "{:?}", &stream[..cut]);
        }
    }

    /// The next gap is the first place at which the reader has nothing half read, and not within the end of a line.
    #[test]
    fn the_next_gap_is_the_next_place_to_end_at(stream in streams(), cut in 0usize..64) {
        let cut = cut.min(stream.len());
        let mut scan = EventScan::default();
        scan.pass(&stream[..cut]);
        if !scan.in_gap() {
            let next = scan.pass_to_gap(&stream[cut..]).map(|length| cut + length);
            let mut gaps = (cut + 1..=stream.len()).filter(|&end| read(&stream[..end]).1 && !splits(&stream, end));
            prop_assert_eq!(next, gaps.next(), "{:?} from {}", stream, cut);
        }
    }
}

/// Whether a return and its line feed are on either side of this place.
fn splits(stream: &[u8], at: usize) -> bool {
    at > 0 && stream[at - 1] == b'\r' && stream.get(at) == Some(&b'\n')
}

/// Not a test: prints what following costs. `cargo test --release --lib cost_of_following -- --ignored --nocapture`
#[test]
#[ignore = "measures, for people"]
fn cost_of_following() {
    for (name, event) in [
        ("30 B", "data: 012345678901234567890\n\n".to_owned()),
        ("130 B with id and type", format!("id: 1234\nevent: tick\ndata: {}\n\n", "x".repeat(100))),
        ("4 KiB in lines of 80 B", format!("{}\n", format!("data: {}\n", "x".repeat(73)).repeat(51))),
        ("64 KiB in a line", format!("data: {}\n\n", "x".repeat(65_528))),
        ("1 MiB in a line", format!("data: {}\n\n", "x".repeat(1_048_568))),
    ] {
        let stream = event.repeat((4 << 20) / event.len());
        for (pieces, size) in [("an event each", event.len()), ("4 KiB each", 4096), ("32 KiB each", 32 << 10)] {
            let mut best = f64::MAX;
            for _ in 0..20 {
                let mut scan = EventScan::default();
                let started = Instant::now();
                for piece in stream.as_bytes().chunks(size) {
                    scan.pass(black_box(piece));
                }
                let took = started.elapsed().as_nanos() as f64;
                assert_eq!(scan.take_ended(), (stream.len() / event.len()) as u64);
                best = best.min(took);
            }
            let (bytes, events) = (stream.len() as f64, (stream.len() / event.len()) as f64);
            println!("{name:>24}, {pieces:>13}: {:6.3} ns/B {:9.1} ns/event", best / bytes, best / events);
        }
    }
}
