//! AF_XDP ports on a veth of the real kernel: frames in are frames out, in native and generic mode,
//! and whatever goes wrong leaves every frame accounted for and says what to do. Needs root.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "port_xdp/flags.rs"]
mod flags;
#[path = "port_xdp/lab.rs"]
mod lab;
#[path = "port_xdp/redirect.rs"]
mod redirect;

use std::time::{Duration, Instant};

use ipsec::limits::BATCH;
use ipsec::verdict::DropReason;
use lab::{Lab, frame, number, skipped};
use redirect::Redirect;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use xipsec::port::settings::{Rings, Side, Umem, ZeroCopy};
use xipsec::port::xdp::frame::Received;
use xipsec::port::xdp::offload::Offloads;
use xipsec::port::xdp::probe::Facts;
use xipsec::port::xdp::program::{AttachMode, Entry, SteerProgram, SteerSettings};
use xipsec::port::xdp::{Opening, PortError, XdpPort};
use xipsec::port::{Buffer, Burst, Frame, Port};

const PATIENCE: Duration = Duration::from_secs(5);
const INSTANT: Duration = Duration::ZERO;

fn opening(queue: u32, mode: AttachMode, frags: bool) -> Opening<'static> {
    Opening {
        interface: "wan0",
        queue,
        attachment: mode,
        zero_copy: ZeroCopy::Auto,
        rings: Rings::default(),
        umem: Umem::default(),
        busy_poll: None,
        frags,
    }
}

/// The port `wan0` with all its queues.
struct Ports {
    queues: Vec<XdpPort>,
    received: Vec<u64>,
    _redirect: Redirect,
    _offloads: Offloads,
}

impl Ports {
    fn open(mode: AttachMode, frags: bool) -> Self {
        Self::open_as(&opening(0, mode, frags))
    }

    fn open_as(asked: &Opening<'_>) -> Self {
        let (mode, frags) = (asked.attachment, asked.frags);
        let facts = Facts::probe("wan0").unwrap();
        let (offloads, _) = Offloads::switch_off("wan0", mode).unwrap();
        let redirect = Redirect::attach(facts.index, mode, frags).unwrap();
        let queues: Vec<_> = (0..facts.receive_queues)
            .map(|queue| {
                let opening = Opening {
                    queue,
                    ..asked.clone()
                };
                let (port, _) = XdpPort::open(&opening).unwrap();
                redirect.insert(queue, port.socket()).unwrap();
                port
            })
            .collect();
        Self {
            received: vec![0; queues.len()],
            queues,
            _redirect: redirect,
            _offloads: offloads,
        }
    }

    /// Sends everything that waits back where it came from.
    fn echo(&mut self) {
        for (port, received) in self.queues.iter_mut().zip(&mut self.received) {
            let mut burst: Burst<Received> = Burst::new();
            port.receive(&mut burst, BATCH);
            *received += burst.len() as u64;
            for frame in burst {
                let length = frame.bytes().len();
                let mut buffer = port.allocate(length).unwrap();
                assert!(port.ledger().balances());
                buffer.room()[..length].copy_from_slice(frame.bytes());
                port.transmit(buffer, length);
                assert!(port.ledger().balances());
                port.release(frame);
                assert!(port.ledger().balances());
            }
            port.flush();
            assert!(port.ledger().balances());
        }
    }

    /// Every one of `frames` comes back as it was sent, those of one flow in order.
    fn exchange(&mut self, lab: &Lab, frames: &[Vec<u8>]) {
        for batch in frames.chunks(BATCH) {
            for frame in batch {
                assert!(lab.peer.send(frame));
            }
            let deadline = Instant::now() + PATIENCE;
            let mut returned = Vec::new();
            while returned.len() < batch.len() {
                self.echo();
                while let Some(frame) = lab.peer.receive(INSTANT) {
                    returned.push(frame);
                }
                assert!(Instant::now() < deadline, "{} came back", returned.len());
            }
            returned.sort_by_key(|frame| number(frame));
            assert!(returned == batch, "frames came back changed");
        }
        self.echo();
        for port in &self.queues {
            assert!(port.ledger().is_home());
        }
    }
}

fn numbered(count: u32, length: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| frame(number, length)).collect()
}

