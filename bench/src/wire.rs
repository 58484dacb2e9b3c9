//! An interface whose every frame goes to AF_XDP: what the bare forwarder and the frame source
//! stand on.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use xipsec::port::Port;
use xipsec::port::settings::{Rings, Side, Umem, ZeroCopy};
use xipsec::port::xdp::offload::Offloads;
use xipsec::port::xdp::probe::Facts;
use xipsec::port::xdp::program::{AttachMode, Entry, SteerProgram, SteerSettings};
use xipsec::port::xdp::{Opening, Statistics, XdpPort};

/// A link-layer address.
pub type Mac = [u8; 6];

/// One interface with its program and what restores it.
pub struct Interface {
    /// What the kernel says of it.
    pub facts: Facts,
    program: SteerProgram,
    mode: AttachMode,
    _offloads: Offloads,
}

impl Interface {
    /// Attaches the program that redirects everything.
    ///
    /// # Errors
    /// What the kernel refuses, or an MTU beyond one frame.
    pub fn new(name: &str, mode: AttachMode) -> Result<Self> {
        let facts = Facts::probe(name)?;
        if facts.needs_frags() {
            bail!("{name}: MTU {} takes packets of several frames", facts.mtu);
        }
        let (offloads, _) = Offloads::switch_off(name, mode)?;
        // The side matters to steering only, and this program does not steer.
        let settings = SteerSettings {
            entry: Entry::RedirectAll,
            ..SteerSettings::new(Side::Unprotected, facts.mac, facts.receive_queues)
        };
        let mut program = SteerProgram::load(name, &settings)?;
        program.attach(mode)?;
        Ok(Self {
            facts,
            program,
            mode,
            _offloads: offloads,
        })
    }

    /// Opens the socket of one queue.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(&mut self, queue: u32) -> Result<XdpPort> {
        let opening = Opening {
            interface: &self.facts.name,
            queue,
            attachment: self.mode,
            zero_copy: ZeroCopy::Auto,
            rings: Rings::default(),
            umem: Umem::default(),
            busy_poll: None,
            frags: false,
        };
        let (port, _) = XdpPort::open(&opening)?;
        self.program.insert_socket(queue, port.socket())?;
        Ok(port)
    }
}

/// What was counted on one queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Frames that came.
    pub received: u64,
    /// Frames given to the transmit ring.
    pub sent: u64,
    /// Frames that found no place in it.
    pub dropped: u64,
}

/// The sums of several queues.
///
/// # Errors
/// The kernel does not tell its statistics.
pub fn summary<'a>(queues: impl Iterator<Item = (&'a XdpPort, Counts)>) -> Result<Value> {
    let mut counts = Counts::default();
    let mut kernel = Statistics::default();
    let mut home = true;
    for (port, counted) in queues {
        let statistics = port.statistics().context("socket statistics")?;
        counts.received += counted.received;
        counts.sent += counted.sent;
        counts.dropped += counted.dropped;
        kernel.rx_dropped += statistics.rx_dropped;
        kernel.rx_ring_full += statistics.rx_ring_full;
        kernel.rx_fill_ring_empty += statistics.rx_fill_ring_empty;
        kernel.kicks.kicks += statistics.kicks.kicks;
        kernel.kicks.pending += statistics.kicks.pending;
        home &= port.ledger().is_home();
    }
    Ok(json!({
        "received": counts.received,
        "sent": counts.sent,
        "dropped": counts.dropped,
        "kicks": kernel.kicks.kicks,
        "kicks_pending": kernel.kicks.pending,
        "rx_dropped": kernel.rx_dropped,
        "rx_ring_full": kernel.rx_ring_full,
        "rx_fill_ring_empty": kernel.rx_fill_ring_empty,
        "frames_home": home,
    }))
}

/// Six bytes as `02:00:00:00:00:01`.
///
/// # Errors
/// It is none.
pub fn parse_mac(text: &str) -> Result<Mac> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).with_context(|| format!("{text}: no MAC")))
        .collect::<Result<_>>()?;
    Mac::try_from(bytes)
        .ok()
        .with_context(|| format!("{text}: six bytes make a MAC"))
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// The handlers cannot be installed.
pub fn wait_for_stop() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// Pins the calling thread to the `index`-th core that it may run on.
pub fn pin(index: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.get(index % cores.len().max(1)) {
        core_affinity::set_for_current(*core);
    }
}
