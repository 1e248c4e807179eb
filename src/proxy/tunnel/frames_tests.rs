#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

use super::opcode::*;
use super::*;

const TEXT_END: u8 = 0x80 | TEXT;
const END: u8 = 0x80;

/// A frame with a payload of this length, its length in the shortest form.
fn frame(first: u8, masked: bool, length: usize) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut frame = match length {
        0..126 => vec![first, bit | length as u8],
        126..65536 => [&[first, bit | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, bit | 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    frame.extend(if masked { &[1, 2, 3, 4][..] } else { &[] });
    frame.resize(frame.len() + length, b'p');
    frame
}

fn limits(frame: Option<u64>, message: Option<u64>) -> WebSocket {
    WebSocket { max_frame: frame, max_message: message, ..WebSocket::default() }
}

fn server() -> Frames {
    Frames::new(false, false, &limits(None, None))
}

fn client() -> Frames {
    Frames::new(true, false, &limits(None, None))
}

/// All that is found, and at which byte.
fn found(frames: &mut Frames, pieces: &[&[u8]]) -> Vec<(usize, Found)> {
    let (mut all, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match frames.follow(&mut rest) {
                Found::Nothing => assert!(rest.is_empty(), "nothing is found only at the end"),
                found => all.push((before + piece.len() - rest.len(), found)),
            }
        }
        before += piece.len();
    }
    all
}

fn only(frames: &mut Frames, bytes: &[u8]) -> Found {
    match found(frames, &[bytes])[..] {
        [] => Found::Nothing,
        [(_, found)] => found,
        ref more => panic!("{more:?}"),
    }
}

#[test]
fn frames_of_every_length_end_where_they_end() {
    for length in [0, 1, 125, 126, 127, 65535, 65536, 100_000] {
        for masked in [false, true] {
            let mut frames = Frames::new(masked, false, &limits(None, None));
            let bytes = [frame(TEXT_END, masked, length), frame(END | BINARY, masked, 1)].concat();
            let first = bytes.len() - frame(END | BINARY, masked, 1).len();
            let expected = [(first, Found::Frame(TEXT)), (bytes.len(), Found::Frame(BINARY))];
            assert_eq!(found(&mut frames, &[&bytes]), expected, "{length} {masked}");
            assert_eq!(frames.since_boundary(), Some(0));
            assert_eq!(frames.take_ended(), Ended { frames: 2, messages: 2 });
        }
    }
}

#[test]
fn a_fragmented_message_has_control_frames_between_its_frames_but_no_other_message() {
    let mut frames = server();
    for (first, between) in [(TEXT, false), (END | PING, false), (CONTINUATION, false), (END | PONG, false)] {
        assert!(matches!(only(&mut frames, &frame(first, false, 3)), Found::Frame(_)));
        assert_eq!((frames.since_boundary(), frames.between_messages()), (Some(0), between));
    }
    assert_eq!(only(&mut frames, &frame(END | CONTINUATION, false, 0)), Found::Frame(CONTINUATION));
    assert!(frames.between_messages());
    assert_eq!(frames.take_ended(), Ended { frames: 5, messages: 1 });
    for second in [TEXT, END | BINARY] {
        let mut frames = server();
        only(&mut frames, &frame(BINARY, false, 3));
        assert_eq!(only(&mut frames, &frame(second, false, 3)), Found::Violation(Violation::Continuation));
    }
}

#[test]
fn what_breaks_the_protocol_is_told_once_and_followed_no_more() {
    let ok = |first: u8| frame(first, false, 3);
    for (bytes, violation) in [
        (ok(END | TEXT | 0x40), Violation::ReservedBits),
        (ok(END | TEXT | 0x20), Violation::ReservedBits),
        (ok(END | PING | 0x10), Violation::ReservedBits),
        (ok(END | 0x3), Violation::Opcode),
        (ok(END | 0x7), Violation::Opcode),
        (ok(END | 0xb), Violation::Opcode),
        (ok(END | 0xf), Violation::Opcode),
        (frame(TEXT_END, true, 3), Violation::Mask),
        (ok(PING), Violation::Control),
        (ok(CLOSE), Violation::Control),
        (frame(END | PONG, false, 126), Violation::Control),
        (ok(END | CONTINUATION), Violation::Continuation),
        (vec![TEXT_END, 126, 0, 125, b'x'], Violation::Length),
        (vec![TEXT_END, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, b'x'], Violation::Length),
        (vec![TEXT_END, 127, 0x80, 0, 0, 0, 0, 1, 0, 0, b'x'], Violation::Length),
        ([frame(END | CLOSE, false, 2), ok(TEXT_END)].concat(), Violation::AfterClose),
    ] {
        let mut frames = server();
        let bytes = [bytes, ok(TEXT_END)].concat();
        let all = found(&mut frames, &[&bytes]);
        assert_eq!(all.last().unwrap().1, Found::Violation(violation), "{bytes:x?}");
        assert_eq!((frames.since_boundary(), frames.undecided(), frames.between_messages()), (None, 0, false));
    }
    assert_eq!(only(&mut client(), &frame(TEXT_END, false, 3)), Found::Violation(Violation::Mask));
    // A ping after the close is no data.
    let mut frames = server();
    only(&mut frames, &frame(END | CLOSE, false, 0));
    assert!(frames.closed());
    assert_eq!(only(&mut frames, &frame(END | PONG, false, 0)), Found::Frame(PONG));
}

#[test]
fn reserved_bits_mean_something_to_an_extension() {
    let mut frames = Frames::new(false, true, &limits(None, None));
    assert_eq!(only(&mut frames, &frame(END | TEXT | 0x40, false, 300)), Found::Frame(TEXT));
    assert_eq!(only(&mut frames, &frame(END | 0x3, false, 3)), Found::Violation(Violation::Opcode));
}

#[test]
fn too_much_is_told_at_the_end_of_the_header_that_announces_it() {
    let giant = [&[TEXT_END, 127][..], &(i64::MAX as u64).to_be_bytes()].concat();
    let mut frames = Frames::new(false, false, &limits(Some(1000), None));
    assert_eq!(only(&mut frames, &frame(TEXT_END, false, 1000)), Found::Frame(TEXT));
    for cut in 1..giant.len() {
        assert_eq!(only(&mut Frames::new(false, false, &limits(Some(1000), None)), &giant[..cut]), Found::Nothing);
    }
    assert_eq!(only(&mut frames, &giant[..4]), Found::Nothing);
    assert_eq!(frames.undecided(), 4, "held until it is judged");
    assert_eq!(only(&mut frames, &giant[4..]), Found::TooLarge);
    assert_eq!(frames.since_boundary(), Some(10));

    let mut frames = Frames::new(true, false, &limits(None, Some(10)));
    let small = frame(TEXT, true, 6);
    assert_eq!(only(&mut frames, &small), Found::Frame(TEXT));
    assert_eq!(only(&mut frames, &frame(END | PING, true, 100)), Found::Frame(PING), "no part of the message");
    assert_eq!(only(&mut frames, &frame(CONTINUATION, true, 4)), Found::Frame(CONTINUATION));
    let last = frame(END | CONTINUATION, true, 1);
    assert_eq!(found(&mut frames, &[&last]), [(6, Found::TooLarge), (7, Found::Frame(CONTINUATION))]);
    assert_eq!(only(&mut frames, &frame(TEXT_END, true, 10)), Found::Frame(TEXT), "the next begins anew");

    assert_eq!(only(&mut server(), &giant), Found::Nothing, "any length is followed without a limit");
    assert_eq!(server().undecided(), 0);
}

#[test]
fn the_pong_to_a_ping_of_ours_is_known_by_its_payload() {
    let token = *b"floodway";
    for masked in [false, true] {
        let pong = |payload: &[u8]| {
            let mut pong = frame(END | PONG, masked, payload.len());
            let header = pong.len() - payload.len();
            for (index, byte) in payload.iter().enumerate() {
                pong[header + index] = byte ^ if masked { [1, 2, 3, 4][index % 4] } else { 0 };
            }
            pong
        };
        for split in 0..pong(&token).len() {
            let mut frames = Frames::new(masked, false, &limits(None, None));
            frames.expect_pongs(token);
            let bytes = pong(&token);
            let (head, tail) = bytes.split_at(split);
            assert_eq!(only(&mut frames, head), Found::Nothing);
            assert_eq!(frames.undecided(), split, "nothing of it is passed on");
            assert_eq!(only(&mut frames, tail), Found::OwnPong(bytes.len()));
            assert_eq!((frames.take_ended(), frames.since_boundary()), (Ended::default(), Some(0)));
            for other in [&b"floodwax"[..], b"", b"floodway!"] {
                assert_eq!(only(&mut frames, &pong(other)), Found::Frame(PONG));
            }
        }
    }
}

/// One frame of a conversation that keeps to the protocol, as [`conversation`] writes it.
#[derive(Clone, Debug)]
enum Part {
    /// A data message in frames of these lengths.
    Message(Vec<usize>),
    Control(u8, usize),
}

fn part() -> impl Strategy<Value = Part> {
    let length = prop_oneof![Just(0), 1_usize..130, 65530_usize..65540, Just(125), Just(126)];
    prop_oneof![
        3 => prop::collection::vec(length, 1..4).prop_map(Part::Message),
        1 => (prop_oneof![Just(PING), Just(PONG)], 0_usize..=125).prop_map(|(opcode, length)| Part::Control(opcode, length)),
    ]
}

fn conversation(parts: &[Part], masked: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Control(opcode, length) => bytes.extend(frame(END | opcode, masked, *length)),
            Part::Message(lengths) => {
                for (index, length) in lengths.iter().enumerate() {
                    let opcode = if index == 0 { BINARY } else { CONTINUATION };
                    let end = if index + 1 == lengths.len() { END } else { 0 };
                    bytes.extend(frame(end | opcode, masked, *length));
                }
            }
        }
    }
    bytes
}