#[test]
fn frames_come_back_in_native_mode() {
    let Some(lab) = Lab::new("frames_come_back_in_native_mode", 1, 1500) else {
        return;
    };
    let mut ports = Ports::open(AttachMode::Native, false);
    ports.exchange(&lab, &numbered(10_000, 60));
    ports.exchange(&lab, &numbered(1000, 1514));
}

#[test]
fn frames_come_back_in_generic_mode() {
    let Some(lab) = Lab::new("frames_come_back_in_generic_mode", 1, 1500) else {
        return;
    };
    let mut ports = Ports::open(AttachMode::Generic, false);
    ports.exchange(&lab, &numbered(10_000, 60));
    ports.exchange(&lab, &numbered(1000, 1514));
}

#[test]
fn every_queue_has_its_socket() {
    let Some(lab) = Lab::new("every_queue_has_its_socket", 2, 1500) else {
        return;
    };
    let mut ports = Ports::open(AttachMode::Native, false);
    assert_eq!(ports.queues.len(), 2);
    ports.exchange(&lab, &numbered(4096, 100));
    assert!(
        ports.received.iter().all(|&count| count > 0),
        "{:?}",
        ports.received
    );
    assert_eq!(ports.received.iter().sum::<u64>(), 4096);
}

#[test]
fn jumbo_packets_are_whole_in_between() {
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let Some(lab) = Lab::new("jumbo_packets_are_whole_in_between", 1, 9000) else {
            return;
        };
        let facts = Facts::probe("wan0").unwrap();
        assert!(facts.needs_frags());
        facts.check_mtu(mode).unwrap();
        let mut ports = Ports::open(mode, true);
        // One frame, one byte more, two frames, and the largest.
        for length in [60, 3839, 3840, 3841, 7680, 7681, 9014] {
            ports.exchange(&lab, &numbered(200, length));
        }
    }
}

#[test]
fn a_packet_of_more_than_five_pieces_is_counted_as_unsupported() {
    let Some(lab) = Lab::new("a_packet_of_more_than_five_pieces", 1, 9000) else {
        return;
    };
    let facts = Facts::probe("wan0").unwrap();
    let redirect = Redirect::attach(facts.index, AttachMode::Native, true).unwrap();
    let mut opening = opening(0, AttachMode::Native, true);
    opening.umem.frame_size = 2048;
    let (mut port, _) = XdpPort::open(&opening).unwrap();
    redirect.insert(0, port.socket()).unwrap();
    assert_eq!(port.allocate(9014).unwrap_err(), DropReason::Unsupported);
    assert!(lab.peer.send(&frame(0, 9014)));
    assert!(lab.peer.send(&frame(1, 100)));
    let mut burst: Burst<Received> = Burst::new();
    let deadline = Instant::now() + PATIENCE;
    while burst.is_empty() {
        port.receive(&mut burst, BATCH);
        assert!(port.ledger().balances());
        assert!(Instant::now() < deadline);
    }
    assert_eq!(number(burst[0].bytes()), 1);
    assert_eq!(
        port.take_losses().by_reason()[0],
        (DropReason::Unsupported, 1)
    );
    burst.into_iter().for_each(|frame| port.release(frame));
    assert!(port.ledger().is_home());
}

#[test]
fn a_plain_program_is_refused_on_a_jumbo_port() {
    let Some(_lab) = Lab::new("a_plain_program_is_refused_on_a_jumbo_port", 1, 9000) else {
        return;
    };
    let facts = Facts::probe("wan0").unwrap();
    assert!(Redirect::attach(facts.index, AttachMode::Native, false).is_err());
    let line = facts.no_frags("the driver refuses a program for them".to_owned());
    assert_eq!(
        line.to_string(),
        "wan0: MTU 9000 is over 3500, and packets of several frames (frags) are missing: the \
         driver refuses a program for them (ip link set wan0 mtu 3500)"
    );
}

