//! Goal: nothing on the packet path allocates. Method: a counting allocator around two workers on
//! memory ports, one that seals and one that opens, in steady state: every suite of the benches,
//! mixed sizes, whole bursts, and packets that are refused.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use ipsec::limits::BATCH;
use ipsec::sa::association::Direction;
use ipsec::time::Time;
use ipsec::verdict::DropReason;
use xipsec::port::memory::MemoryPort;
use xipsec::worker::Worker;
use xipsec::worker::host::NoHost;
use xipsec_bench::allocation::{Counting, count as allocations};
use xipsec_bench::fixture::{End, Fixture, LAN, SUITES, WAN, plain_frame};
use xipsec_bench::lending::{Load, Pair};

/// Packets of one burst.
const BURST: usize = 32;

/// The far end's MAC address: the fixture gives both ends the same ones.
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Rounds before counting: first packets adopt their SA's state, caches find their size.
const WARM: u64 = 20;

/// Rounds that are counted.
const COUNTED: u64 = 200;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Two ends, and what goes from one to the other.
struct Tunnel {
    ends: [Fixture; 2],
    near: Worker<MemoryPort, NoHost>,
    far: Worker<MemoryPort, NoHost>,
    plain: Vec<Vec<u8>>,
    /// Sealed once and offered again for ever: a replay, and with ESN one of the next epoch later.
    old: Vec<u8>,
    /// As `old`, with a number that its ICV does not fit.
    forged: Vec<u8>,
    /// A frame between the two.
    wire: Vec<u8>,
    opened: u64,
}

impl Tunnel {
    /// One burst sealed, carried over with an old and a forged packet in it, opened and taken away.
    fn round(&mut self, round: u64) {
        let [near, far] = &self.ends;
        let now = Time(round * 1000);
        for frame in &self.plain {
            assert!(self.near.lanes_mut()[LAN].port.inject(frame));
        }
        assert_eq!(self.near.serve(LAN, BURST, &near.snapshot, now), BURST);
        self.near.end_round(&near.snapshot, now);
        let (from, to) = (&mut self.near.lanes_mut()[WAN].port, &mut self.far);
        let (room, mut carried) = (&mut self.wire, 0);
        while let Some(taken) = from.collect(|frame| {
            let room = &mut room[..frame.len()];
            room.copy_from_slice(frame);
            room[..6].copy_from_slice(&FAR);
            to.lanes_mut()[WAN].port.inject(room)
        }) {
            assert!(taken);
            carried += 1;
        }
        assert_eq!(carried, BURST);
        for frame in [&self.old, &self.forged] {
            self.far.lanes_mut()[WAN].port.inject(frame);
        }
        while self.far.serve(WAN, BURST, &far.snapshot, now) > 0 {}
        self.far.end_round(&far.snapshot, now);
        while self.far.lanes_mut()[LAN]
            .port
            .collect(<[u8]>::len)
            .is_some()
        {
            self.opened += 1;
        }
    }
}

#[test]
fn the_steady_state_of_both_directions_allocates_nothing() {
    let before = allocations();
    let probe = std::hint::black_box(vec![0_u8; 100]);
    assert!(allocations() > before, "the counter does not count");
    drop(probe);
    for suite in SUITES {
        let ends = [End::Near, End::Far].map(|end| Fixture::new(suite, end));
        let (near, far) = (ends[0].worker(), ends[1].worker());
        let sizes = [64, 65, 128, 333, 576, 1200, 1400, 9000]
            .into_iter()
            .cycle();
        let mut tunnel = Tunnel {
            ends,
            near,
            far,
            plain: sizes.take(BURST).map(plain_frame).collect(),
            old: Vec::new(),
            forged: Vec::new(),
            wire: vec![0; 10 * 1024],
            opened: 0,
        };
        // One packet of each kind that is refused, taken off the wire.
        tunnel.near.lanes_mut()[LAN].port.inject(&plain_frame(200));
        let snapshot = &tunnel.ends[0].snapshot;
        tunnel.near.serve(LAN, 1, snapshot, Time(0));
        let port = &mut tunnel.near.lanes_mut()[WAN].port;
        tunnel.old = port.collect(<[u8]>::to_vec).unwrap();
        tunnel.old[..6].copy_from_slice(&FAR);
        tunnel.forged = tunnel.old.clone();
        // A number far ahead, so that it is the ICV that stands against it.
        tunnel.forged[14 + 20 + 4..][..4].copy_from_slice(&0x00ff_ffff_u32.to_be_bytes());
        (0..WARM).for_each(|round| tunnel.round(round));
        let (opened, before) = (tunnel.opened, allocations());
        (WARM..WARM + COUNTED).for_each(|round| tunnel.round(round));
        let counted = allocations() - before;
        let packets = tunnel.opened - opened;
        assert_eq!(packets, COUNTED * BURST as u64, "{}", suite.name);
        for reason in [DropReason::Replay, DropReason::Authentication] {
            assert!(tunnel.far.tally().drops(reason) > 0, "{reason:?}");
        }
        assert_eq!(
            counted, 0,
            "{}: allocations over {packets} packets",
            suite.name
        );
    }
}

#[test]
fn nor_does_lending() {
    for direction in [Direction::Out, Direction::In] {
        let mut pair = Pair::new(Load {
            suite: SUITES[0],
            direction,
            size: 1420,
            supply: BATCH,
        });
        for _ in 0..WARM {
            pair.round();
        }
        let (lent, before) = (pair.round(), allocations());
        for _ in 0..COUNTED {
            pair.round();
        }
        assert_eq!(allocations() - before, 0, "{direction:?}");
        assert!(pair.round() > lent + COUNTED / 4, "batches were lent");
    }
}