/// The ends of frames, by tungstenite's parser of headers.
fn ends(bytes: &[u8]) -> Vec<(usize, Found)> {
    let mut cursor = std::io::Cursor::new(bytes);
    let mut ends = Vec::new();
    while let Ok(Some((header, length))) = FrameHeader::parse(&mut cursor) {
        let end = cursor.position() + length;
        if end > bytes.len() as u64 {
            break;
        }
        cursor.set_position(end);
        let opcode = match header.opcode {
            OpCode::Data(data) => u8::from(OpCode::Data(data)),
            OpCode::Control(control) => u8::from(OpCode::Control(control)),
        };
        ends.push((end as usize, Found::Frame(opcode)));
    }
    ends
}

/// Pieces of `bytes`, cut at these places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_split_finds_what_a_parser_finds(
        parts in prop::collection::vec(part(), 1..6),
        masked: bool,
        watched: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let bytes = conversation(&parts, masked);
        let mut frames = Frames::new(masked, false, &limits(None, None));
        if watched {
            frames.expect_pongs(*b"floodway");
        }
        prop_assert_eq!(found(&mut frames, &pieces(&bytes, &cuts)), ends(&bytes));
        prop_assert!(frames.between_messages());
        let messages = parts.iter().filter(|part| matches!(part, Part::Message(_))).count() as u64;
        prop_assert_eq!(frames.take_ended().messages, messages);
    }

    #[test]
    fn any_split_of_anything_finds_the_same(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x82), Just(2), Just(0), Just(0x8a), Just(1)], 0..200),
        masked: bool,
        max in prop::option::of(0_u64..50),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let run = |pieces: &[&[u8]]| {
            let mut frames = Frames::new(masked, false, &limits(max, max));
            frames.expect_pongs([0; TOKEN]);
            let found = found(&mut frames, pieces);
            (found, frames.since_boundary(), frames.closed(), frames.take_ended())
        };
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(run(&pieces(&bytes, &cuts)), run(&[&bytes]));
        prop_assert_eq!(run(&bytewise), run(&[&bytes]));
    }
}
