//! Peers that move (RFC 7296 §2.23): noticed here after a worker has followed one, and told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;

use ipsec::ip::rate_limit::RateLimit;
use ipsec::packet::{Version, address};
use ipsec::sa::Sa;
use ipsec::sa::association::Direction;
use ipsec::sa::peer::{Peer, Place};
use ipsec::time::Time;

use crate::daemon::refusal::Print;

/// Lines a second about moves, behind a burst of [`ipsec::ip::rate_limit::BURST`]. A NAT that
/// restarts moves all peers behind it; `sa list` shows them all.
const LINES: u32 = 10;

/// What is known of the peers that are followed.
pub(super) struct Peers {
    known: Vec<Known>,
    /// Counts the moves of all; `None`: nobody is followed.
    news: Option<Arc<AtomicU64>>,
    /// The count at the last look.
    heard: u64,
    lines: RateLimit,
}

/// One peer.
struct Known {
    peer: Arc<Peer>,
    /// Where it was at the last look.
    place: Place,
    /// The SAs between it and us.
    sas: Vec<Arc<Sa>>,
}

impl Peers {
    /// The peers of `sas`, where they are now.
    pub(super) fn new(sas: &[Arc<Sa>]) -> Self {
        let mut known: Vec<Known> = Vec::new();
        let mut places = HashMap::new();
        for sa in sas {
            let Some(peer) = &sa.peer else { continue };
            let place = *places.entry(Arc::as_ptr(peer)).or_insert(known.len());
            if place == known.len() {
                known.push(Known {
                    peer: Arc::clone(peer),
                    place: peer.place(),
                    sas: Vec::new(),
                });
            }
            known[place].sas.push(Arc::clone(sa));
        }
        Self {
            news: known.first().map(|it| Arc::clone(it.peer.news())),
            heard: 0,
            known,
            lines: RateLimit::new(LINES),
        }
    }

    /// Says which peers have moved since the last call, if any have, and lets their SAs forget what
    /// they knew of the way there.
    pub(super) fn take(&mut self, now: Time, print: Print) -> bool {
        let news = self.news.as_ref().map_or(0, |news| news.load(Acquire));
        if news == self.heard {
            return false;
        }
        self.heard = news;
        for known in &mut self.known {
            let place = known.peer.place();
            let before = std::mem::replace(&mut known.place, place);
            if place == before {
                continue;
            }
            for sa in &known.sas {
                sa.published.path_mtu.forget();
            }
            if self.lines.allow(now) {
                print(&line(known, before));
            }
        }
        true
    }
}

fn line(known: &Known, before: Place) -> String {
    let inbound = |sa: &&Arc<Sa>| sa.parameters.direction == Direction::In;
    let sa = known.sas.iter().find(inbound);
    let version = match sa.map(|sa| sa.parameters.destination.is_ipv4()) {
        Some(true) => Version::V4,
        Some(false) | None => Version::V6,
    };
    let text = |place: Place| {
        std::net::SocketAddr::new(address(version, place.address), place.port).to_string()
    };
    format!(
        "sa {}: peer moved from {} to {}",
        sa.map_or("", |sa| &sa.name),
        text(before),
        text(known.place)
    )
}
