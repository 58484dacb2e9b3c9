//! To which peers nothing was sent for how long: when a NAT keepalive is due (RFC 3948 §4).
//!
//! What SAs have sent stands in the counters that they publish, so that no packet costs anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ipsec::limits::BATCH;
use ipsec::sa::Sa;
use ipsec::sa::association::Direction;
use ipsec::sa::database::Sad;
use ipsec::sa::lifetime::Stage;
use ipsec::sa::peer::Place;
use ipsec::time::{MILLISECOND, SECOND, Time};

/// How often every peer is looked at: a keepalive is at most so much late.
const PASS: u64 = 100 * MILLISECOND;

/// A peer that must hear from us, and the SAs by which it does: those that share addresses and
/// ports share the NAT's mapping.
pub(super) struct Watch {
    sas: Vec<Arc<Sa>>,
    /// The shortest that any of them wants, nanoseconds.
    interval: u64,
    /// Packets of all of them, at the last look.
    sent: u64,
    /// When something was sent last, or the watch began.
    since: Time,
}

/// What identifies a watch: IP version, both ends as configured, whether the peer is followed.
type Key = (bool, [Place; 2], bool);

/// Who has not heard from us for how long: all peers that want keepalives.
#[derive(Default)]
pub(super) struct Silence {
    /// The SAs that the watches are about.
    sad: Option<Arc<Sad>>,
    watches: Vec<(Key, Watch)>,
    /// The next watch of the pass, 0 between passes.
    place: usize,
    /// When the last pass began.
    begun: Time,
}

impl Silence {
    /// True between the first and the last look of a pass.
    pub(super) const fn is_amid_pass(&self) -> bool {
        self.place > 0
    }

    /// Takes over the SAs of another generation. What was known of a peer stays known.
    pub(super) fn adopt(&mut self, sad: &Arc<Sad>, now: Time) {
        if self.sad.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, sad)) {
            return;
        }
        self.sad = Some(Arc::clone(sad));
        self.place = 0;
        let known: HashMap<Key, Watch> = std::mem::take(&mut self.watches).into_iter().collect();
        let mut watches: HashMap<Key, Watch> = HashMap::new();
        for sa in sad.iter().filter(|sa| sends_encapsulated(sa)) {
            let parameters = &sa.parameters;
            let version = parameters.destination.is_ipv4();
            let key = (version, parameters.ends(), sa.peer.is_some());
            let watch = watches.entry(key).or_insert_with(|| Watch {
                sas: Vec::new(),
                interval: u64::MAX,
                sent: known.get(&key).map_or(0, |watch| watch.sent),
                since: known.get(&key).map_or(now, |watch| watch.since),
            });
            if parameters.keepalive_seconds > 0 {
                let wanted = u64::from(parameters.keepalive_seconds) * SECOND;
                watch.interval = watch.interval.min(wanted);
            }
            watch.sas.push(Arc::clone(sa));
        }
        self.watches = watches
            .into_iter()
            .filter(|(_, watch)| watch.interval < u64::MAX)
            .collect();
    }

    /// The watches whose turn it is, a batch at most.
    pub(super) fn turn(&mut self, now: Time) -> &mut [(Key, Watch)] {
        if self.place == 0 {
            if now.since(self.begun) < PASS {
                return &mut [];
            }
            self.begun = now;
        }
        let first = self.place;
        let end = (first + BATCH).min(self.watches.len());
        self.place = if end == self.watches.len() { 0 } else { end };
        &mut self.watches[first..end]
    }
}

fn sends_encapsulated(sa: &Sa) -> bool {
    sa.parameters.direction == Direction::Out && sa.parameters.udp_encapsulation.is_some()
}

impl Watch {
    /// The SA by which a keepalive is due: nothing was sent for the interval, and the SA lives.
    //= T136 (RFC 3948 sections 2.3, 4)
    pub(super) fn due(&mut self, now: Time) -> Option<&Arc<Sa>> {
        let packets = self.sas.iter().map(|sa| &sa.published.packets);
        let sent = packets.fold(0_u64, |sum, it| sum.wrapping_add(it.load(Relaxed)));
        if sent != self.sent {
            self.sent = sent;
            self.since = now;
        }
        if now.since(self.since) < self.interval {
            return None;
        }
        self.sas.iter().find(|sa| {
            let stage = sa.published.stage(&sa.parameters.lifetime, now);
            stage != Stage::Dead
        })
    }

    /// A keepalive was sent.
    pub(super) const fn sent_at(&mut self, now: Time) {
        self.since = now;
    }
}
