//! The XDP program of one port: loaded from the committed object, attached by a BPF link (which
//! goes when the process goes), told its tables, read for its counters.
//!
//! The order at start: [`SteerProgram::load`], [`SteerProgram::update`], sockets bound and their
//! fill rings full, [`SteerProgram::insert_socket`] for each, then [`SteerProgram::attach`]. Until
//! it is attached the kernel's own path has everything, and the guard watches that one.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use aya::maps::{Array, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use xipsec_abi::{Counter, OUTCOMES, Outcome, Port, counter_index, limits, map, program, side};

pub use super::error::ProgramError;
use super::error::error_number;
use super::mirror::Raw;
use super::occupant::occupant;
use super::steer::{MapContents, SteeringTables, Unmatched};
use super::tables::{Tables, take};
use crate::port::settings::Side;
use crate::route::Mac;

/// Built from `ebpf/` by `cargo xtask ebpf`; a test compares its record with the sources.
static OBJECT: &[u8] = include_bytes_aligned!("../../../../../ebpf/prebuilt/xipsec_steer.o");

/// Where in the packet's way the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the stack, behind the driver.
    Generic,
}

/// Which program of the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Steering; packets of one buffer.
    #[default]
    Plain,
    /// Steering; packets of several buffers too. For MTUs over 3 500.
    Frags,
    /// Everything but ARP and neighbour discovery to the socket or, without one, nowhere: the bare
    /// forwarder of benches.
    RedirectAll,
}

impl Entry {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => program::STEER,
            Self::Frags => program::STEER_FRAGS,
            Self::RedirectAll => program::REDIRECT_ALL,
        }
    }
}

/// What a program is loaded with.
#[derive(Clone, Copy, Debug)]
pub struct SteerSettings {
    /// The port's side.
    pub side: Side,
    /// Its MAC: frames to others stay with the kernel.
    pub mac: Mac,
    /// Its receive queues: sockets and counters are for 0 to this − 1.
    pub queues: u32,
    /// Which program.
    pub entry: Entry,
    /// Room for SAs of listed endpoints.
    pub listed_sas: u32,
}

impl SteerSettings {
    /// For a port as most are.
    #[must_use]
    pub const fn new(side: Side, mac: Mac, queues: u32) -> Self {
        Self {
            side,
            mac,
            queues,
            entry: Entry::Plain,
            listed_sas: limits::SAS,
        }
    }
}

/// One counter of one queue, summed over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteerCounter {
    /// Receive queue.
    pub queue: u32,
    /// What was decided.
    pub outcome: Outcome,
    /// Frames.
    pub packets: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
}

/// A loaded program and its maps. Dropping it detaches and unloads.
pub struct SteerProgram {
    // Dropped first: the hook is free before the maps go.
    link: Option<FdLink>,
    ebpf: Ebpf,
    tables: Tables,
    port_map: Array<MapData, Raw<Port>>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, Raw<Counter>>,
    port: Port,
    side: Side,
    interface: String,
    entry: Entry,
    queues: u32,
}