#[test]
fn a_flood_fills_the_ring_and_loses_no_frame_of_ours() {
    let Some(lab) = Lab::new("a_flood_fills_the_ring", 1, 1500) else {
        return;
    };
    let mut ports = Ports::open(AttachMode::Native, false);
    let ring = Rings::default().rx;
    // Nobody takes them: one ring of frames arrives, the kernel counts the rest.
    let flood = numbered(2 * ring, 60);
    flood.iter().for_each(|frame| assert!(lab.peer.send(frame)));
    let deadline = Instant::now() + PATIENCE;
    let full = |ports: &Ports| ports.queues[0].statistics().unwrap().rx_ring_full > 0;
    while !full(&ports) {
        assert!(
            Instant::now() < deadline,
            "{:?}",
            ports.queues[0].statistics()
        );
    }
    // Half of them before their turn, so that the transmit side overflows as well.
    let port = &mut ports.queues[0];
    let mut held = Vec::new();
    while held.len() < ring as usize {
        let mut burst: Burst<Received> = Burst::new();
        port.receive(&mut burst, BATCH);
        assert!(!burst.is_empty());
        held.extend(burst);
        assert!(port.ledger().balances());
    }
    assert!(!port.ledger().is_home());
    held.into_iter().for_each(|frame| port.release(frame));
    let transmit = Rings::default().tx as usize;
    let buffers: Vec<_> = (0..transmit).map(|_| port.allocate(60).unwrap()).collect();
    assert_eq!(port.allocate(60).unwrap_err(), DropReason::TxFull);
    for mut buffer in buffers {
        buffer.room()[..60].copy_from_slice(&flood[0]);
        port.transmit(buffer, 60);
        assert!(port.ledger().balances());
    }
    while port.flush() {
        assert!(port.ledger().balances());
    }
    assert!(port.ledger().is_home());
    while lab.peer.receive(Duration::from_millis(100)).is_some() {}
    ports.exchange(&lab, &numbered(1000, 60));
}

#[test]
fn a_queue_opens_again_right_after_its_close() {
    let Some(lab) = Lab::new("a_queue_opens_again_right_after_its_close", 1, 1500) else {
        return;
    };
    for _ in 0..10 {
        let mut ports = Ports::open(AttachMode::Native, false);
        ports.exchange(&lab, &numbered(64, 60));
    }
}

#[test]
fn a_token_outlives_its_port() {
    let Some(lab) = Lab::new("a_token_outlives_its_port", 1, 1500) else {
        return;
    };
    let mut ports = Ports::open(AttachMode::Native, false);
    let sent = frame(7, 1000);
    assert!(lab.peer.send(&sent));
    let mut burst: Burst<Received> = Burst::new();
    let deadline = Instant::now() + PATIENCE;
    while burst.is_empty() {
        ports.queues[0].receive(&mut burst, BATCH);
        assert!(Instant::now() < deadline);
    }
    drop(ports);
    assert_eq!(burst[0].bytes(), sent);
    burst[0].bytes_mut().fill(0);
}

