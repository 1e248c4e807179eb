//! Who of a cluster's endpoints gets requests, and why the others do not: one word each, and three counts for all.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Why an endpoint gets no requests. Each reason comes and goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeptOut {
    /// Health checks fail.
    Unhealthy = 1,
    /// Its answers were failures, or much slower than those of others.
    Ejected = 2,
    /// Its circuit breaker is open.
    BreakerOpen = 4,
    /// It refused a connection a moment ago.
    Refused = 8,
    /// No health check of it has passed yet. Nothing overrides this: it is as if it were not there.
    Untried = 16,
}

/// It is no endpoint of the cluster any more, or not yet.
const ABSENT: u8 = 1 << 7;

/// Counts of a cluster's endpoints.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// How many it has.
    members: AtomicU32,
    /// How many of them are kept out, for whatever reason.
    kept_out: AtomicU32,
    /// How many of them are ejected.
    ejected: AtomicU32,
    /// Changes with every reason that comes or goes.
    version: AtomicU32,
}

/// One endpoint's reasons. Whoever changes them names the counts of its cluster.
#[derive(Debug)]
pub(super) struct Standing(AtomicU8);

impl Counts {
    pub(super) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn set_members(&self, members: usize) {
        self.members.store(u32::try_from(members).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Counts one more that is kept out, unless it is the last that is not.
    fn reserve(&self) -> bool {
        let members = self.members.load(Ordering::Relaxed);
        let one_more = |out: u32| (out.saturating_add(1) < members).then(|| out + 1);
        self.kept_out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts one more that is ejected, if no more than `max_percent` are, or it is the only one.
    pub(super) fn reserve_ejection(&self, max_percent: u8) -> bool {
        let members = u64::from(self.members.load(Ordering::Relaxed));
        let one_more = |ejected: u32| {
            let enough = u64::from(ejected + 1) * 100 > members * u64::from(max_percent);
            (ejected == 0 || !enough).then_some(ejected + 1)
        };
        self.ejected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts one less that is ejected.
    pub(super) fn release_ejection(&self) {
        self.ejected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Standing {
    /// Absent until it [joins](Standing::join).
    pub(super) fn new() -> Self {
        Standing(AtomicU8::new(ABSENT))
    }

    pub(super) fn is_available(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !ABSENT == 0
    }

    pub(super) fn has(&self, why: KeptOut) -> bool {
        self.0.load(Ordering::Relaxed) & why as u8 != 0
    }

    pub(super) fn is_member(&self) -> bool {
        self.0.load(Ordering::Relaxed) & ABSENT == 0
    }

    /// A reason comes or goes. Returns whether that is news.
    pub(super) fn set(&self, why: KeptOut, out: bool, counts: &Counts) -> bool {
        let bit = why as u8;
        let before = match out {
            true => self.0.fetch_or(bit, Ordering::Relaxed),
            false => self.0.fetch_and(!bit, Ordering::Relaxed),
        };
        let news = (before & bit != 0) != out;
        if news {
            let after = if out { before | bit } else { before & !bit };
            moved(before, after, counts);
        }
        news
    }

    /// A reason comes, unless no other endpoint would be left. Returns whether that is news.
    pub(super) fn set_unless_last(&self, why: KeptOut, counts: &Counts) -> bool {
        let bit = why as u8;
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            if before & (bit | ABSENT) != 0 {
                return false;
            }
            let reserved = before == 0 && counts.reserve();
            if before == 0 && !reserved {
                return false;
            }
            match self.0.compare_exchange(before, before | bit, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    counts.changed();
                    return true;
                }
                Err(now) => before = now,
            }
            if reserved {
                counts.kept_out.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// It is an endpoint of its cluster.
    pub(super) fn join(&self, counts: &Counts) {
        let before = self.0.fetch_and(!ABSENT, Ordering::Relaxed);
        if before & ABSENT != 0 {
            moved(before, before & !ABSENT, counts);
        }
    }

    /// It is no endpoint of its cluster any more: what its requests said of it is forgotten. Returns whether it was ejected.
    pub(super) fn part(&self, counts: &Counts) -> bool {
        let forgotten = KeptOut::Ejected as u8 | KeptOut::Refused as u8;
        let parted = |word: u8| (word & ABSENT == 0).then_some(ABSENT | word & !forgotten);
        let Ok(before) = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, parted) else { return false };
        moved(before, ABSENT | before & !forgotten, counts);
        before & KeptOut::Ejected as u8 != 0
    }
}

/// Counts the change of an endpoint's word.
fn moved(before: u8, after: u8, counts: &Counts) {
    let counted = |word: u8| word & ABSENT == 0 && word != 0;
    match (counted(before), counted(after)) {
        (false, true) => drop(counts.kept_out.fetch_add(1, Ordering::Relaxed)),
        (true, false) => drop(counts.kept_out.fetch_sub(1, Ordering::Relaxed)),
        _ => {}
    }
    counts.changed();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(members: usize) -> (Counts, Vec<Standing>) {
        let counts = Counts::default();
        counts.set_members(members);
        let all: Vec<_> = (0..members).map(|_| Standing::new()).collect();
        all.iter().for_each(|standing| standing.join(&counts));
        (counts, all)
    }

    #[test]
    fn reasons_come_and_go_by_themselves() {
        let (counts, all) = joined(1);
        let (one, before) = (&all[0], counts.version());
        assert!(one.set(KeptOut::BreakerOpen, true, &counts));
        assert!(!one.set(KeptOut::BreakerOpen, true, &counts), "no news");
        assert!(one.set(KeptOut::Unhealthy, true, &counts));
        assert_eq!(counts.version(), before + 2, "only news count");
        assert!(one.set(KeptOut::BreakerOpen, false, &counts));
        assert!(!one.is_available() && one.has(KeptOut::Unhealthy));
        assert!(one.set(KeptOut::Unhealthy, false, &counts) && one.is_available());
    }

    #[test]
    fn the_last_one_stays() {
        let (counts, all) = joined(2);
        assert!(all[0].set_unless_last(KeptOut::Refused, &counts));
        assert!(!all[0].set_unless_last(KeptOut::Refused, &counts), "no news");
        assert!(all[0].set_unless_last(KeptOut::Ejected, &counts), "a second reason takes nobody more out");
        assert!(!all[1].set_unless_last(KeptOut::Refused, &counts), "nobody would be left");
        assert!(all[0].set(KeptOut::Ejected, false, &counts) && all[0].set(KeptOut::Refused, false, &counts));
        assert!(all[1].set_unless_last(KeptOut::Refused, &counts));
        let (counts, all) = joined(1);
        assert!(!all[0].set_unless_last(KeptOut::Refused, &counts), "the only one");
        // Health checks and breakers know what they do.
        assert!(all[0].set(KeptOut::Unhealthy, true, &counts));
    }

    #[test]
    fn who_leaves_is_counted_no_more() {
        let (counts, all) = joined(3);
        assert!(all[0].set_unless_last(KeptOut::Ejected, &counts) && all[1].set_unless_last(KeptOut::Refused, &counts));
        assert!(all[0].part(&counts), "was ejected");
        counts.set_members(2);
        assert!(!all[0].set_unless_last(KeptOut::Ejected, &counts), "is no endpoint");
        assert!(!all[2].set_unless_last(KeptOut::Refused, &counts), "the last of two");
        all[0].join(&counts);
        assert!(all[0].is_available(), "comes back with a clean slate");
        counts.set_members(3);
        assert!(all[2].set_unless_last(KeptOut::Refused, &counts));
        assert_eq!(counts.kept_out.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_percentage_may_be_ejected_and_one_always() {
        let (counts, _all) = joined(10);
        assert!(counts.reserve_ejection(0) && !counts.reserve_ejection(10), "one always");
        assert!(counts.reserve_ejection(20) && !counts.reserve_ejection(29));
        counts.release_ejection();
        assert!(counts.reserve_ejection(29));
    }
}
