//! When an endpoint counts as healthy: so many checks in a row must say otherwise than what is known.

use crate::snapshot::HealthCheck;

/// What is known of an endpoint by its checks.
#[derive(Debug)]
pub(super) struct Judge {
    healthy: bool,
    /// Whether it is kept out only because no check has passed yet.
    untried: bool,
    /// Checks in a row that say otherwise.
    against: u32,
}

impl Judge {
    /// Of an endpoint of which this is known from before.
    pub(super) fn new(unhealthy: bool, untried: bool) -> Self {
        Judge { healthy: !unhealthy && !untried, untried, against: 0 }
    }

    /// Whether the endpoint may get requests.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Whether it is kept out only because no check has passed yet.
    pub(super) fn is_untried(&self) -> bool {
        self.untried
    }

    /// Learns how a check went; returns whether that changes what is known.
    pub(super) fn learn(&mut self, passed: bool, check: &HealthCheck) -> bool {
        if passed == self.healthy {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = match passed {
            true if self.untried => 1,
            true => check.healthy_threshold,
            false => check.unhealthy_threshold,
        };
        if self.against < needed {
            return false;
        }
        *self = Judge { healthy: passed, untried: false, against: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::tests::check;

    /// What is known after each of these checks: `+` passed, `-` failed.
    fn after(untried: bool, checks: &str) -> String {
        let check = HealthCheck { healthy_threshold: 2, unhealthy_threshold: 3, ..check() };
        let mut judge = Judge::new(false, untried);
        let learn = |how| {
            judge.learn(how == '+', &check);
            if judge.is_healthy() { '+' } else { '-' }
        };
        checks.chars().map(learn).collect()
    }

    #[test]
    fn so_many_checks_in_a_row_change_what_is_known() {
        assert_eq!(after(false, "--+---"), "+++++-", "a check that passes begins the count anew");
        assert_eq!(after(false, "---+-++"), "++----+", "and so does one that fails");
        assert_eq!(after(false, "-+-+-+"), "++++++", "flapping changes nothing");
    }

    #[test]
    fn the_first_check_that_passes_lets_in_whom_nobody_knows() {
        assert_eq!(after(true, "---+---+"), "---+++--", "but only the first");
    }
}
