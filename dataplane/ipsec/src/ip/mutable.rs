//! What AH's ICV covers of the headers in front of it (RFC 4302 §3.3.3.1, appendix A): mutable
//! fields count as zero, predictable ones as they arrive.
//!
//! Nothing is copied but the fixed header: [`cover`] hands the covered bytes out piece by piece.

use crate::wire::extension::{self, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
use crate::wire::{ipv4, ipv6};

/// On which side of the way the headers are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Before they are sent: a source route still lies ahead, and the ICV is about its end.
    Sender,
    /// As they arrived.
    Receiver,
}

/// What takes the covered bytes, piece by piece.
pub type Feed<'f> = dyn FnMut(&[u8]) + 'f;

/// Gives the covered form of `headers`, which reach from the IP header to the AH header, to `feed`.
/// An IPv6 fragment header that is left over is passed over, as if it had never been there.
///
/// `None`, with an unknown part given, for an option or routing header that contradicts its own
/// length.
//= T41 (RFC 4302 section 3.3.3)
pub fn cover(headers: &[u8], end: End, feed: &mut Feed<'_>) -> Option<()> {
    match headers.first()? >> 4 {
        4 => cover_v4(headers, end, feed),
        6 => cover_v6(headers, end, feed),
        _ => None,
    }
}

//= T42 (RFC 4302 section 3.3.3.1.1.1)
fn cover_v4(headers: &[u8], end: End, feed: &mut Feed<'_>) -> Option<()> {
    let mut copy = [0; ipv4::LENGTH_MAXIMUM];
    let header = copy.get_mut(..headers.len())?;
    header.copy_from_slice(headers);
    let (fixed, options) = header.split_first_chunk_mut::<{ ipv4::LENGTH }>()?;
    fixed[1] = 0;
    fixed[6..9].fill(0);
    fixed[10..12].fill(0);
    if let Some(destination) = mask_options(options)?
        && end == End::Sender
    {
        //= T91 (RFC 4302 section 3.3.3.1.1.1)
        fixed[16..20].copy_from_slice(&destination);
    }
    feed(header);
    Some(())
}

/// IPv4 options that nobody changes on the way: end of list, no operation, security, extended and
/// commercial security, router alert, sender directed multi-destination delivery.
const IMMUTABLE: [u8; 7] = [0, 1, 0x82, 0x85, 0x86, 0x94, 0x95];

/// Loose and strict source route.
const SOURCE_ROUTES: [u8; 2] = [0x83, 0x89];

/// Zeroes the options that are mutable or unknown. Answers the end of a source route that is not
/// yet used up.
//= T43 T90 (RFC 4302 sections 3.3.3.1, 3.3.3.1.1.2, appendix A1)
fn mask_options(mut rest: &mut [u8]) -> Option<Option<[u8; 4]>> {
    let mut destination = None;
    loop {
        let length = match *rest {
            [] | [0, ..] => return Some(destination),
            [1, ..] => 1,
            [_, length @ 2..=255, ..] => usize::from(length),
            _ => return None,
        };
        let (option, behind) = rest.split_at_mut_checked(length)?;
        if SOURCE_ROUTES.contains(&option[0])
            && let [_, _, pointer, .., a, b, c, d] = *option
            && usize::from(pointer) + 3 <= length
        {
            destination = Some([a, b, c, d]);
        }
        if !IMMUTABLE.contains(&option[0]) {
            option.fill(0);
        }
        rest = behind;
    }
}

//= T44 (RFC 4302 section 3.3.3.1.2.1)
fn cover_v6(headers: &[u8], end: End, feed: &mut Feed<'_>) -> Option<()> {
    let mut fixed = *headers.first_chunk::<{ ipv6::LENGTH }>()?;
    let route = Route::find(headers)?.filter(|_| end == End::Sender);
    fixed[0] = 0x60;
    fixed[1..4].fill(0);
    fixed[7] = 0;
    let mut walk = Walk {
        headers,
        kind: fixed[6],
        offset: ipv6::LENGTH,
    };
    let left_over = walk.count_fragment_headers()?;
    let length = u16::from_be_bytes([fixed[4], fixed[5]]);
    let length = length.checked_sub(u16::try_from(left_over * extension::LENGTH).ok()?)?;
    fixed[4..6].copy_from_slice(&length.to_be_bytes());
    fixed[6] = walk.named(fixed[6], ipv6::LENGTH)?;
    if let Some(route) = &route {
        fixed[24..].copy_from_slice(route.end(headers)?);
    }
    feed(&fixed);
    while walk.offset < headers.len() {
        let (kind, header) = walk.next()?;
        let named = walk.named(*header.first()?, walk.offset)?;
        match (kind, &route) {
            (FRAGMENT, _) => {}
            (HOP_BY_HOP | DESTINATION_OPTIONS, _) => cover_options(header, named, feed)?,
            (_, Some(route)) => route.cover(headers, header, named, feed)?,
            (_, None) => {
                feed(&[named]);
                feed(header.get(1..)?);
            }
        }
    }
    Some(())
}

