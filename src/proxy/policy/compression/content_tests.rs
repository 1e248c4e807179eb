#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use proptest::prelude::*;
use zlib_rs::{Inflate, InflateFlush};

use super::*;

/// What an endpoint does next; nothing more is to come behind the last.
#[derive(Clone, Debug)]
enum Does {
    Says(Bytes),
    Pauses,
    Breaks,
    Ends(HeaderMap),
}

/// An endpoint that does what it is told.
#[derive(Clone, Default)]
struct Endpoint(Rc<RefCell<VecDeque<Does>>>);

impl Endpoint {
    fn told(does: impl IntoIterator<Item = Does>) -> Self {
        Endpoint(Rc::new(RefCell::new(does.into_iter().collect())))
    }
}

impl Content for Endpoint {}

impl HttpBody for Endpoint {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.0.borrow_mut().pop_front() {
            Some(Does::Says(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Does::Pauses) => Poll::Pending,
            Some(Does::Breaks) => Poll::Ready(Some(Err(Error::UpstreamCut))),
            Some(Does::Ends(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None => Poll::Ready(None),
        }
    }
}

/// Counts how often somebody was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What comes of a compressor until it waits or is over.
#[derive(Debug, Default)]
struct Came {
    pieces: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    failed: Option<Error>,
    over: bool,
    /// Whether it waits for its turn, and not for the endpoint.
    woken: bool,
}

fn polled(compressed: &mut Compressed) -> Came {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut came = Came::default();
    loop {
        match Pin::new(&mut *compressed).poll_frame(&mut cx) {
            Poll::Pending => {
                came.woken = woken.0.load(Ordering::Relaxed) > 0;
                return came;
            }
            Poll::Ready(None) => {
                came.over = true;
                return came;
            }
            Poll::Ready(Some(Err(error))) => {
                came.failed = Some(error);
                return came;
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => came.pieces.push(data),
                Err(frame) => came.trailers = frame.into_trailers().ok(),
            },
        }
    }
}

/// A client that reads what it gets.
struct Reader(Inflate);

impl Reader {
    fn new() -> Self {
        Reader(Inflate::new(true, 16 + 15))
    }

