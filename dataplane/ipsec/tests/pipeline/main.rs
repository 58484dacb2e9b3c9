//! Both directions of the engine, end to end, over the crate's public doors alone.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]
#![expect(clippy::cast_possible_truncation, reason = "test data is small")]

mod apart;
mod authentication_header;
mod bundles;
mod gateway;
mod transport;

mod packets;

mod moving;
mod peers;
mod round_trip;

mod flows;

mod arrivals;

mod verification;

mod departures;

mod dummies;

mod hostile;

mod bad_input;

mod damage;
