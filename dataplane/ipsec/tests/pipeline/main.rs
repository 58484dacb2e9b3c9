//! Both directions of the engine, end to end, over the crate's public doors alone.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]
#![expect(clippy::cast_possible_truncation, reason = "test data is small")]
#![expect(missing_docs, reason = "a test has no users")]

mod gateway;

mod packets;

mod round_trip;

mod arrivals;

mod departures;
