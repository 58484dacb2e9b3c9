//! Opening a socket, with its fall-backs, and the port that it becomes.
#![expect(unsafe_code, reason = "one constructor of xsk-rs needs it")]

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use ipsec::verdict::DropReason;
use xsk_rs::Socket;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig};

use super::Choice;
use super::diagnose::{self, Operation, PortError, cause};
use super::frame::{Received, Slot, Transmit};
use super::napi::Napi;
use super::options;
use super::program::AttachMode;
use super::queue::{Kicks, Queue};
use super::rings::KernelQueues;
use super::umem::Memory;
use crate::port::settings::{BusyPoll, Rings, Umem, ZeroCopy};
use crate::port::{Burst, Ledger, Losses, Port};

/// How long a bind is repeated while the queue is still held: the kernel frees the socket of a
/// process that ended a moment ago only after a grace period.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// What a socket is to be.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    /// The interface's name.
    pub interface: &'a str,
    /// Its queue.
    pub queue: u32,
    /// How the program is attached: in generic mode there is no zero copy.
    pub attachment: AttachMode,
    /// What configuration asks for.
    pub zero_copy: ZeroCopy,
    /// Sizes of the rings.
    pub rings: Rings,
    /// Packet memory.
    pub umem: Umem,
    /// Busy polling; none: interrupts.
    pub busy_poll: Option<BusyPoll>,
    /// Packets of several frames; the program must be one for `frags`, the kernel at least 6.6.
    pub frags: bool,
}

/// What the kernel and the port counted on one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Received packets dropped, other than for the next two.
    pub rx_dropped: u64,
    /// Dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times that the fill ring was found empty.
    pub rx_fill_ring_empty: u64,
    /// Fill descriptors that the kernel found wrong.
    pub rx_invalid: u64,
    /// Transmit descriptors that the kernel found wrong.
    pub tx_invalid: u64,
    /// Times that the transmit ring was found empty.
    pub tx_ring_empty: u64,
    /// Of the transmit side.
    pub kicks: Kicks,
}

/// One queue of one interface.
#[derive(Debug)]
pub struct XdpPort {
    queue: Queue<KernelQueues>,
}

impl XdpPort {
    /// Opens and binds the socket and fills its fill ring, so that it may be put into the
    /// program's map. Says which choices were made.
    ///
    /// # Errors
    /// What the kernel refuses, explained. A queue that is busy is tried again for two seconds.
    pub fn open(opening: &Opening<'_>) -> Result<(Self, Vec<Choice>), PortError> {
        let deadline = Instant::now() + BUSY_LIMIT;
        let mut pause = Duration::from_millis(10);
        loop {
            match Self::open_once(opening) {
                Err(error) if error.is_busy() && Instant::now() + pause < deadline => {
                    thread::sleep(pause);
                    pause *= 2;
                }
                Err(error) => return Err(error.explain(opening)),
                Ok(opened) => return Ok(opened),
            }
        }
    }

    fn open_once(opening: &Opening<'_>) -> Result<(Self, Vec<Choice>), OpenError> {
        let mut choices = Vec::new();
        let (mut queues, slots) = bind_with_fall_back(opening, &mut choices)?;
        choices.push(options::raise_budget(queues.descriptor(), opening.rings.tx));
        if let Some(asked) = opening.busy_poll {
            let (socket, name) = (queues.descriptor(), opening.interface);
            let polled = options::poll_busily(socket, asked, opening.attachment, name);
            let (on, choice) = polled.map_err(OpenError::NoBusyPoll)?;
            if on {
                queues.poll_busily(options::napi_of(queues.descriptor()));
            }
            choices.push(choice);
        }
        let queue = Queue::new(queues, slots, opening.frags);
        Ok((Self { queue }, choices))
    }

    /// What was counted on this socket.
    ///
    /// # Errors
    /// What the kernel says when asked.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let kernel = self.queue.queues().statistics()?;
        Ok(Statistics {
            rx_dropped: kernel.rx_dropped(),
            rx_ring_full: kernel.rx_ring_full(),
            rx_fill_ring_empty: kernel.rx_fill_ring_empty_descs(),
            rx_invalid: kernel.rx_invalid_descs(),
            tx_invalid: kernel.tx_invalid_descs(),
            tx_ring_empty: kernel.tx_ring_empty_descs(),
            kicks: self.queue.kicks(),
        })
    }

    /// With busy polling: what is polled.
    #[must_use]
    pub fn polled(&self) -> Option<Napi> {
        self.queue.queues().polled().cloned()
    }

    /// The socket, for the program's map.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.queue.queues().descriptor()
    }
}

impl Drop for XdpPort {
    fn drop(&mut self) {
        // Somebody holds a token, whose address must stay good: rather lose the memory, and the
        // queue with it until the process ends.
        if !self.ledger().is_home() {
            self.queue.queues().leak_memory();
        }
    }
}

impl Port for XdpPort {
    type Received = Received;
    type Transmit = Transmit;

