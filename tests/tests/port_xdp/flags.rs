//! Goal: busy polling and huge pages are what the flags say, not just options that are set. Method:
//! a queue whose interrupts are held back for seconds, and the kernel's own list of mappings.

use std::fs;
use std::time::{Duration, Instant};

use ipsec::limits::BATCH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use xipsec::port::settings::BusyPoll;
use xipsec::port::xdp::frame::Received;
use xipsec::port::xdp::huge_pages::Pool;
use xipsec::port::xdp::program::AttachMode;
use xipsec::port::xdp::{Choice, Opening, XdpPort};
use xipsec::port::{Burst, Frame, Port};

use crate::lab::{Lab, frame, number, skipped};
use crate::{PATIENCE, Ports, numbered, opening};

const BUSY: BusyPoll = BusyPoll {
    microseconds: 20,
    budget: 64,
};

fn busy(mode: AttachMode) -> Opening<'static> {
    Opening {
        busy_poll: Some(BUSY),
        ..opening(0, mode, false)
    }
}

/// The choice about busy polling, among what opening said.
fn told(choices: &[Choice]) -> &Choice {
    let mut about = choices.iter().filter(|choice| choice.what == "busy_poll");
    about.next().unwrap()
}

/// A frame shows itself at the socket within `limit`.
fn shows(port: &XdpPort, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    let socket = port.socket();
    let mut descriptors = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    poll(&mut descriptors, Some(&limit)).unwrap() > 0
}

#[test]
fn with_interrupts_held_back_frames_come_by_busy_polling_alone() {
    const TEST: &str = "with_interrupts_held_back_frames_come_by_busy_polling_alone";
    let Some(lab) = Lab::new(TEST, 1, 1500) else {
        return;
    };
    let mut ports = Ports::open_as(&busy(AttachMode::Native));
    ports.exchange(&lab, &numbered(10, 60));
    let napi = ports.queues[0].polled().unwrap();
    if napi.number() == Some(0) {
        skipped(TEST, "a veth of this kernel tells no NAPI");
        return;
    }
    // Longer than the test waits for any frame.
    lab.write("napi_defer_hard_irqs", "100");
    lab.write("gro_flush_timeout", "4000000000");
    ports.exchange(&lab, &numbered(5000, 60));
    let port = &mut ports.queues[0];
    assert!(lab.peer.send(&frame(7, 60)));
    assert!(
        !shows(port, Duration::from_millis(300)),
        "an interrupt brought it: nothing is polled"
    );
    let mut burst: Burst<Received> = Burst::new();
    let began = Instant::now();
    while burst.is_empty() && began.elapsed() < PATIENCE {
        port.receive(&mut burst, BATCH);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{began:?}");
    assert_eq!(number(burst[0].bytes()), 7);
    burst.into_iter().for_each(|frame| port.release(frame));
}

#[test]
fn a_driver_that_tells_no_napi_is_left_to_its_interrupts() {
    const TEST: &str = "a_driver_that_tells_no_napi_is_left_to_its_interrupts";
    let Some(lab) = Lab::new(TEST, 1, 1500) else {
        return;
    };
    let mut ports = Ports::open_as(&busy(AttachMode::Native));
    let napi = ports.queues[0].polled().unwrap();
    assert_eq!(napi.number(), None, "nothing has come yet");
    ports.exchange(&lab, &numbered(1000, 60));
    if napi.number() != Some(0) {
        skipped(TEST, "a veth of this kernel tells its NAPI");
    }
}

#[test]
fn busy_polling_that_does_nothing_or_little_says_so() {
    let Some(lab) = Lab::new("busy_polling_that_does_nothing_or_little_says_so", 1, 1500) else {
        return;
    };
    let (port, choices) = XdpPort::open(&busy(AttachMode::Generic)).unwrap();
    assert_eq!(
        told(&choices).to_string(),
        "busy_poll: off (asked: on; generic XDP tells no socket which NAPI to poll: interrupts go \
         on)"
    );
    drop(port);
    // This thread's sysfs is that of another network namespace: nothing of it is told as wan0's.
    let (port, choices) = XdpPort::open(&busy(AttachMode::Native)).unwrap();
    assert_eq!(
        told(&choices).to_string(),
        "busy_poll: on (asked: on; 20 microseconds, 64 packets at once; napi_defer_hard_irqs and \
         gro_flush_timeout cannot be read here)"
    );
    drop(port);
    drop(lab);
}

#[test]
fn busy_polling_that_the_kernel_refuses_is_refused() {
    let Some(_lab) = Lab::new("busy_polling_that_the_kernel_refuses_is_refused", 1, 1500) else {
        return;
    };
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    // Of this thread alone, which ends with the test.
    set_capabilities(None, sets).unwrap();
    assert_eq!(
        XdpPort::open(&busy(AttachMode::Native))
            .unwrap_err()
            .to_string(),
        "wan0: busy_poll: the kernel refuses: Operation not permitted (os error 1) (grant \
         CAP_NET_ADMIN, take a kernel with CONFIG_NET_RX_BUSY_POLL=y, or leave busy_poll out)"
    );
}

#[test]
fn packet_memory_lies_in_huge_pages() {
    const TEST: &str = "packet_memory_lies_in_huge_pages";
    let Some(lab) = Lab::new(TEST, 1, 1500) else {
        return;
    };
    let mut opening = opening(0, AttachMode::Native, false);
    opening.umem.huge_pages = true;
    // 4 MiB.
    opening.umem.frames = 1024;
    let checked = Pool::of_machine().and_then(|pool| pool.check(opening.umem, 1));
    if let Err(why) = checked {
        skipped(TEST, &why.to_string());
        return;
    }
    let mut ports = Ports::open_as(&opening);
    let mappings = fs::read_to_string("/proc/self/smaps").unwrap();
    let huge = |line: &&str| line.starts_with("KernelPageSize:") && !line.ends_with(" 4 kB");
    assert!(mappings.lines().any(|line| huge(&line)), "{mappings}");
    ports.exchange(&lab, &numbered(5000, 1514));
}

#[test]
fn missing_huge_pages_are_missed_at_the_socket_too() {
    let Some(_lab) = Lab::new("missing_huge_pages", 1, 1500) else {
        return;
    };
    let mut opening = opening(0, AttachMode::Native, false);
    // 64 GiB of them.
    opening.umem.frames = 1 << 24;
    opening.umem.huge_pages = true;
    assert_eq!(
        XdpPort::open(&opening).unwrap_err().to_string(),
        "wan0 queue 0: making packet memory: no huge pages are left (raise the sysctl \
         vm.nr_hugepages, or umem.huge_pages = false)"
    );
}
