//! How long packets take, as a histogram: percentiles, and points of the whole distribution.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The longest time that is told apart, nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// Percentiles that tables show.
const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p999", 99.9),
    ("max", 100.0),
];

/// Times of many packets.
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let bounds = Histogram::new_with_bounds(1, LONGEST, 3);
        Self {
            histogram: bounds.expect("bounds that hdrhistogram takes"),
        }
    }
}

impl Latency {
    /// A packet took that long.
    pub fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record(nanoseconds.max(1));
    }

    /// Packets so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The time within which that percentage of packets arrived, nanoseconds.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> u64 {
        self.histogram.value_at_percentile(percent)
    }

    /// Percentiles in nanoseconds, and points (nanoseconds, share of packets) of the distribution.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = json!({"packets": self.count()});
        for (name, percent) in PERCENTILES {
            value[name] = self.percentile(percent).into();
        }
        let shares = (1..=20).map(|step| f64::from(step) * 5.0 - 4.0);
        let tail = [98.0, 99.0, 99.5, 99.9, 99.99];
        let points = shares.chain(tail).map(|percent| {
            let time = self.percentile(percent);
            json!([time, percent / 100.0])
        });
        value["distribution"] = points.collect();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|time| latency.record(time * 1000));
        for (percent, time) in [(50.0, 500_000), (99.0, 990_000), (100.0, 1_000_000)] {
            let found = latency.percentile(percent);
            assert!(found.abs_diff(time) <= time / 500, "{percent}: {found}");
        }
        let json = latency.to_json();
        assert_eq!(json["packets"], 1000);
        let points = json["distribution"].as_array().expect("points");
        assert!(points.is_sorted_by_key(|point| point[0].as_u64()));
        assert!(points.is_sorted_by(|a, b| a[1].as_f64() <= b[1].as_f64()));
    }

    #[test]
    fn what_is_beyond_the_longest_counts_as_that() {
        let mut latency = Latency::default();
        latency.record(u64::MAX);
        latency.record(0);
        assert_eq!(latency.count(), 2);
        assert!(latency.percentile(100.0) >= LONGEST);
    }
}
