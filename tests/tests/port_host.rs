//! The host port in a namespace of the real kernel: what workers send reaches the machine, what the
//! machine sends reaches a worker, and the device is as it should be and goes when we go. Needs
//! root.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ipsec::verdict::DropReason;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xipsec::port::bell::Bell;
use xipsec::port::host::{HostLink, HostPort, HostThread};

const NAME: &str = "xipsec0";
const PATIENCE: Duration = Duration::from_secs(5);

/// A namespace of its own for the calling thread.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(test: &str) -> Option<Self> {
        let name = format!("xh{}-{test}", std::process::id());
        let mut arguments = ["netns", "add", &name];
        if !rustix::process::geteuid().is_root() || !ip(&mut arguments) {
            let mut stderr = io::stderr();
            writeln!(stderr, "SKIPPED {test}: needs root and network namespaces").unwrap();
            return None;
        }
        let file = fs::File::open(format!("/run/netns/{name}")).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        Some(Self { name })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&mut ["netns", "del", &self.name]);
    }
}

/// In the namespace of the calling thread.
fn ip(arguments: &mut [&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

fn setting(path: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap();
    text.trim().to_owned()
}

fn connect(port: &HostPort, workers: usize) -> (HostThread, Vec<HostLink>, Vec<Arc<Bell>>) {
    let bells: Vec<_> = (0..workers)
        .map(|_| Arc::new(Bell::new().unwrap()))
        .collect();
    let (thread, links) = port.connect(bells.clone()).unwrap();
    (thread, links, bells)
}

/// An ICMP echo request from 10.8.0.2 to 10.8.0.1.
fn echo_request(number: u16) -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 8, 0, 2, 10, 8, 0, 1,
    ];
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut message = vec![8, 0, 0, 0, 0x12, 0x34];
    message.extend(number.to_be_bytes());
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet.extend(message);
    packet
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

#[test]
fn the_machine_answers_a_ping_through_the_device() {
    let Some(_namespace) = Namespace::new("ping") else {
        return;
    };
    let port = HostPort::open(NAME).unwrap();
    assert!(ip(&mut ["address", "add", "10.8.0.1/24", "dev", NAME]));
    let (mut thread, mut links, bells) = connect(&port, 2);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let counters = thread.counters();
    // The interface may have something of its own to say first.
    thread.turn();
    std::thread::scope(|scope| {
        let bell = thread.bell();
        scope.spawn(|| thread.run(&stop));
        for number in 0..500 {
            // Both ends sleep in between, so the bells do their part.
            bells.iter().for_each(|bell| bell.prepare_to_sleep());
            links[usize::from(number % 2)]
                .send_copy(&echo_request(number))
                .unwrap();
            links[usize::from(number % 2)].flush();
            let reply = await_reply(&mut links, &bells);
            assert_eq!(reply[9], 1, "ICMP");
            assert_eq!(reply[20], 0, "echo reply");
            assert_eq!(reply[26..28], number.to_be_bytes());
        }
        stop.store(true, Ordering::Relaxed);
        bell.ring();
    });
    assert_eq!(counters.written.load(Ordering::Relaxed), 500);
    assert_eq!(counters.refused.load(Ordering::Relaxed), 0);
}

fn await_reply(links: &mut [HostLink], bells: &[Arc<Bell>]) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for link in links.iter_mut() {
            while let Some(packet) = link.receive() {
                let bytes = packet.bytes().to_vec();
                link.release(packet);
                if bytes[0] == 0x45 {
                    bells.iter().for_each(|bell| bell.awake());
                    return bytes;
                }
            }
        }
        assert!(Instant::now() < deadline, "no answer");
        let mut fds: Vec<_> = bells
            .iter()
            .map(|bell| PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN))
            .collect();
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            }),
        )
        .unwrap();
        bells.iter().for_each(|bell| bell.awake());
        bells.iter().for_each(|bell| bell.prepare_to_sleep());
    }
}

#[test]
fn a_full_queue_says_so_in_both_directions() {
    let Some(_namespace) = Namespace::new("full") else {
        return;
    };
    let port = HostPort::open(NAME).unwrap();
    assert!(ip(&mut ["address", "add", "10.8.0.1/24", "dev", NAME]));
    let (mut thread, mut links, _bells) = connect(&port, 1);
    let link = &mut links[0];
    let mut sent = 0_u16;
    let end = loop {
        match link.send_copy(&echo_request(sent)) {
            Ok(()) => sent += 1,
            Err(reason) => break reason,
        }
    };
    assert_eq!((sent, end), (256, DropReason::HostFull));
    // The answers of two full queues, and only one is taken off.
    while thread.turn() > 0 {}
    (0..256).for_each(|number| link.send_copy(&echo_request(number)).unwrap());
    while thread.turn() > 0 {}
    let counters = thread.counters();
    let full = counters.full.load(Ordering::Relaxed);
    assert!(full >= 256, "{full}");
    assert_eq!(counters.read.load(Ordering::Relaxed), 256 + full);
    let mut taken = 0;
    while let Some(packet) = link.receive() {
        taken += 1;
        link.release(packet);
    }
    assert_eq!(taken, 256);
    let unused = link.allocate().unwrap();
    link.discard(unused);
    assert_eq!(
        link.send_copy(&[0; 20_000]).unwrap_err(),
        DropReason::Unsupported
    );
}

#[test]
fn the_device_is_bare_and_goes_with_us() {
    let Some(_namespace) = Namespace::new("bare") else {
        return;
    };
    let port = HostPort::open(NAME).unwrap();
    assert_eq!(port.name(), NAME);
    assert!(port.index() > 0);
    assert_eq!(setting(&format!("ipv4/conf/{NAME}/rp_filter")), "2");
    assert_eq!(setting(&format!("ipv6/conf/{NAME}/addr_gen_mode")), "1");
    let show = Command::new("ip")
        .args(["address", "show", "dev", NAME])
        .output()
        .unwrap();
    let text = String::from_utf8(show.stdout).unwrap();
    assert!(!text.contains("inet6"), "{text}");
    assert!(text.contains("UP"), "{text}");
    port.set_mtu(1400).unwrap();
    let show = Command::new("ip")
        .args(["link", "show", "dev", NAME])
        .output()
        .unwrap();
    assert!(String::from_utf8(show.stdout).unwrap().contains("mtu 1400"));
    let busy = HostPort::open(NAME).unwrap_err().to_string();
    assert_eq!(
        busy,
        "host port xipsec0: another process holds it (stop the other gateway or choose another \
         host_port)"
    );
    drop(port);
    assert!(!ip(&mut ["link", "show", "dev", NAME]));
}

#[test]
fn a_device_left_behind_is_taken_over_and_another_kind_refused() {
    let Some(_namespace) = Namespace::new("left") else {
        return;
    };
    assert!(ip(&mut ["tuntap", "add", "dev", NAME, "mode", "tun"]));
    let port = HostPort::open(NAME).unwrap();
    drop(port);
    assert!(!ip(&mut ["link", "show", "dev", NAME]), "it goes with us");
    assert!(ip(&mut ["link", "add", NAME, "type", "bridge"]));
    let error = HostPort::open(NAME).unwrap_err().to_string();
    assert!(
        error.contains("there is another kind of device with that name"),
        "{error}"
    );
    assert!(HostPort::open("tun%d").is_err());
    assert!(HostPort::open("").is_err());
}
