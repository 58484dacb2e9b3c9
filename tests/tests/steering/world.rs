//! The machine that the frames meet: its addresses, SAs and policies, and a loaded program.

use std::net::IpAddr;

use ipsec::policy::{Action, AddressRange, AddressSelector};
use ipsec::sa::association::Direction;
use xipsec::port::settings::Side;
use xipsec::port::xdp::program::{Entry, SteerCounter, SteerProgram, SteerSettings};
use xipsec::port::xdp::steer::{SteeringPolicy, SteeringTables};
use xipsec_abi::Outcome;

use super::frames::PORT;

/// XDP actions, as `linux/bpf.h` numbers them.
pub(super) const DROP: u32 = 1;
pub(super) const PASS: u32 = 2;

/// One row: a frame and what must become of it.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) frame: Vec<u8>,
    /// Without a socket in the map.
    pub(super) action: u32,
    pub(super) outcome: Outcome,
}

impl Case {
    pub(super) fn pass(name: &'static str, frame: Vec<u8>, outcome: Outcome) -> Self {
        Self {
            name,
            frame,
            action: PASS,
            outcome,
        }
    }

    pub(super) fn drop(name: &'static str, frame: Vec<u8>, outcome: Outcome) -> Self {
        Self {
            name,
            frame,
            action: DROP,
            outcome,
        }
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A selector of one prefix.
fn prefix(text: &str) -> AddressSelector {
    let (address, length) = text.split_once('/').unwrap();
    let (address, length) = (ip(address), length.parse::<u32>().unwrap());
    let (version, bits) = match address {
        IpAddr::V4(_) => (ipsec::packet::Version::V4, 32),
        IpAddr::V6(_) => (ipsec::packet::Version::V6, 128),
    };
    let first = ipsec::packet::address_bits(address);
    let last = first | ((1_u128 << (bits - length)) - 1);
    AddressSelector::Ranges(vec![AddressRange {
        version,
        first,
        last,
    }])
}

/// Direction, action, local, remote.
const POLICIES: [(Direction, Action, &str, &str); 11] = [
    (
        Direction::Out,
        Action::Protect,
        "10.1.0.0/16",
        "10.2.0.0/16",
    ), // A → B
    (
        Direction::Out,
        Action::Protect,
        "10.3.0.0/16",
        "10.4.0.0/16",
    ), // C → D
    (Direction::Out, Action::Bypass, "10.1.0.0/16", "10.9.0.0/16"),
    (
        Direction::Out,
        Action::Discard,
        "10.1.0.0/16",
        "10.66.0.0/16",
    ),
    (
        Direction::Out,
        Action::Protect,
        "2001:db8:1::/48",
        "2001:db8:2::/48",
    ),
    // Inside C → D, and itself about another remote: lookups of 10.3.1.1 must know both.
    (
        Direction::Out,
        Action::Protect,
        "10.3.1.0/24",
        "10.5.0.0/16",
    ),
    (Direction::In, Action::Protect, "10.1.0.0/16", "10.2.0.0/16"),
    (
        Direction::In,
        Action::Discard,
        "10.1.0.0/16",
        "10.66.0.0/16",
    ),
    (Direction::In, Action::Bypass, "10.1.0.0/16", "10.9.0.0/16"),
    (
        Direction::In,
        Action::Protect,
        "192.0.2.1/32",
        "10.2.0.0/16",
    ),
    (
        Direction::In,
        Action::Protect,
        "2001:db8:1::/48",
        "2001:db8:2::/48",
    ),
];

/// What the daemon would tell the program.
pub(super) fn tables() -> SteeringTables {
    let mut tables = SteeringTables::default();
    for address in ["192.0.2.1", "10.1.0.1", "2001:db8::1", "198.51.100.7"] {
        tables.endpoints.insert(ip(address), false);
    }
    // The kernel serves this one too.
    tables.endpoints.insert(ip("192.0.2.9"), true);
    tables
        .sas
        .extend([(ip("192.0.2.9"), 50, 0x2001), (ip("192.0.2.9"), 51, 0x2002)]);
    for endpoint in ["192.0.2.1", "2001:db8::1", "192.0.2.9"] {
        tables.encapsulation.insert((ip(endpoint), 4500));
    }
    tables.encapsulation.insert((ip("192.0.2.1"), 10_000));
    tables.peers.insert(ip("192.0.2.2"));
    tables
        .local
        .extend(["192.0.2.1", "192.0.2.9", "10.1.0.1", "2001:db8::1"].map(ip));
    let selectors = POLICIES.map(|(_, _, local, remote)| (prefix(local), prefix(remote)));
    tables.put_policies(POLICIES.iter().zip(&selectors).map(
        |((direction, action, ..), (local, remote))| SteeringPolicy {
            direction: *direction,
            action: *action,
            local,
            remote,
        },
    ));
    tables
}

/// A program of one side with its tables loaded, and its counters as last seen.
pub(super) struct Runner {
    pub(super) program: SteerProgram,
    pub(super) tables: SteeringTables,
    counters: Vec<SteerCounter>,
}

impl Runner {
    pub(super) fn new(side: Side, entry: Entry) -> Self {
        let settings = SteerSettings {
            entry,
            ..SteerSettings::new(side, PORT, 1)
        };
        let program = SteerProgram::load("steering", &settings).unwrap();
        let mut runner = Self {
            program,
            tables: tables(),
            counters: Vec::new(),
        };
        runner.update();
        runner.counters = runner.program.counters().unwrap();
        runner
    }

    pub(super) fn update(&mut self) {
        self.program.update(&self.tables).unwrap();
    }

    /// What changed since the last call: outcome, packets, bytes.
    fn changes(&mut self) -> Vec<(Outcome, u64, u64)> {
        let now = self.program.counters().unwrap();
        let before = std::mem::replace(&mut self.counters, now.clone());
        now.iter()
            .zip(before)
            .filter(|(now, before)| *now != before)
            .map(|(now, before)| {
                (
                    now.outcome,
                    now.packets - before.packets,
                    now.bytes - before.bytes,
                )
            })
            .collect()
    }

    /// All frames and bytes over the decisions; what is counted beside them left out.
    pub(super) fn decided(&mut self) -> (u64, u64) {
        let beside = [Outcome::NoSocketPassed, Outcome::NoSocketDropped];
        self.changes()
            .into_iter()
            .filter(|(outcome, ..)| !beside.contains(outcome))
            .fold((0, 0), |(packets, bytes), (_, more, longer)| {
                (packets + more, bytes + longer)
            })
    }

    /// One row of a table: the action, the outcome, and no other counter.
    pub(super) fn run(&mut self, case: &Case) {
        let Case {
            name,
            frame,
            action,
            outcome,
        } = case;
        let got = self.program.test_run(frame).unwrap();
        let changes = self.changes();
        let entry = self.program.entry();
        let length = frame.len() as u64;
        let mut expected = vec![(*outcome, 1, length)];
        if outcome.name().starts_with("socket_") {
            let beside = if *action == PASS {
                Outcome::NoSocketPassed
            } else {
                Outcome::NoSocketDropped
            };
            expected.push((beside, 1, length));
        }
        assert_eq!((got, changes), (*action, expected), "{name} ({entry:?})");
    }
}
