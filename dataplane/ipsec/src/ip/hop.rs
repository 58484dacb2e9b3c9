//! One hop less (RFC 791 §3.2, RFC 8200 §3).

use crate::verdict::DropReason;
use crate::wire::checksum;

/// Lowers the TTL or hop limit of the packet `ip` by one and keeps the IPv4 checksum right.
///
/// # Errors
/// [`DropReason::HopLimit`], and nothing changed, when it is 1 or 0: a time exceeded goes back.
/// [`DropReason::Malformed`] for what is no IP packet.
//= T58 (RFC 4301 section 5.1.2.1)
#[inline]
pub fn decrement(ip: &mut [u8]) -> Result<(), DropReason> {
    match ip.first().map(|first| first >> 4) {
        Some(4) => decrement_v4(ip),
        Some(6) => decrement_v6(ip),
        _ => Err(DropReason::Malformed),
    }
}

#[inline]
fn decrement_v4(ip: &mut [u8]) -> Result<(), DropReason> {
    let Some([_, _, _, _, _, _, _, _, hop_limit, _, high, low]) = ip.first_chunk_mut::<12>() else {
        return Err(DropReason::Malformed);
    };
    if *hop_limit <= 1 {
        return Err(DropReason::HopLimit);
    }
    *hop_limit -= 1;
    // One off the upper byte of a word, whatever the lower one is.
    let sum = checksum::update(u16::from_be_bytes([*high, *low]), 0x0100, 0);
    [*high, *low] = sum.to_be_bytes();
    Ok(())
}

#[inline]
fn decrement_v6(ip: &mut [u8]) -> Result<(), DropReason> {
    let Some(hop_limit) = ip.get_mut(7) else {
        return Err(DropReason::Malformed);
    };
    if *hop_limit <= 1 {
        return Err(DropReason::HopLimit);
    }
    *hop_limit -= 1;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::parse;
    use crate::wire::{ipv4, ipv6};

    const V6: ipv6::Fields = ipv6::Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_length: 0,
        next_header: 59,
        hop_limit: 2,
        source: 1,
        destination: 2,
    };

    //= test T58 (RFC 4301 section 5.1.2.1)
    #[test]
    fn the_last_hop_is_not_taken() {
        let mut ip = V6.to_bytes();
        assert_eq!(decrement(&mut ip), Ok(()));
        assert_eq!(ip[7], 1);
        assert_eq!(decrement(&mut ip), Err(DropReason::HopLimit));
        assert_eq!(ip[7], 1);
        ip[7] = 0;
        assert_eq!(decrement(&mut ip), Err(DropReason::HopLimit));
        assert_eq!(decrement(&mut ip[..7]), Err(DropReason::Malformed));
        assert_eq!(decrement(&mut []), Err(DropReason::Malformed));
        assert_eq!(decrement(&mut [0x45; 11]), Err(DropReason::Malformed));
        assert_eq!(decrement(&mut [0x55; 40]), Err(DropReason::Malformed));
    }

    proptest! {
        #[test]
        fn equals_a_header_written_anew(
            hop_limit: u8, identification: u16, source: u32, protocol: u8,
        ) {
            let fields = ipv4::Fields {
                traffic_class: 0,
                total_length: 20,
                identification,
                flags_and_offset: 1,
                hop_limit,
                protocol,
                source,
                destination: 1,
            };
            let mut ip = fields.to_bytes();
            if hop_limit <= 1 {
                prop_assert_eq!(decrement(&mut ip), Err(DropReason::HopLimit));
                prop_assert_eq!(ip, fields.to_bytes());
            } else {
                prop_assert_eq!(decrement(&mut ip), Ok(()));
                let hop_limit = hop_limit - 1;
                prop_assert_eq!(ip, ipv4::Fields { hop_limit, ..fields }.to_bytes());
                prop_assert_eq!(parse(&ip).unwrap().hop_limit, hop_limit);
            }
        }
    }
}
