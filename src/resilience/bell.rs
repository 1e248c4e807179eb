//! Calls all workers at once, for what each has to look at by itself. Rare: nobody rings on the path of a request that need
//! not wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rung: AtomicU64,
    listening: Mutex<Vec<Waker>>,
}

impl Bell {
    /// Calls all who listen.
    pub fn ring(&self) {
        let listening = {
            let mut listening = self.0.listening.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.rung.fetch_add(1, Ordering::SeqCst);
            std::mem::take(&mut *listening)
        };
        listening.into_iter().for_each(Waker::wake);
    }

    /// Ready when it was rung since `heard`, which then is brought up to date.
    pub fn poll_rung(&self, heard: &mut u64, waker: &Waker) -> Poll<()> {
        let mut listening = self.0.listening.lock().unwrap_or_else(PoisonError::into_inner);
        let rung = self.0.rung.load(Ordering::SeqCst);
        if rung != *heard {
            *heard = rung;
            return Poll::Ready(());
        }
        if !listening.iter().any(|known| known.will_wake(waker)) {
            listening.push(waker.clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_hears_each_ring_once() {
        let (bell, mut heard) = (Bell::default(), 0);
        assert_eq!(bell.poll_rung(&mut heard, Waker::noop()), Poll::Pending);
        bell.clone().ring();
        bell.ring();
        assert_eq!(bell.poll_rung(&mut heard, Waker::noop()), Poll::Ready(()));
        assert_eq!(bell.poll_rung(&mut heard, Waker::noop()), Poll::Pending);
    }
}