/// A step over the extension headers, which the parser has walked before.
struct Walk<'h> {
    headers: &'h [u8],
    kind: u8,
    offset: usize,
}

impl<'h> Walk<'h> {
    /// The header here and its kind.
    fn next(&mut self) -> Option<(u8, &'h [u8])> {
        let kind = self.kind;
        let rest = self.headers.get(self.offset..)?;
        let [next, words, ..] = *rest.first_chunk::<{ extension::LENGTH }>()?;
        let length = match kind {
            FRAGMENT => extension::LENGTH,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (usize::from(words) + 1) * 8,
            _ => return None,
        };
        self.kind = next;
        self.offset += length;
        Some((kind, rest.get(..length)?))
    }

    /// What a header that names `kind`, standing at `offset`, names once fragment headers are gone.
    fn named(&self, kind: u8, offset: usize) -> Option<u8> {
        if kind == FRAGMENT && offset < self.headers.len() {
            return self.headers.get(offset).copied();
        }
        Some(kind)
    }

    fn count_fragment_headers(&self) -> Option<usize> {
        let mut count = 0;
        let mut walk = Walk { ..*self };
        while walk.offset < walk.headers.len() {
            if walk.next()?.0 == FRAGMENT {
                count += 1;
            }
        }
        Some(count)
    }
}

/// An options header: the data of options that may change on the way counts as zero, their type
/// and length do not.
//= T45 (RFC 4302 section 3.3.3.1.2.2)
fn cover_options(header: &[u8], named: u8, feed: &mut Feed<'_>) -> Option<()> {
    const MUTABLE: u8 = 0x20;
    const ZEROES: [u8; 255] = [0; 255];
    let (fixed, mut rest) = header.split_first_chunk::<2>()?;
    feed(&[named, fixed[1]]);
    while let Some(&kind) = rest.first() {
        if kind == 0 {
            feed(&[0]);
            rest = &rest[1..];
            continue;
        }
        let length = usize::from(*rest.get(1)?);
        let (option, behind) = rest.split_at_checked(2 + length)?;
        if kind & MUTABLE == 0 {
            feed(option);
        } else {
            feed(&option[..2]);
            feed(&ZEROES[..length]);
        }
        rest = behind;
    }
    Some(())
}

/// A type 0 routing header that is not yet used up: every node on the way swaps the destination
/// with the next address in it (RFC 2460 §4.4).
//= T45 (RFC 4302 appendix A2)
struct Route {
    /// Of the routing header.
    offset: usize,
    /// Addresses in it.
    count: usize,
    /// Of them, not visited yet.
    left: usize,
}

/// Next header, length, type, segments left and 4 reserved bytes.
const ROUTE_FIXED: usize = 8;

/// Bytes of an IPv6 address.
const ADDRESS: usize = 16;

impl Route {
    /// `None` for headers that contradict themselves, else the route if there is one.
    fn find(headers: &[u8]) -> Option<Option<Self>> {
        let mut walk = Walk {
            headers,
            kind: *headers.get(6)?,
            offset: ipv6::LENGTH,
        };
        while walk.offset < headers.len() {
            let offset = walk.offset;
            if let (ROUTING, [_, words, 0, left @ 1..=255, ..]) = walk.next()? {
                let (count, left) = (usize::from(*words) / 2, usize::from(*left));
                if words % 2 != 0 || left > count {
                    return None;
                }
                return Some(Some(Self {
                    offset,
                    count,
                    left,
                }));
            }
        }
        Some(None)
    }

    fn addresses<'h>(&self, headers: &'h [u8], from: usize, to: usize) -> Option<&'h [u8]> {
        let first = self.offset + ROUTE_FIXED;
        headers.get(first + from * ADDRESS..first + to * ADDRESS)
    }

    /// Where the packet ends up.
    fn end<'h>(&self, headers: &'h [u8]) -> Option<&'h [u8]> {
        self.addresses(headers, self.count.checked_sub(1)?, self.count)
    }

    /// The header as it will arrive; any other routing header as it is.
    fn cover(&self, headers: &[u8], header: &[u8], named: u8, feed: &mut Feed<'_>) -> Option<()> {
        let ours = headers.get(self.offset..)?;
        if !std::ptr::eq(ours.as_ptr(), header.as_ptr()) {
            feed(&[named]);
            feed(header.get(1..)?);
            return Some(());
        }
        let visited = self.count.checked_sub(self.left)?;
        feed(&[named, *header.get(1)?, 0, 0]);
        feed(header.get(4..ROUTE_FIXED)?);
        feed(self.addresses(headers, 0, visited)?);
        feed(headers.get(24..ipv6::LENGTH)?);
        feed(self.addresses(headers, visited, self.count - 1)?);
        Some(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests;
