//! A client that asks /echo on and on, as the page does, and notices everything that is not a 200.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::time::Instant;

use crate::web::Web;
use crate::{Outcome, expect};

pub(crate) struct Client {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

impl Client {
    pub(crate) fn start(http: SocketAddr) -> Client {
        let over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&over);
        Client { over, thread: thread::spawn(move || ask(http, &flag)) }
    }

    /// How many answers it got, and the slowest; or the first that was not a 200.
    pub(crate) fn end(self) -> Outcome {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the client panicked".to_owned())?
    }
}

#[expect(clippy::disallowed_methods, reason = "a client's own thread, whose pace means nothing")]
fn ask(http: SocketAddr, over: &AtomicBool) -> Outcome {
    let web = Web::to(http);
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = web.get("/echo")?;
        expect(answer.status == 200, || format!("a client noticed, after {count} answers: {}", answer.told()))?;
        (count, slowest) = (count + 1, slowest.max(began.elapsed()));
        thread::sleep(Duration::from_millis(10));
    }
    Ok(format!("{count} answers, the slowest after {} ms", slowest.as_millis()))
}
