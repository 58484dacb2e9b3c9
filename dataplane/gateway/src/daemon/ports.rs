//! Opens the ports: facts, offloads, program, sockets. Every automatic choice is kept with its
//! reason, printed once, and shown by `port list`.

use std::fmt;

use crate::config::{Dataplane, PortConfig};
use crate::control::protocol::Choice;
use crate::daemon::cores;
use crate::port::settings::{Checksum, XdpMode};
use crate::port::xdp::offload::Offloads;
use crate::port::xdp::probe::Facts;
use crate::port::xdp::program::{AttachMode, Entry, SteerProgram, SteerSettings};
use crate::port::xdp::{self, Attachment, Napi, Opening, PortError, XdpPort};
use crate::route::PortIndex;

/// One open port: its program and what was chosen. Its sockets belong to the workers.
pub struct OpenPort {
    /// The interface's name.
    pub name: String,
    /// What the kernel says of it.
    pub facts: Facts,
    /// The steering program. Dropped before the offloads: the hook is free before they change.
    pub program: SteerProgram,
    /// Kernel's number of the program.
    pub program_id: u32,
    /// Checksums are completed on receipt.
    pub complete_checksums: bool,
    /// Automatic choices at the start.
    pub choices: Vec<Choice>,
    /// With busy polling: what each queue polls.
    polled: Vec<Napi>,
    _offloads: Offloads,
}

impl OpenPort {
    /// The choices as they are now: whether busy polling polls shows with the first frames.
    #[must_use]
    pub fn choices_now(&self) -> Vec<Choice> {
        let mut choices = self.choices.clone();
        let told = polling(&self.polled, &self.facts.driver);
        for choice in &mut choices {
            if choice.what == "busy_poll"
                && let Some((got, why)) = &told
            {
                choice.got = (*got).to_owned();
                choice.why = format!("{why}; {}", choice.why);
            }
        }
        choices
    }
}

/// What became of busy polling on queues of that driver, and why. Nothing without frames.
fn polling(queues: &[Napi], driver: &str) -> Option<(&'static str, String)> {
    let numbers: Vec<u32> = queues.iter().filter_map(Napi::number).collect();
    let polled = numbers.iter().filter(|number| **number > 0).count();
    if numbers.is_empty() {
        return None;
    }
    if polled == 0 {
        let why = format!("{driver} tells this kernel no NAPI to poll: interrupts go on");
        return Some(("off", why));
    }
    let total = queues.len();
    Some(("on", format!("{polled} of {total} queues are polled")))
}

/// One socket, with its queue's number.
pub struct OpenQueue {
    /// Which port.
    pub port: PortIndex,
    /// Which of its queues.
    pub queue: u32,
    /// The socket.
    pub socket: XdpPort,
}

/// Asks the kernel about every port.
///
/// # Errors
/// The first refusal.
pub fn probe(ports: &[PortConfig]) -> Result<Vec<Facts>, PortError> {
    ports.iter().map(|port| Facts::probe(&port.name)).collect()
}

/// Attaches the program of one port and opens a socket on each of its queues. The program gets the
/// sockets, but no tables yet: everything passes to the kernel until they come. `cores`: those of
/// the workers.
///
/// # Errors
/// One clear line.
pub fn open(
    index: PortIndex,
    config: &PortConfig,
    facts: Facts,
    dataplane: &Dataplane,
    cores: &[usize],
) -> Result<(OpenPort, Vec<OpenQueue>), String> {
    facts.check_frames(dataplane.umem).map_err(text)?;
    let mut choices = Vec::new();
    let queues = facts.receive_queues;
    let entry = if facts.needs_frags() {
        Entry::Frags
    } else {
        Entry::Plain
    };
    let settings = SteerSettings {
        entry,
        ..SteerSettings::new(config.side, facts.mac, queues)
    };
    let mut program = SteerProgram::load(&config.name, &settings).map_err(text)?;
    let (attachment, why) = attach(&mut program, &facts, dataplane.xdp_mode)?;
    choices.push(Choice {
        what: "xdp_mode".to_owned(),
        asked: mode_name(dataplane.xdp_mode).to_owned(),
        got: attachment_name(attachment).to_owned(),
        why,
    });
    let (offloads, switched) = Offloads::switch_off(&config.name, attachment).map_err(text)?;
    choices.extend(switched.iter().map(choice));
    let (mut open, mut polled) = (Vec::new(), Vec::new());
    for queue in 0..queues {
        let opening = Opening {
            interface: &config.name,
            queue,
            attachment,
            zero_copy: dataplane.zero_copy,
            rings: dataplane.rings,
            umem: dataplane.umem,
            busy_poll: dataplane.busy_poll,
            frags: entry == Entry::Frags,
        };
        let (socket, chosen) = open_near(&opening, cores)?;
        if queue == 0 {
            choices.extend(chosen.iter().map(choice));
        }
        program
            .insert_socket(queue, socket_of(&socket))
            .map_err(text)?;
        polled.extend(socket.polled());
        open.push(OpenQueue {
            port: index,
            queue,
            socket,
        });
    }
    let (complete_checksums, checksum_choice) = checksums(config.checksum, &facts, attachment);
    choices.push(checksum_choice);
    let program_id = program.id().unwrap_or(0);
    let port = OpenPort {
        name: config.name.clone(),
        facts,
        program,
        program_id,
        complete_checksums,
        choices,
        polled,
        _offloads: offloads,
    };
    Ok((port, open))
}

