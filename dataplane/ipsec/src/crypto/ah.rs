//! AH's ICV over a whole packet (RFC 4302 §3.3.3): headers with their mutable fields as zero, AH
//! with its ICV as zero, payload, and the number's upper half with ESN.
//!
//! The bytes go to the MAC piece by piece; no packet is copied.

use subtle::ConstantTimeEq;

use super::parts::high_half;
use super::suite::Suite;
use super::{Keys, Transform};
use crate::ip::mutable::{End, Feed, cover};
use crate::limits::ICV_LENGTH;
use crate::wire::ah;

/// One AH packet.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    /// From the IP header that AH follows to the last byte of the packet. What the ICV bytes are
    /// does not matter; what stands behind them in AH does.
    pub bytes: &'a [u8],
    /// Offset of the AH header.
    pub header: usize,
    /// The 64-bit sequence number; its upper half enters the ICV when `esn` is set.
    pub sequence: u64,
    /// Extended sequence numbers (RFC 4302 §2.5.1).
    pub esn: bool,
    /// Whether the packet is on its way still.
    pub end: End,
}

/// Bytes of the ICV field in front of the ICV proper: GMAC's IV (RFC 4543 §4).
#[must_use]
pub const fn iv_length(suite: &Suite) -> usize {
    if suite.is_counter_mode() { 8 } else { 0 }
}

/// The ICV field's bytes behind the IV, as many as the algorithm has.
///
/// `None` for an ESP suite, an AH header beyond the end or without room for the ICV, and headers
/// in front that contradict themselves.
//= T41 T46 T89 T92 T151 (RFC 4302 sections 3.3.3, 3.3.3.2, RFC 4543 section 4)
#[must_use]
pub fn icv(transform: &Transform, packet: &Packet<'_>) -> Option<[u8; ICV_LENGTH]> {
    const ZEROES: [u8; ICV_LENGTH] = [0; ICV_LENGTH];
    let (headers, rest) = packet.bytes.split_at_checked(packet.header)?;
    let iv = iv_length(&transform.suite);
    let length = transform.suite.icv_length();
    let (front, rest) = rest.split_at_checked(ah::LENGTH + iv)?;
    // Padding of the ICV field counts as it is.
    let (_, behind) = rest.split_at_checked(length - iv)?;
    let zeroes = ZEROES.get(..length - iv)?;
    let high = high_half(packet.sequence);
    let mut covered = Some(());
    let mut pieces = |feed: &mut Feed<'_>| {
        covered = cover(headers, packet.end, feed);
        feed(front);
        feed(zeroes);
        feed(behind);
        if packet.esn {
            feed(&high);
        }
    };
    let icv = match &transform.keys {
        Keys::Separate(keys) => keys.mac().over(&mut pieces),
        Keys::Gmac(key) => widened(key.over(front.get(ah::LENGTH..)?, &mut pieces)?),
        #[cfg(target_arch = "x86_64")]
        Keys::AhGmac(key) => widened(key.over(front.get(ah::LENGTH..)?, &mut pieces)?),
        _ => return None,
    };
    covered.map(|()| icv)
}

fn widened(tag: [u8; 16]) -> [u8; ICV_LENGTH] {
    let mut icv = [0; ICV_LENGTH];
    icv[..tag.len()].copy_from_slice(&tag);
    icv
}

/// Where in an AH header of this suite the ICV proper lies.
#[must_use]
pub const fn icv_place(suite: &Suite) -> std::ops::Range<usize> {
    ah::LENGTH + iv_length(suite)..ah::LENGTH + suite.icv_length()
}

/// Whether the packet carries the right ICV.
//= T31 T41 (RFC 4302 section 3.4.4)
#[must_use]
pub fn verify(transform: &Transform, packet: &Packet<'_>) -> bool {
    let header = packet.bytes.get(packet.header..);
    let found = header.and_then(|header| header.get(icv_place(&transform.suite)));
    match (icv(transform, packet), found) {
        (Some(icv), Some(found)) => icv[..found.len()].ct_eq(found).into(),
        _ => false,
    }
}