    /// What it can read so far.
    fn read(&mut self, pieces: &[Bytes]) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in pieces {
            let mut rest = &piece[..];
            loop {
                let mut room = vec![0; 64 * 1024];
                let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
                let status = self.0.decompress(rest, &mut room, InflateFlush::NoFlush).unwrap();
                rest = &rest[(self.0.total_in() - before_in) as usize..];
                let written = (self.0.total_out() - before_out) as usize;
                text.extend_from_slice(&room[..written]);
                if status == zlib_rs::Status::StreamEnd || rest.is_empty() && written < room.len() {
                    break;
                }
            }
        }
        text
    }
}

fn says(text: impl Into<Vec<u8>>) -> Does {
    Does::Says(text.into().into())
}

fn compressed(endpoint: Endpoint, each: bool) -> Compressed {
    Compressed::new(Body::stream(endpoint), 5, each)
}

#[test]
fn whatever_came_is_there_when_the_endpoint_pauses() {
    let endpoint = Endpoint::default();
    let mut content = compressed(endpoint.clone(), false);
    let mut reader = Reader::new();
    for text in ["a", "hello, hello, hello\n", &"x".repeat(100_000), "", "end"] {
        endpoint.0.borrow_mut().extend([says(text), Does::Pauses, Does::Pauses]);
        let mut read = Vec::new();
        while read.len() < text.len() {
            let came = polled(&mut content);
            assert!(!came.over && came.failed.is_none());
            let more = reader.read(&came.pieces);
            assert!(!more.is_empty() || came.woken, "nothing waits but for its turn");
            read.extend(more);
        }
        assert_eq!(read, text.as_bytes());
        // Silence costs nothing.
        endpoint.0.borrow_mut().clear();
        endpoint.0.borrow_mut().extend([Does::Pauses]);
        assert!(polled(&mut content).pieces.is_empty());
        endpoint.0.borrow_mut().clear();
    }
    let came = polled(&mut content);
    assert!(came.over && content.is_end_stream());
}

#[test]
fn each_event_goes_out_by_itself_even_if_the_next_one_is_there() {
    let events = ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"];
    let endpoint = Endpoint::told(events.map(says).into_iter().chain([Does::Pauses]));
    let mut content = compressed(endpoint, true);
    let came = polled(&mut content);
    let mut reader = Reader::new();
    let read: Vec<_> = came.pieces.iter().map(|piece| reader.read(std::slice::from_ref(piece))).collect();
    assert_eq!(read.concat(), events.concat().as_bytes());
    assert!(read.iter().filter(|text| !text.is_empty()).count() == events.len(), "{read:?}");
    // Without that, what is there at once is compressed as one.
    let endpoint = Endpoint::told(events.map(says).into_iter().chain([Does::Pauses]));
    let came = polled(&mut compressed(endpoint, false));
    assert!(came.pieces.concat().len() < 60, "{}", came.pieces.concat().len());
}

#[test]
fn trailers_follow_the_end() {
    let trailers: HeaderMap = [(http::header::ETAG, http::HeaderValue::from_static("\"a\""))].into_iter().collect();
    let mut content = compressed(Endpoint::told([says("abc"), Does::Ends(trailers.clone())]), false);
    let came = polled(&mut content);
    assert_eq!((Reader::new().read(&came.pieces), came.trailers, came.over), (b"abc".to_vec(), Some(trailers), true));
}

#[test]
fn content_that_breaks_off_is_not_made_whole() {
    let does = [says("abc"), Does::Pauses, Does::Pauses, says("def"), Does::Breaks];
    let mut content = compressed(Endpoint::told(does), false);
    let mut reader = Reader::new();
    assert_eq!(reader.read(&polled(&mut content).pieces), b"abc");
    let came = polled(&mut content);
    assert_eq!((came.failed, came.over), (Some(Error::UpstreamCut), false));
    // Nothing of an end, which RFC 1952 makes of a checksum and a length.
    assert_eq!(came.pieces.len(), 0);
}

#[test]
fn an_empty_answer_is_a_whole_one() {
    let came = polled(&mut compressed(Endpoint::default(), false));
    assert!(came.over && Reader::new().read(&came.pieces).is_empty() && !came.pieces.is_empty());
}

#[test]
fn others_have_their_turn() {
    let piece = says(b"0123456789abcdef".repeat(4096));
    let mut content = compressed(Endpoint::told(std::iter::repeat_n(piece, 16)), false);
    let mut turns = 0;
    loop {
        let came = polled(&mut content);
        if came.over {
            break;
        }
        assert!(came.woken, "it wakes itself");
        turns += 1;
    }
    assert!(turns >= 15, "{turns} for a mebibyte");
}

#[test]
fn what_a_stream_holds_is_bounded() {
    assert!(size_of::<Compressed>() <= 256, "{}", size_of::<Compressed>());
    // Noise cannot be compressed: as much comes out as goes in, in pieces of a bounded size.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(300_000)
    .collect();
    let endpoint = Endpoint::told(noise.chunks(10_000).map(says));
    let mut content = compressed(endpoint.clone(), false);
    // No more is asked for than goes out.
    let mut pieces = Vec::new();
    let first = Pin::new(&mut content).poll_frame(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Some(Ok(first))) = first else { panic!("{first:?}") };
    pieces.extend(first.into_data());
    assert!(endpoint.0.borrow().len() >= 27, "{}", endpoint.0.borrow().len());
    loop {
        let came = polled(&mut content);
        pieces.extend(came.pieces);
        if came.over {
            break;
        }
    }
    assert!(pieces.iter().all(|piece| piece.len() <= ROOM.1));
    assert_eq!(Reader::new().read(&pieces), noise);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever comes in whatever pieces, with whatever pauses: what is read is what was said.
    #[test]
    fn nothing_is_lost_and_nothing_waits(
        said in proptest::collection::vec((proptest::collection::vec(0_u8..4, 0..40_000), any::<bool>()), 0..12),
        level in 1_u8..=9,
        each in any::<bool>(),
    ) {
        let endpoint = Endpoint::default();
        let mut content = Compressed::new(Body::stream(endpoint.clone()), level, each);
        let (mut reader, mut all, mut read) = (Reader::new(), Vec::new(), Vec::new());
        for (text, pauses) in said {
            all.extend_from_slice(&text);
            endpoint.0.borrow_mut().push_back(says(text));
            if pauses {
                endpoint.0.borrow_mut().extend([Does::Pauses, Does::Pauses]);
                loop {
                    let came = polled(&mut content);
                    prop_assert!(!came.over && came.failed.is_none());
                    read.extend(reader.read(&came.pieces));
                    if !came.woken {
                        break;
                    }
                }
                prop_assert_eq!(read.len(), all.len());
                endpoint.0.borrow_mut().clear();
            }
        }
        loop {
            let came = polled(&mut content);
            read.extend(reader.read(&came.pieces));
            if came.over {
                break;
            }
            prop_assert!(came.woken);
        }
        prop_assert_eq!(read, all);
    }
}