impl SteerProgram {
    /// Creates the maps and loads the program; nothing is attached yet. Takes CAP_BPF and
    /// CAP_NET_ADMIN.
    ///
    /// # Errors
    /// [`ProgramError::Permission`], [`ProgramError::Rejected`], or what else the kernel says.
    pub fn load(interface: &str, settings: &SteerSettings) -> Result<Self, ProgramError> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(map::SOCKETS, settings.queues)
            .map_max_entries(map::COUNTERS, settings.queues.saturating_mul(OUTCOMES))
            .map_max_entries(map::SAS, settings.listed_sas.max(1))
            .load(OBJECT)
            .map_err(|error| ProgramError::of_object(interface, &error))?;
        let map_error =
            |error: MapError| ProgramError::other(interface, "open the program's maps", &error);
        let tables = Tables::take(&mut ebpf, settings.listed_sas).map_err(map_error)?;
        let port_map = take(&mut ebpf, map::PORT)
            .and_then(Array::try_from)
            .map_err(map_error)?;
        let sockets = take(&mut ebpf, map::SOCKETS)
            .and_then(XskMap::try_from)
            .map_err(map_error)?;
        let counters = take(&mut ebpf, map::COUNTERS)
            .and_then(PerCpuArray::try_from)
            .map_err(map_error)?;
        let side = match settings.side {
            Side::Protected => side::PROTECTED,
            Side::Unprotected => side::UNPROTECTED,
        };
        let mut program = Self {
            link: None,
            ebpf,
            tables,
            port_map,
            sockets,
            counters,
            port: Port {
                mac: settings.mac,
                side,
                ..Port::default()
            },
            side: settings.side,
            interface: interface.to_owned(),
            entry: settings.entry,
            queues: settings.queues,
        };
        program.write_port(program.port)?;
        program
            .xdp()
            .and_then(Xdp::load)
            .map_err(|error| ProgramError::of_load(interface, &error))?;
        Ok(program)
    }

    /// Attaches the program to the interface. Never replaces another one.
    ///
    /// # Errors
    /// [`ProgramError::NoInterface`], [`ProgramError::Occupied`] and, in native mode,
    /// [`ProgramError::Unsupported`], [`ProgramError::Mtu`] and [`ProgramError::Queues`]: with
    /// these three generic mode is worth a try.
    pub fn attach(&mut self, mode: AttachMode) -> Result<(), ProgramError> {
        let kernel_mode = match mode {
            AttachMode::Native => aya::programs::XdpMode::Driver,
            AttachMode::Generic => aya::programs::XdpMode::Skb,
        };
        let interface = self.interface.clone();
        let xdp = self
            .xdp()
            .map_err(|error| ProgramError::of_load(&interface, &error))?;
        let link = xdp
            .attach(&interface, kernel_mode)
            .and_then(|id| xdp.take_link(id))
            .map_err(|error| self.attach_error(mode, &error))?;
        // What is no link was attached by netlink, and dropping it detaches again.
        self.link = Some(FdLink::try_from(link).map_err(|_| ProgramError::NoLink { interface })?);
        Ok(())
    }

    /// Takes the program off the interface; the kernel has everything again.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Gives a queue its socket (bound, its fill ring full). From now on frames are redirected.
    ///
    /// # Errors
    /// A queue beyond [`SteerSettings::queues`], or what the kernel says.
    pub fn insert_socket(
        &mut self,
        queue: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), ProgramError> {
        self.sockets
            .set(queue, socket.as_raw_fd(), 0)
            .map_err(|error| {
                ProgramError::other(
                    &self.interface,
                    "put a socket into the XDP program's map",
                    &error,
                )
            })
    }

    /// Takes a queue's socket away: its frames take the fallback action.
    ///
    /// # Errors
    /// What the kernel says, also when there was none.
    pub fn remove_socket(&mut self, queue: u32) -> Result<(), ProgramError> {
        self.sockets.unset(queue).map_err(|error| {
            ProgramError::other(
                &self.interface,
                "take a socket from the XDP program's map",
                &error,
            )
        })
    }

    /// Tells the program its tables: first all that is new, then away with what is gone, so that no
    /// packet of a policy that stays is missed in between. Only differences are written.
    ///
    /// # Errors
    /// [`ProgramError::Full`] or what else the kernel says; then what the program takes is a part
    /// of the old and the new, and calling again goes on from there.
    pub fn update(&mut self, tables: &SteeringTables) -> Result<(), ProgramError> {
        self.extend(tables)?;
        self.settle(tables)
    }

    /// The first half of [`Self::update`]: takes what the old tables or the new ones take. After
    /// the new snapshot is published, when something was added.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn extend(&mut self, tables: &SteeringTables) -> Result<(), ProgramError> {
        self.tables
            .extend(&self.interface, &MapContents::of(tables, self.side))
    }

    /// The second half of [`Self::update`]: takes what the new tables take and no more. Before the
    /// new snapshot is published, when something was removed.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn settle(&mut self, tables: &SteeringTables) -> Result<(), ProgramError> {
        self.tables
            .settle(&self.interface, &MapContents::of(tables, self.side))?;
        self.write_port(Port {
            discard_unmatched: u8::from(tables.unmatched == Unmatched::Discard),
            reassemble_udp: u8::from(tables.reassemble_udp),
            ..self.port
        })
    }

    /// Follows the interface's MAC when it changes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn change_mac(&mut self, mac: Mac) -> Result<(), ProgramError> {
        self.write_port(Port { mac, ..self.port })
    }

    /// Every counter of every queue, in the order of queues and outcomes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&self) -> Result<Vec<SteerCounter>, ProgramError> {
        let mut counters = Vec::new();
        for queue in 0..self.queues {
            for outcome in Outcome::ALL {
                let per_cpu = self
                    .counters
                    .get(&counter_index(queue, outcome), 0)
                    .map_err(|error| {
                        ProgramError::other(
                            &self.interface,
                            "read the XDP program's counters",
                            &error,
                        )
                    })?;
                let sum =
                    |field: fn(&Counter) -> u64| per_cpu.iter().map(|raw| field(&raw.0)).sum();
                let (packets, bytes) =
                    (sum(|counter| counter.packets), sum(|counter| counter.bytes));
                counters.push(SteerCounter {
                    queue,
                    outcome,
                    packets,
                    bytes,
                });
            }
        }
        Ok(counters)
    }

    /// The kernel's number of the program, as `bpftool prog` shows it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn id(&mut self) -> Result<u32, ProgramError> {
        let interface = self.interface.clone();
        self.xdp()
            .and_then(|xdp| xdp.info())
            .map(|info| info.id())
            .map_err(|error| {
                ProgramError::other(&interface, "ask for the XDP program's id", &error)
            })
    }

    /// Which program of the object this is.
    #[must_use]
    pub const fn entry(&self) -> Entry {
        self.entry
    }

    /// Runs the program once over a frame on queue 0, without an interface, and returns its XDP
    /// action. The frame is counted like any other; nothing is redirected.
    ///
    /// # Errors
    /// EINVAL for less than an Ethernet header, or what else the kernel says.
    pub fn test_run(&mut self, frame: &[u8]) -> Result<u32, ProgramError> {
        self.test_run_for_time(frame, 1).map(|(action, _)| action)
    }

    /// As [`Self::test_run`], `repeat` times in a row: the action and the mean time of a run, in
    /// which the kernel rounds to nanoseconds.
    ///
    /// # Errors
    /// As [`Self::test_run`].
    pub fn test_run_for_time(
        &mut self,
        frame: &[u8],
        repeat: u32,
    ) -> Result<(u32, Duration), ProgramError> {
        let interface = self.interface.clone();
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        };
        self.xdp()
            .and_then(|xdp| xdp.test_run(options))
            .map(|result| (result.return_value, result.duration))
            .map_err(|error| ProgramError::other(&interface, "test-run the XDP program", &error))
    }

    fn xdp(&mut self) -> Result<&mut Xdp, aya::programs::ProgramError> {
        self.ebpf
            .program_mut(self.entry.name())
            .ok_or(aya::programs::ProgramError::NotLoaded)?
            .try_into()
    }

    fn write_port(&mut self, port: Port) -> Result<(), ProgramError> {
        self.port_map
            .set(0, Raw(port), 0)
            .map_err(|error| ProgramError::of_map(&self.interface, map::PORT, 1, &error))?;
        self.port = port;
        Ok(())
    }

    fn attach_error(&self, mode: AttachMode, error: &aya::programs::ProgramError) -> ProgramError {
        let interface = self.interface.clone();
        if let aya::programs::ProgramError::UnknownInterface { .. } = error {
            return ProgramError::NoInterface { interface };
        }
        match error_number(error) {
            Some(libc::EBUSY | libc::EEXIST) => {
                let occupant = occupant(&interface);
                ProgramError::Occupied {
                    interface,
                    occupant,
                }
            }
            Some(libc::EOPNOTSUPP) => {
                let kind = match (mode, self.entry) {
                    (AttachMode::Generic, _) => "generic",
                    (AttachMode::Native, Entry::Frags) => "native with frags",
                    (AttachMode::Native, _) => "native",
                };
                ProgramError::Unsupported { interface, kind }
            }
            Some(libc::ERANGE | libc::EINVAL) if mode == AttachMode::Native => {
                ProgramError::Mtu { interface }
            }
            Some(libc::ENOSPC) => ProgramError::Queues { interface },
            _ => ProgramError::other(&interface, "attach the XDP program", error),
        }
    }
}
