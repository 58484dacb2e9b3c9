//! Every limit of the protocol engine, with the reason for its number.

/// Packets a worker takes from a ring at once, at most. 64: the kernel's NAPI budget; a larger
/// burst waits longer than it saves.
pub const BATCH: usize = 64;

/// IPv6 extension headers walked before a packet counts as malformed. RFC 8200 §4.1 orders at most
/// seven; eight leaves room for one doubled destination-options header.
pub const EXTENSION_HEADERS: usize = 8;

/// Nested SAs of one packet (AH over ESP is two).
pub const BUNDLE_DEPTH: usize = 2;

/// Smallest configurable anti-replay window, packets. RFC 4303 §3.4.3 demands 32.
pub const REPLAY_WINDOW_MINIMUM: u32 = 32;

/// Largest configurable anti-replay window, packets: 128 KiB of bitmap an SA.
pub const REPLAY_WINDOW_MAXIMUM: u32 = 1 << 20;

/// Longest ICV of the algorithm table, bytes (HMAC-SHA-512-256; AH-GMAC's field is IV + tag).
pub const ICV_LENGTH: usize = 32;

/// Longest IV on the wire, bytes (AES-CBC).
pub const IV_LENGTH: usize = 16;

/// Bytes that encapsulation may put in front of and behind an inner packet, at most: outer IPv6 40,
/// UDP 8, ESP 8, IV 16, padding 255, trailer 2, ICV 32, rounded up.
pub const OVERHEAD: usize = 384;

/// Longest IP packet that the pipeline carries, bytes: a jumbo frame of 9216 and its overhead fit.
pub const PACKET: usize = 16 * 1024;

/// SAs in the SAD, at most.
pub const SAS: usize = 1 << 20;

/// First SPI that is ours to assign (RFC 4303 §2.1 reserves 0 to 255).
pub const SPI_MINIMUM: u32 = 256;

/// Smallest MTU of a link that carries IPv6 (RFC 8200 §5), bytes.
pub const IPV6_MTU_MINIMUM: usize = 1280;

/// Smallest MTU of an IPv4 link (RFC 791 §3.2), bytes.
pub const IPV4_MTU_MINIMUM: usize = 68;