/// Opens a socket whose memory lies near the core of the worker that serves it.
fn open_near(
    opening: &Opening<'_>,
    cores: &[usize],
) -> Result<(XdpPort, Vec<xdp::Choice>), String> {
    let core = cores[opening.queue as usize % cores.len()];
    let opened = cores::near(core, cores::nodes(), || XdpPort::open(opening));
    opened.map_err(text)?.map_err(text)
}

fn socket_of(socket: &XdpPort) -> std::os::fd::BorrowedFd<'_> {
    socket.socket()
}

/// Attaches in the mode that was asked for; `auto` falls back to generic.
fn attach(
    program: &mut SteerProgram,
    facts: &Facts,
    mode: XdpMode,
) -> Result<(Attachment, String), String> {
    let native = |program: &mut SteerProgram| {
        facts.check_mtu(Attachment::Native).map_err(text)?;
        program.attach(AttachMode::Native).map_err(text)
    };
    let generic = |program: &mut SteerProgram| {
        facts.check_mtu(Attachment::Generic).map_err(text)?;
        program.attach(AttachMode::Generic).map_err(text)
    };
    match mode {
        XdpMode::Native => native(program).map(|()| (Attachment::Native, asked())),
        XdpMode::Generic => generic(program).map(|()| (Attachment::Generic, asked())),
        XdpMode::Auto => match native(program) {
            Ok(()) => Ok((
                Attachment::Native,
                format!("driver {} has native XDP", facts.driver),
            )),
            // Told is the first refusal: the second follows from it.
            Err(why) => match generic(program) {
                Ok(()) => Ok((Attachment::Generic, why)),
                Err(_) => Err(why),
            },
        },
    }
}

fn checksums(asked_for: Checksum, facts: &Facts, attachment: Attachment) -> (bool, Choice) {
    let may = facts.may_carry_unfinished_checksums(attachment);
    let (complete, asked_name, why) = match asked_for {
        Checksum::Complete => (true, "complete", asked()),
        Checksum::Trust => (false, "trust", asked()),
        Checksum::Auto if may => (
            true,
            "auto",
            format!("{} may leave checksums unfinished", facts.driver),
        ),
        Checksum::Auto => (
            false,
            "auto",
            format!("{} finishes checksums", facts.driver),
        ),
    };
    let choice = Choice {
        what: "checksum".to_owned(),
        asked: asked_name.to_owned(),
        got: if complete { "complete" } else { "trust" }.to_owned(),
        why,
    };
    (complete, choice)
}

fn asked() -> String {
    "as configured".to_owned()
}

const fn mode_name(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Auto => "auto",
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
    }
}

const fn attachment_name(attachment: Attachment) -> &'static str {
    match attachment {
        Attachment::Native => "native",
        Attachment::Generic => "generic",
    }
}

fn choice(choice: &xdp::Choice) -> Choice {
    Choice {
        what: choice.what.to_owned(),
        asked: choice.asked.to_owned(),
        got: choice.got.to_owned(),
        why: choice.why.clone(),
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}
