//! What configuration says about ports.

/// RFC 4301's boundary: which side a port is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Ciphertext.
    Unprotected,
    /// Plaintext.
    Protected,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native, else generic.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the stack, behind the driver.
    Generic,
}

/// Whether the NIC writes into our memory itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// If the driver can.
    #[default]
    Auto,
    /// Or refuse to start.
    On,
    /// Never.
    Off,
}

/// Whether the port's peer may leave TCP and UDP checksums unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Complete on veth, tap, virtio and in generic mode.
    #[default]
    Auto,
    /// Complete where unfinished.
    Complete,
    /// Trust what is there.
    Trust,
}

/// Entries of the four rings of one socket, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Receive.
    pub rx: u32,
    /// Transmit.
    pub tx: u32,
    /// Fill.
    pub fill: u32,
    /// Completion.
    pub completion: u32,
}

impl Default for Rings {
    fn default() -> Self {
        Self {
            rx: 2048,
            tx: 2048,
            fill: 4096,
            completion: 4096,
        }
    }
}

/// The packet memory of one socket: half to receive, half to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Umem {
    /// Frames in all.
    pub frames: u32,
    /// Bytes of one frame, a power of two.
    pub frame_size: u32,
    /// In huge pages.
    pub huge_pages: bool,
}

impl Default for Umem {
    fn default() -> Self {
        Self {
            frames: 8192,
            frame_size: 4096,
            huge_pages: false,
        }
    }
}

/// Busy polling of the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// Microseconds of SO_BUSY_POLL.
    pub microseconds: u32,
    /// Packets of SO_BUSY_POLL_BUDGET.
    pub budget: u32,
}

/// What a worker does when no packet waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Spins for a while, then sleeps.
    #[default]
    Adaptive,
    /// Never sleeps.
    Spin,
    /// Sleeps at once.
    Sleep,
}
