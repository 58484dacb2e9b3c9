//! Addresses, prefixes and MAC addresses as the file writes them.

use std::net::IpAddr;

use ipsec::packet::{Version, address_bits};
use ipsec::policy::AddressRange;

use crate::route::Mac;

/// Why a text is no prefix.
pub(super) enum PrefixError {
    /// Not ADDRESS/LENGTH.
    Form,
    /// One-bits behind the length.
    HostBits,
}

/// `ADDRESS/LENGTH`, host bits and all.
pub(super) fn with_length(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| digits)?;
    (length <= width(address)).then_some((address, length))
}

/// `ADDRESS/LENGTH`, host bits zero.
pub(super) fn prefix(text: &str) -> Result<(IpAddr, u8), PrefixError> {
    let (address, length) = with_length(text).ok_or(PrefixError::Form)?;
    if address_bits(address) & host_mask(address, length) == 0 {
        Ok((address, length))
    } else {
        Err(PrefixError::HostBits)
    }
}

/// The addresses of a prefix.
pub(super) fn range_of(address: IpAddr, length: u8) -> AddressRange {
    let mask = host_mask(address, length);
    AddressRange {
        version: version(address),
        first: address_bits(address) & !mask,
        last: address_bits(address) | mask,
    }
}

/// The family of an address.
pub(super) const fn version(address: IpAddr) -> Version {
    match address {
        IpAddr::V4(_) => Version::V4,
        IpAddr::V6(_) => Version::V6,
    }
}

/// `02:00:00:00:00:01`.
pub(super) fn mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| {
            part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
        })?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The bits behind the prefix; those of an IPv4 address are the low 32 of its mapped form.
fn host_mask(address: IpAddr, length: u8) -> u128 {
    let host_bits = u32::from(width(address).saturating_sub(length));
    1_u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |bit| bit - 1)
}

/// The addresses of `ADDRESS/LENGTH` with host bits zero; `None` for anything else.
#[must_use]
pub fn prefix_of(text: &str) -> Option<AddressRange> {
    let (address, length) = prefix(text).ok()?;
    Some(range_of(address, length))
}
