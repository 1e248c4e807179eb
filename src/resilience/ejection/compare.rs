//! Who is worse than the others of its cluster. Nothing here knows an endpoint: samples go in, their indexes come out.

use std::time::Duration;

use super::Verdict;
use crate::resilience::Why;
use crate::snapshot::Ejection;

/// How many percent of its requests must fail at least for an endpoint to be an outlier: where none of the others' do, one in a
/// thousand is many standard deviations away, and no reason to do without it.
const LEAST_FAILED_PERCENT: f64 = 5.0;
/// How much slower than the median an endpoint must be at least: below it, differences say nothing.
const LEAST_SLOWER: Duration = Duration::from_millis(5);

/// What became of one endpoint's requests in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) requests: u32,
    pub(crate) failed: u32,
    /// The mean time to the first byte; `None` without an answer.
    pub(crate) first_byte: Option<Duration>,
}

impl Sample {
    fn failed_percent(self) -> f64 {
        f64::from(self.failed) * 100.0 / f64::from(self.requests.max(1))
    }
}

/// Those who are to be ejected, each at most once.
pub(crate) fn outliers(samples: &[Sample], rules: &Ejection) -> Vec<(usize, Verdict)> {
    let heard = |sample: &Sample| sample.requests >= rules.minimum_requests.max(1);
    let compared: Vec<(usize, Sample)> = samples.iter().copied().enumerate().filter(|(_, it)| heard(it)).collect();
    if compared.len() < rules.minimum_endpoints as usize {
        return Vec::new();
    }
    let least_rate = least_success_rate(&compared, rules.success_rate_stdev_percent);
    let most_time = most_time(&compared, rules.latency_percent);
    let judge = |(index, sample): &(usize, Sample)| {
        let failed = sample.failed_percent();
        let verdict = if rules.failure_rate_percent > 0 && failed >= f64::from(rules.failure_rate_percent) {
            Verdict { why: Why::FailureRate, detail: format!("{failed:.1} % of {} failed", sample.requests) }
        } else if least_rate.is_some_and(|least| 100.0 - failed < least) && failed >= LEAST_FAILED_PERCENT {
            let least = least_rate.unwrap_or_default();
            let detail = format!("{:.1} % of {} succeeded, {least:.1} % would do", 100.0 - failed, sample.requests);
            Verdict { why: Why::SuccessRate, detail }
        } else {
            let time = sample.first_byte?;
            let (most, median) = most_time.filter(|(most, _)| time > *most)?;
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            let detail = format!(
                "{:.1} ms to the first byte, {:.1} ms would do, the median is {:.1} ms",
                ms(time),
                ms(most),
                ms(median)
            );
            Verdict { why: Why::Latency, detail }
        };
        Some((*index, verdict))
    };
    compared.iter().filter_map(judge).collect()
}

/// The mean of the rates of successes less so many hundredths of their standard deviation.
fn least_success_rate(compared: &[(usize, Sample)], stdev_percent: u32) -> Option<f64> {
    if stdev_percent == 0 || compared.is_empty() {
        return None;
    }
    let rates = || compared.iter().map(|(_, sample)| 100.0 - sample.failed_percent());
    let count = compared.len() as f64;
    let mean = rates().sum::<f64>() / count;
    let variance = rates().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    Some(mean - variance.sqrt() * f64::from(stdev_percent) / 100.0)
}

/// How long the first byte may take, and the median that this comes from.
fn most_time(compared: &[(usize, Sample)], percent: u32) -> Option<(Duration, Duration)> {
    let mut times: Vec<Duration> = compared.iter().filter_map(|(_, sample)| sample.first_byte).collect();
    if percent == 0 || times.is_empty() {
        return None;
    }
    times.sort_unstable();
    // The lower one of two, so that one of two endpoints can be the slow one.
    let median = times[(times.len() - 1) / 2];
    let most = median.saturating_mul(percent) / 100;
    Some((most.max(median + LEAST_SLOWER), median))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rates: &[u32]) -> Vec<Sample> {
        rates.iter().map(|rate| Sample { requests: 200, failed: 200 - 2 * rate, first_byte: None }).collect()
    }

    fn found(samples: &[Sample], rules: &Ejection) -> Vec<(usize, Why)> {
        outliers(samples, rules).into_iter().map(|(index, verdict)| (index, verdict.why)).collect()
    }

    /// Envoy, `OutlierDetectorImplTest`: `BasicFlowSuccessRateExternalOrigin` and others.
    #[test]
    fn success_rates_are_compared_as_envoy_does() {
        let rules = Ejection::default();
        let samples = of(&[100, 100, 100, 100, 50]);
        let compared: Vec<_> = samples.iter().copied().enumerate().collect();
        assert_eq!(least_success_rate(&compared, 190), Some(52.0), "mean 90, deviation 20");
        assert_eq!(found(&samples, &rules), [(4, Why::SuccessRate)]);
        assert_eq!(outliers(&samples, &rules)[0].1.detail, "50.0 % of 200 succeeded, 52.0 % would do");

        for (samples, says) in [
            (of(&[100, 100, 100, 50]), "four are too few"),
            (of(&[50, 50, 50, 50, 50]), "all are as bad"),
            (of(&[100, 100, 100, 100, 97]), "three percent are no reason"),
        ] {
            assert_eq!(found(&samples, &rules), [], "{says}");
        }
        let mut quiet = samples.clone();
        quiet[4] = Sample { requests: 99, failed: 99, first_byte: None };
        assert_eq!(found(&quiet, &rules), [], "too few requests");
        assert_eq!(found(&samples, &Ejection { success_rate_stdev_percent: 0, ..rules }), [], "off");
    }

    /// Envoy, `OutlierDetectorImplTest`: `FailurePercentageExternal`.
    #[test]
    fn failure_rates_have_a_bound_of_their_own() {
        let rules = Ejection { failure_rate_percent: 40, success_rate_stdev_percent: 0, ..Ejection::default() };
        assert_eq!(found(&of(&[100, 61, 60, 100, 0]), &rules), [(2, Why::FailureRate), (4, Why::FailureRate)]);
        assert_eq!(found(&of(&[0, 0, 0, 0]), &rules), [], "too few to tell");
        let alone = Ejection { minimum_endpoints: 1, ..rules };
        assert_eq!(found(&of(&[0]), &alone), [(0, Why::FailureRate)]);
    }

    #[test]
    fn the_slow_one_is_found() {
        let rules = Ejection { latency_percent: 300, minimum_endpoints: 2, ..Ejection::default() };
        let of = |millis: &[u64]| -> Vec<Sample> {
            let sample =
                |millis: &u64| Sample { requests: 100, failed: 0, first_byte: Some(Duration::from_millis(*millis)) };
            millis.iter().map(sample).collect()
        };
        assert_eq!(found(&of(&[10, 20, 12, 31, 11]), &rules), [], "31 ms are less than three times 12 ms");
        assert_eq!(found(&of(&[10, 20, 12, 37, 11]), &rules), [(3, Why::Latency)]);
        assert_eq!(found(&of(&[10, 100]), &rules), [(1, Why::Latency)], "one of two");
        assert_eq!(found(&of(&[1, 1, 6, 1]), &rules), [], "5 ms more are no reason");
        assert_eq!(found(&of(&[50, 50, 50]), &rules), []);
        assert_eq!(found(&of(&[10, 100]), &Ejection { latency_percent: 0, ..rules }), [], "off");
    }
}
