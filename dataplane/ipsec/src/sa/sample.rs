//! SAs to test with.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::Arc;

use super::association::{Direction, DontFragment, Dscp, FlowLabel, Mode, SaParameters, SaSlot};
use super::lifetime::Lifetime;
use super::{Sa, SaState};
use crate::crypto::suite::{Encryption, Integrity, Protocol, Suite};
use crate::sa::state::Start;
use crate::secret::Secret;
use crate::time::Time;

/// A tunnel SA with `null` and `sha1_96`, without ESN, window 64, named after its SPI.
pub(crate) fn parameters(direction: Direction, spi: u32, destination: &str) -> SaParameters {
    let destination: IpAddr = destination.parse().unwrap();
    SaParameters {
        name: format!("sa-{spi:x}-{destination}"),
        direction,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        spi,
        source: destination,
        destination,
        suite: Suite {
            encryption: Encryption::Null,
            integrity: Some(Integrity::Sha1_96),
        },
        encryption_key: Secret::default(),
        integrity_key: Secret::new(vec![7; 20]),
        esn: false,
        sequence: 0,
        replay_window: 64,
        udp_encapsulation: None,
        keepalive_seconds: 0,
        follow_peer: false,
        lifetime: Lifetime::default(),
        dont_fragment: DontFragment::Copy,
        dscp: Dscp::Copy,
        ecn: true,
        hop_limit: 64,
        flow_label: FlowLabel::Hash,
        tfc_pad_to: 0,
        per_worker: false,
    }
}

/// The SA of `parameters`, its state parked.
pub(crate) fn sa(slot: u32, parameters: SaParameters) -> Arc<Sa> {
    let start = Start::after(parameters.sequence);
    let state = SaState::new(&parameters, &start, Time(0));
    let sa = Sa::new(SaSlot(slot), parameters, 0).unwrap();
    *sa.parked.lock().unwrap() = Some(Box::new(state));
    Arc::new(sa)
}