    fn receive(&mut self, burst: &mut Burst<Received>, limit: usize) {
        self.queue.receive(burst, limit);
    }

    fn release(&mut self, frame: Received) {
        self.queue.release(frame);
    }

    fn allocate(&mut self, length: usize) -> Result<Transmit, DropReason> {
        self.queue.allocate(length)
    }

    fn discard(&mut self, buffer: Transmit) {
        self.queue.discard(buffer);
    }

    fn transmit(&mut self, buffer: Transmit, length: usize) {
        self.queue.transmit(buffer, length);
    }

    fn flush(&mut self) -> bool {
        self.queue.flush()
    }

    fn take_losses(&mut self) -> Losses {
        self.queue.take_losses()
    }

    fn ledger(&self) -> Ledger {
        self.queue.ledger()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket())
    }
}

/// Where opening failed.
#[derive(Debug)]
enum OpenError {
    At(Operation, io::Error),
    NoZeroCopy(String),
    NoBusyPoll(io::Error),
}

impl OpenError {
    fn is_busy(&self) -> bool {
        matches!(self, Self::At(Operation::Bind, error)
            if error.kind() == io::ErrorKind::ResourceBusy)
    }

    fn explain(&self, opening: &Opening<'_>) -> PortError {
        match self {
            Self::At(operation, error) => {
                let name = format!("{} queue {}", opening.interface, opening.queue);
                if opening.umem.huge_pages && matches!(operation, Operation::Memory) {
                    return diagnose::explain_huge_pages(&name, error);
                }
                diagnose::explain(*operation, &name, error)
            }
            Self::NoZeroCopy(why) => PortError::ZeroCopy {
                name: opening.interface.to_owned(),
                why: why.clone(),
            },
            Self::NoBusyPoll(error) => PortError::BusyPoll {
                name: opening.interface.to_owned(),
                why: error.to_string(),
            },
        }
    }
}

type Bound = (KernelQueues, Vec<Slot>);

/// Zero copy where asked for and to be had, else copy.
fn bind_with_fall_back(
    opening: &Opening<'_>,
    choices: &mut Vec<Choice>,
) -> Result<Bound, OpenError> {
    let asked = match opening.zero_copy {
        ZeroCopy::Auto => "auto",
        ZeroCopy::On => "on",
        ZeroCopy::Off => "off",
    };
    let mut chosen = |got, why: String| {
        choices.push(Choice {
            what: "zero_copy",
            asked,
            got,
            why,
        });
    };
    let why = match (opening.zero_copy, opening.attachment) {
        (ZeroCopy::Off, _) => "as configured".to_owned(),
        (_, AttachMode::Generic) => "generic mode copies".to_owned(),
        _ => match bind(opening, BindFlags::XDP_ZEROCOPY) {
            Ok(bound) => {
                chosen("on", "the driver can".to_owned());
                return Ok(bound);
            }
            Err(error) if error.is_busy() => return Err(error),
            // Drivers refuse in many words. What is wrong with the port itself shows again below.
            Err(OpenError::At(Operation::Bind, error)) => {
                format!("the driver has no zero copy: {error}")
            }
            Err(error) => return Err(error),
        },
    };
    if opening.zero_copy == ZeroCopy::On {
        return Err(OpenError::NoZeroCopy(why));
    }
    let bound = bind(opening, BindFlags::XDP_COPY)?;
    chosen("off", why);
    Ok(bound)
}

/// Fresh memory and a socket bound to it: what a failed bind leaves of either is not built upon.
fn bind(opening: &Opening<'_>, copy: BindFlags) -> Result<Bound, OpenError> {
    let at = |operation| move |error| OpenError::At(operation, error);
    let invalid = |error| OpenError::At(Operation::Bind, io::Error::other(error));
    let (memory, slots) =
        Memory::new(opening.umem, opening.rings).map_err(at(Operation::Memory))?;
    let mut flags = copy | BindFlags::XDP_USE_NEED_WAKEUP;
    if opening.frags {
        flags |= BindFlags::XDP_USE_SG;
    }
    let config = SocketConfig::builder()
        .rx_queue_size(opening.rings.rx.try_into().map_err(invalid)?)
        .tx_queue_size(opening.rings.tx.try_into().map_err(invalid)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flags)
        .build();
    let interface: Interface = opening
        .interface
        .parse()
        .map_err(|error| OpenError::At(Operation::Bind, io::Error::other(error)))?;
    // SAFETY: the memory was made for this socket and is shared with no other, and libxdp loads no
    // program.
    let socket = unsafe { Socket::new(config, memory.umem(), &interface, opening.queue) };
    let (transmit, receive, rings) = socket.map_err(cause).map_err(at(Operation::Bind))?;
    let Some(rings) = rings else {
        let error = io::Error::other("libxdp gave no fill and completion ring");
        return Err(OpenError::At(Operation::Bind, error));
    };
    let queues = KernelQueues::new((transmit, receive), rings, opening.rings.tx, memory);
    Ok((queues, slots))
}
