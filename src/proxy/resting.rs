//! Connections that rest: they wait for their next request with as little as can be. A place in a list that is gone
//! through once a second takes the place of a timer for each. Who rests, and with what, is `clients`'s to say.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::time::{Instant, timeout};

use super::worker::Once;

/// How often is looked whose time has come: a rest may take that much longer.
const LOOK: Duration = Duration::from_secs(1);

/// The connections of a worker that rest.
#[derive(Debug)]
pub(super) struct Resting {
    began: Instant,
    places: RefCell<Slab<Guest>>,
}

/// Whoever rests.
#[derive(Debug)]
struct Guest {
    waker: Waker,
    /// Seconds since `began`; in 32 bits, because they are many.
    until: u32,
}

impl Default for Resting {
    fn default() -> Self {
        Resting { began: Instant::now(), places: RefCell::default() }
    }
}

impl Resting {
    /// Whole seconds that will have passed after `time`.
    fn seconds(&self, time: Duration) -> u32 {
        u32::try_from(self.began.elapsed().saturating_add(time).as_secs()).unwrap_or(u32::MAX)
    }

    /// Wakes those whose time has come, and all once `over` has happened.
    pub(super) async fn wake(&self, over: &Once) {
        loop {
            let over = timeout(LOOK, over.happened()).await.is_ok();
            let now = self.seconds(Duration::ZERO);
            for (_, guest) in &*self.places.borrow() {
                if over || guest.until <= now {
                    guest.waker.wake_by_ref();
                }
            }
            if over {
                return;
            }
        }
    }
}

/// A place in the list of a worker, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    resting: Rc<Resting>,
    at: usize,
}

impl Place {
    /// For so long, and up to two seconds longer.
    pub(super) fn take(resting: &Rc<Resting>, time: Duration, waker: &Waker) -> Self {
        let until = resting.seconds(time).saturating_add(1);
        let at = resting.places.borrow_mut().insert(Guest { waker: waker.clone(), until });
        Place { resting: Rc::clone(resting), at }
    }

    /// Ready when the rest is over.
    pub(super) fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        let mut places = self.resting.places.borrow_mut();
        match places.get_mut(self.at) {
            Some(guest) if guest.until > self.resting.seconds(Duration::ZERO) => {
                guest.waker.clone_from(cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.resting.places.borrow_mut().try_remove(self.at);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Rests for so long; ready when it is over, or something `happens`.
    async fn rest(resting: &Rc<Resting>, seconds: u64, happens: &Once) {
        let place = poll_fn(|cx| Poll::Ready(Place::take(resting, Duration::from_secs(seconds), cx.waker()))).await;
        poll_fn(|cx| if happens.has_happened() { Poll::Ready(()) } else { place.poll_over(cx) }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_rest_takes_its_time_until_all_are_over() {
        let (resting, over) = (Rc::<Resting>::default(), Once::default());
        let start = Instant::now();
        let rests = async {
            rest(&resting, 10, &over).await;
            assert!((10.0..=12.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
            rest(&resting, 0, &over).await;
            let so_far = start.elapsed();
            assert!(so_far <= Duration::from_secs(14), "{so_far:?}");
            let (long, longer) = (rest(&resting, 1000, &over), rest(&resting, 2000, &over));
            let happens = async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                over.happen();
            };
            tokio::join!(long, longer, happens);
            assert_eq!(start.elapsed(), so_far + Duration::from_millis(10));
            assert!(resting.places.borrow().is_empty());
        };
        tokio::join!(rests, resting.wake(&over));
    }
}
