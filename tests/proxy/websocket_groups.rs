//! The cases of the Autobahn test suite, by its groups, as a tunnel sees them: each is passed on byte for byte, whichever side sends
//! it and however it is cut into pieces, and only what a tunnel can see is called a violation. What messages mean, UTF-8 and
//! codes of closing among it, is left to the two ends.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::*;
use super::websocket::tunnel;
use super::websocket_bytes::*;

/// Cases longer than this are not sent byte by byte.
const SHORT: usize = 400;

/// First byte and payload of the frames of a case.
type Frames = Vec<(u8, Vec<u8>)>;

/// A group's cases: what is sent, and the violation that it is, if it is one.
type Group = Vec<(Frames, Option<&'static str>)>;

fn framing() -> Group {
    let lengths = [0, 1, 125, 126, 127, 128, 65_535, 65_536];
    lengths
        .into_iter()
        .flat_map(|length| [TEXT, BINARY].map(|kind| (vec![(END | kind, vec![b'*'; length])], None)))
        .collect()
}

fn pings_and_pongs() -> Group {
    vec![
        (vec![(END | PING, vec![])], None),
        (vec![(END | PING, b"Hello, world!".into())], None),
        (vec![(END | PING, vec![0, 255, 254, 253, 252, 251, 0, 255])], None),
        (vec![(END | PING, vec![254; 125])], None),
        (vec![(END | PING, vec![254; 126])], Some("control")),
        // Nobody asked for them.
        (vec![(END | PONG, vec![])], None),
        (vec![(END | PONG, b"unsolicited".into()), (END | PING, b"asked".into())], None),
        ((0..10).map(|number| (END | PING, format!("payload-{number}").into())).collect(), None),
    ]
}

fn reserved_bits() -> Group {
    let mut cases: Group =
        (1..8).map(|bits| (vec![(END | TEXT | bits << 4, b"x".into())], Some("reserved_bits"))).collect();
    cases.push((vec![(END | TEXT, b"one".into()), (END | PING | 0x20, vec![])], Some("reserved_bits")));
    cases.push((vec![(TEXT, b"one".into()), (END | CONTINUATION | 0x10, vec![])], Some("reserved_bits")));
    cases
}

fn opcodes() -> Group {
    let reserved = (3..8).chain(11..16);
    reserved
        .flat_map(|opcode| [vec![], b"x".to_vec()].map(|payload| (vec![(END | opcode, payload)], Some("opcode"))))
        .collect()
}

fn fragmentation() -> Group {
    let part = |text: &str| text.as_bytes().to_vec();
    vec![
        (vec![(PING, part("one")), (END | CONTINUATION, part("two"))], Some("control")),
        (vec![(PONG, part("one")), (END | CONTINUATION, part("two"))], Some("control")),
        (vec![(TEXT, part("one")), (END | CONTINUATION, part("two"))], None),
        (vec![(TEXT, part("one")), (END | PING, part("ping")), (END | CONTINUATION, part("two"))], None),
        (
            vec![(TEXT, part("one")), (CONTINUATION, part("")), (END | PONG, part("")), (END | CONTINUATION, part(""))],
            None,
        ),
        (vec![(BINARY, part("")), (CONTINUATION, part("")), (END | CONTINUATION, part(""))], None),
        (vec![(END | CONTINUATION, part("no beginning")), (END | TEXT, part("x"))], Some("continuation")),
        (vec![(CONTINUATION, part("no beginning")), (END | TEXT, part("x"))], Some("continuation")),
        (vec![(TEXT, part("one")), (END | TEXT, part("another"))], Some("continuation")),
        (vec![(TEXT, part("one")), (TEXT, part("another"))], Some("continuation")),
        (
            vec![
                (TEXT, part("one")),
                (CONTINUATION, part("two")),
                (END | PING, part("1")),
                (CONTINUATION, part("three")),
                (CONTINUATION, part("four")),
                (END | PING, part("2")),
                (END | CONTINUATION, part("five")),
                (END | TEXT, part("and the next")),
            ],
            None,
        ),
    ]
}

fn texts() -> Group {
    let kosme = "κόσμε".as_bytes();
    vec![
        (vec![(END | TEXT, kosme.to_vec())], None),
        // A character in two frames, and in as many as it has bytes.
        (vec![(TEXT, kosme[..1].to_vec()), (END | CONTINUATION, kosme[1..].to_vec())], None),
        (
            kosme
                .iter()
                .enumerate()
                .map(|(at, &byte)| (if at == 0 { TEXT } else { CONTINUATION }, vec![byte]))
                .chain([(END | CONTINUATION, vec![])])
                .collect(),
            None,
        ),
        // Overlong, a surrogate, above U+10FFFF, cut short, and what is never part of UTF-8.
        (vec![(END | TEXT, vec![0xc0, 0xaf])], None),
        (vec![(END | TEXT, vec![0xed, 0xa0, 0x80])], None),
        (vec![(END | TEXT, vec![0xf4, 0x90, 0x80, 0x80])], None),
        (vec![(END | TEXT, vec![0xce])], None),
        (vec![(END | TEXT, vec![0xfe, 0xff])], None),
    ]
}

fn closing() -> Group {
    let closes = |code: u16, reason: &[u8]| (END | CLOSE, [&code.to_be_bytes()[..], reason].concat());
    let mut cases: Group = vec![
        (vec![(END | CLOSE, vec![])], None),
        (vec![(END | CLOSE, vec![3])], None),
        (vec![closes(1000, &[b'*'; 123])], None),
        (vec![closes(1000, &[b'*'; 124])], Some("control")),
        (vec![closes(1000, &[0xce, 0xba, 0xe1])], None),
        (vec![(CLOSE, vec![])], Some("control")),
        // RFC 6455 5.5.1 forbids data alone.
        (vec![closes(1000, b""), (END | CLOSE, vec![])], None),
        (vec![closes(1000, b""), (END | PING, vec![])], None),
        (vec![closes(1000, b""), (END | TEXT, b"late".into())], Some("after_close")),
        (vec![(TEXT, b"a part".into()), closes(1000, b""), (END | CONTINUATION, b"late".into())], Some("after_close")),
    ];
    for code in [0, 999, 1000, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 3000, 4999, 5000, 65_535] {
        cases.push((vec![closes(code, b"")], None));
    }
    cases
}

fn large() -> Group {
    let mut fragments: Frames = vec![b'*'; 65_536].chunks(1300).map(|part| (CONTINUATION, part.to_vec())).collect();
    fragments[0].0 = BINARY;
    fragments.last_mut().unwrap().0 |= END;
    let whole = |length| vec![(END | BINARY, vec![b'x'; length])];
    vec![
        (fragments, None),
        (whole(1 << 20), None),
        (whole((1 << 22) + 7), None),
        ((0..1000).map(|_| (END | TEXT, vec![b'y'; 16])).collect(), None),
    ]
}

/// Sends each case of a group both ways, whole and, if it is short, byte by byte.
async fn pass(group: Group) {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for (frames, violation) in group {
        for by_client in [true, false] {
            let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, by_client, payload)).collect();
            let pieces = if bytes.len() < SHORT { [bytes.len(), 1] } else { [bytes.len(), bytes.len().div_ceil(3)] };
            for piece in pieces {
                let side = if by_client { "client" } else { "upstream" };
                let labels = violation.map(|kind| format!("kind=\"{kind}\",side=\"{side}\"")).unwrap_or_default();
                let violations = |labels: &str| plane.metric("floodway_websocket_violations_total", labels);
                let (all, these) = (violations(""), violations(&labels));
                let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
                let (from, to) = if by_client { (&mut client, &mut endpoint) } else { (&mut endpoint, &mut client) };
                let sending = async {
                    for part in bytes.chunks(piece.max(1)) {
                        from.send(part).await;
                        from.0.flush().await.unwrap();
                    }
                };
                let mut came = vec![0; bytes.len()];
                let (_, read) = tokio::join!(sending, within(to.0.read_exact(&mut came)));
                read.unwrap();
                assert!(came == bytes, "other bytes: {frames:?}");
                let found = f64::from(u8::from(violation.is_some()));
                // Frames are followed before they are passed on, so that there is nothing to wait for.
                let (all, these) = (violations("") - all, violations(&labels) - these);
                assert_eq!((all, these), (found, found), "{violation:?} by {side}: {frames:?}");
            }
        }
    }
}

#[tokio::test]
async fn groups_1_to_4_framing_pings_reserved_bits_and_opcodes() {
    for group in [framing(), pings_and_pongs(), reserved_bits(), opcodes()] {
        pass(group).await;
    }
}

#[tokio::test]
async fn groups_5_and_6_fragmentation_and_texts() {
    for group in [fragmentation(), texts()] {
        pass(group).await;
    }
}

#[tokio::test]
async fn group_7_closing() {
    pass(closing()).await;
}

#[tokio::test]
async fn groups_9_and_10_limits_and_many_fragments() {
    pass(large()).await;
}