#[test]
fn a_queue_in_use_and_an_occupied_hook_are_named() {
    let Some(_lab) = Lab::new("a_queue_in_use_and_an_occupied_hook", 1, 1500) else {
        return;
    };
    let facts = Facts::probe("wan0").unwrap();
    let _redirect = Redirect::attach(facts.index, AttachMode::Native, false).unwrap();
    let settings = SteerSettings {
        entry: Entry::RedirectAll,
        ..SteerSettings::new(Side::Unprotected, facts.mac, 1)
    };
    let mut second = SteerProgram::load("wan0", &settings).unwrap();
    let line = second.attach(AttachMode::Native).unwrap_err().to_string();
    assert!(
        line.starts_with("wan0: its XDP hook is taken by program "),
        "{line}"
    );
    let opening = opening(0, AttachMode::Native, false);
    let (_port, _) = XdpPort::open(&opening).unwrap();
    let began = Instant::now();
    let line = XdpPort::open(&opening).unwrap_err().to_string();
    assert!(
        line.starts_with("wan0 queue 0: binding an AF_XDP socket: another AF_XDP socket"),
        "{line}"
    );
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_missing_interface_or_queue_is_named() {
    let Some(_lab) = Lab::new("a_missing_interface_or_queue_is_named", 1, 1500) else {
        return;
    };
    let missing = PortError::NoInterface("wan9".to_owned());
    assert_eq!(Facts::probe("wan9").unwrap_err(), missing);
    assert!(XdpPort::open(&opening(7, AttachMode::Native, false)).is_err());
}

#[test]
fn without_privileges_the_line_names_the_capabilities() {
    let Some(_lab) = Lab::new("without_privileges", 1, 1500) else {
        return;
    };
    let mut sets = capabilities(None).unwrap();
    sets.effective
        .remove(CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN);
    // Of this thread alone, which ends with the test.
    set_capabilities(None, sets).unwrap();
    let line = XdpPort::open(&opening(0, AttachMode::Native, false)).unwrap_err();
    assert_eq!(
        line.to_string(),
        "wan0 queue 0: making packet memory: not permitted (run as root or with \
         CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK)"
    );
}

#[test]
fn what_cannot_be_a_port_is_refused_by_its_kind() {
    const TEST: &str = "what_cannot_be_a_port_is_refused_by_its_kind";
    let Some(lab) = Lab::new(TEST, 1, 1500) else {
        return;
    };
    let macvlan = [
        "link", "add", "name", "mac0", "link", "wan0", "type", "macvlan",
    ];
    let vlan = [
        "link", "add", "name", "vlan0", "link", "wan0", "type", "vlan", "id", "5",
    ];
    let kinds: [(&str, &[&str], &str); 6] = [
        ("br0", &["link", "add", "br0", "type", "bridge"], "a bridge"),
        ("mac0", &macvlan, "a macvlan"),
        ("vlan0", &vlan, "a VLAN"),
        ("bond0", &["link", "add", "bond0", "type", "bond"], "a bond"),
        ("team0", &["link", "add", "team0", "type", "team"], "a team"),
        (
            "tun0",
            &["tuntap", "add", "dev", "tun0", "mode", "tun"],
            "a TUN",
        ),
    ];
    for (name, command, expected) in kinds {
        if !lab.ip(command) {
            skipped(TEST, &format!("this kernel makes no {expected}"));
            continue;
        }
        let error = Facts::probe(name).unwrap_err();
        let start = format!("{name}: {expected} cannot be a port (");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
    let error = Facts::probe("lo").unwrap_err().to_string();
    assert!(
        error.starts_with("lo: the loopback cannot be a port"),
        "{error}"
    );
    assert!(lab.ip(&["tuntap", "add", "dev", "tap0", "mode", "tap"]));
    assert_eq!(Facts::probe("tap0").unwrap().driver, "tun");
}

#[test]
fn facts_and_offloads_of_a_veth() {
    let Some(_lab) = Lab::new("facts_and_offloads_of_a_veth", 2, 1500) else {
        return;
    };
    let facts = Facts::probe("wan0").unwrap();
    assert_eq!(
        (facts.driver.as_str(), facts.mtu, facts.up),
        ("veth", 1500, true)
    );
    assert_eq!((facts.receive_queues, facts.transmit_queues), (2, 2));
    assert!(facts.may_carry_unfinished_checksums(AttachMode::Native));
    assert!(!facts.needs_frags());
    let switch_off = || {
        let (offloads, choices) = Offloads::switch_off("wan0", AttachMode::Generic).unwrap();
        (
            offloads,
            choices
                .into_iter()
                .map(|choice| choice.what)
                .collect::<Vec<_>>(),
        )
    };
    let (offloads, first) = switch_off();
    assert!(first.contains(&"rx-vlan-offload"), "{first:?}");
    // All off: nothing is left to switch.
    let (_, second) = switch_off();
    assert_eq!(second, [""; 0]);
    drop(offloads);
    let (_, third) = switch_off();
    assert_eq!(third, first, "restored");
}

#[test]
fn choices_say_what_came_of_what_was_asked() {
    let Some(_lab) = Lab::new("choices_say_what_came_of_what_was_asked", 1, 1500) else {
        return;
    };
    let mut opening = opening(0, AttachMode::Native, false);
    let (_port, choices) = XdpPort::open(&opening).unwrap();
    assert_eq!(
        choices[0].to_string(),
        "zero_copy: off (asked: auto; the driver has no zero copy: Operation not supported \
         (os error 95))"
    );
    opening.zero_copy = ZeroCopy::On;
    drop(_port);
    assert_eq!(
        XdpPort::open(&opening).unwrap_err().to_string(),
        "wan0: zero_copy = \"on\": the driver has no zero copy: Operation not supported \
         (os error 95) (zero_copy = \"auto\")"
    );
}
