//! The programs on a veth, in a namespace of the test's own: both modes, both entries, one hook.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xipsec::port::settings::Side;
use xipsec::port::xdp::program::{AttachMode, Entry, ProgramError, SteerProgram, SteerSettings};
use xipsec_abi::Outcome;

use super::{frames, skip, world};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A namespace with the veth pair `port` (two receive queues) and `peer`; deleted when dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self(format!("xsteer{}-{count}", std::process::id()));
        ip(&format!("netns add {}", namespace.0));
        namespace.ip(
            "link add port address 02:00:00:00:00:01 numrxqueues 2 numtxqueues 2 type veth peer \
             name peer address 02:00:00:00:00:02 numrxqueues 2 numtxqueues 2",
        );
        namespace.ip("link set port up");
        namespace.ip("link set peer up");
        namespace
    }

    fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.0))
    }

    /// Runs `test` on a thread that lives in the namespace.
    fn run(&self, test: impl FnOnce() + Send) {
        let file = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&file),
                    Some(LinkNameSpaceType::Network),
                )
                .unwrap();
                test();
            });
            if let Err(panic) = inside.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns delete {}", self.0));
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn cannot_run(test: &str) -> bool {
    if Command::new("ip").arg("-V").output().is_err() {
        println!("SKIPPED {test}: needs ip (apt install iproute2)");
        return true;
    }
    skip(test)
}

fn load(entry: Entry) -> SteerProgram {
    let settings = SteerSettings {
        entry,
        ..SteerSettings::new(Side::Unprotected, frames::PORT, 2)
    };
    let mut program = SteerProgram::load("port", &settings).unwrap();
    program.update(&world::tables()).unwrap();
    program
}

#[test]
fn every_entry_attaches_in_either_mode_and_goes_with_its_owner() {
    if cannot_run("every_entry_attaches_in_either_mode_and_goes_with_its_owner") {
        return;
    }
    let namespace = Namespace::new();
    for (mode, shown) in [
        (AttachMode::Native, "prog/xdp "),
        (AttachMode::Generic, "xdpgeneric"),
    ] {
        for entry in [Entry::Plain, Entry::Frags, Entry::RedirectAll] {
            namespace.run(|| {
                let mut program = load(entry);
                program
                    .attach(mode)
                    .unwrap_or_else(|error| panic!("{entry:?} {mode:?}: {error}"));
                let link = namespace.ip("link show port");
                let id = format!("prog/xdp id {} ", program.id().unwrap());
                assert!(link.contains(&id), "{entry:?} {mode:?}: {link}");
                assert!(link.contains(shown), "{entry:?} {mode:?}: {link}");
                program.detach();
                assert!(!namespace.ip("link show port").contains("prog/xdp"));
                program.attach(mode).unwrap();
            });
            let link = namespace.ip("link show port");
            assert!(
                !link.contains("prog/xdp"),
                "{entry:?} {mode:?} stayed: {link}"
            );
        }
    }
}

/// Real frames through the driver: what is for the machine reaches it, and is counted.
#[test]
fn the_machine_stays_reachable_behind_the_program() {
    if cannot_run("the_machine_stays_reachable_behind_the_program") {
        return;
    }
    let (namespace, other) = (Namespace::new(), Namespace::new());
    other.ip("link delete peer");
    namespace.ip(&format!("link set peer netns {}", other.0));
    namespace.ip("address add 192.0.2.1/24 dev port");
    other.ip("address add 192.0.2.2/24 dev peer");
    other.ip("link set peer up");
    for mode in [AttachMode::Native, AttachMode::Generic] {
        namespace.run(|| {
            let mut program = load(Entry::Plain);
            program.attach(mode).unwrap();
            let ping = format!("netns exec {} ping -c 3 -i 0.1 -W 2 192.0.2.1", other.0);
            ip(&ping);
            let counters = program.counters().unwrap();
            let count = |outcome| -> u64 {
                let of_outcome = counters.iter().filter(|counter| counter.outcome == outcome);
                of_outcome.map(|counter| counter.packets).sum()
            };
            assert_eq!(count(Outcome::PassLocal), 3, "{mode:?}: {counters:?}");
            assert_eq!(count(Outcome::PassUnparsed), 0, "{mode:?}");
        });
    }
}

#[test]
fn an_occupied_hook_is_refused_by_name() {
    if cannot_run("an_occupied_hook_is_refused_by_name") {
        return;
    }
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut first = load(Entry::Plain);
        first.attach(AttachMode::Native).unwrap();
        let id = first.id().unwrap();
        for mode in [AttachMode::Native, AttachMode::Generic] {
            let error = load(Entry::Frags).attach(mode).unwrap_err();
            let ProgramError::Occupied {
                occupant: Some(occupant),
                ..
            } = &error
            else {
                panic!("{mode:?}: {error}");
            };
            assert_eq!((occupant.id, occupant.name.as_str()), (id, "xipsec_steer"));
            assert!(
                error
                    .to_string()
                    .contains(&format!("program {id} (xipsec_steer)")),
                "{error}"
            );
        }
        assert!(
            namespace
                .ip("link show port")
                .contains(&format!("prog/xdp id {id} "))
        );
    });
}

#[test]
fn what_the_interface_cannot_do_is_said() {
    if cannot_run("what_the_interface_cannot_do_is_said") {
        return;
    }
    let namespace = Namespace::new();
    namespace.run(|| {
        let settings = SteerSettings::new(Side::Protected, frames::PORT, 1);
        let mut nowhere = SteerProgram::load("nowhere", &settings).unwrap();
        let error = nowhere.attach(AttachMode::Native).unwrap_err();
        assert!(matches!(error, ProgramError::NoInterface { .. }), "{error}");

        let mut loopback = SteerProgram::load("lo", &settings).unwrap();
        let error = loopback.attach(AttachMode::Native).unwrap_err();
        assert!(matches!(error, ProgramError::Unsupported { .. }), "{error}");

        namespace.ip("link set port mtu 9000");
        namespace.ip("link set peer mtu 9000");
        let error = load(Entry::Plain).attach(AttachMode::Native).unwrap_err();
        assert!(matches!(error, ProgramError::Mtu { .. }), "{error}");
        load(Entry::Frags).attach(AttachMode::Native).unwrap();
    });
}
