//! Path MTUs learned from ICMP errors about our own packets (RFC 4301 §8.2): which errors are
//! believed, what they change, and how long that holds.

use std::sync::Arc;

use ipsec::ip::icmp_error::Heeded;
use ipsec::ip::rate_limit::RateLimit;
use ipsec::packet::Version;
use ipsec::sa::Sa;
use ipsec::sa::path_mtu::{Complaint, Report, lowered};
use ipsec::time::{SECOND, Time};

use crate::assembly;
use crate::config::Dataplane;
use crate::daemon::refusal::Print;
use crate::netlink::icmp::{IcmpError, IcmpErrors};
use crate::snapshot::Snapshot;

/// Lines a second about errors, behind a burst of [`ipsec::ip::rate_limit::BURST`].
const LINES: u32 = 1;

/// What the gateway does about errors in the clear.
pub(super) struct PathMtus {
    sockets: Option<IcmpErrors>,
    heeded: Heeded,
    minimum: u16,
    /// Nanoseconds.
    age: u64,
    /// SAs with an estimate.
    learned: Vec<Arc<Sa>>,
    lines: RateLimit,
}

impl PathMtus {
    /// Listens, unless nothing is to be heeded.
    pub(super) fn new(dataplane: &Dataplane, print: Print) -> Self {
        let heeded = assembly::heeded(&dataplane.icmp.accept_unprotected);
        let sockets = (heeded != Heeded::NONE)
            .then(IcmpErrors::new)
            .transpose()
            .unwrap_or_else(|error| {
                print(&format!(
                    "warning: ICMP errors cannot be read, path MTUs are not learned: {error}"
                ));
                None
            });
        Self {
            sockets,
            heeded,
            minimum: dataplane.path_mtu.minimum,
            age: u64::from(dataplane.path_mtu.age_seconds) * SECOND,
            learned: Vec::new(),
            lines: RateLimit::new(LINES),
        }
    }

    /// Waits for errors. Cancelling loses nothing.
    pub(super) async fn receive(&mut self, print: Print) -> Vec<IcmpError> {
        if let Some(sockets) = &mut self.sockets {
            match sockets.receive().await {
                Ok(errors) => return errors,
                // A raw socket has none but those of a machine in trouble.
                Err(error) => {
                    print(&format!(
                        "warning: ICMP errors cannot be read any more, path MTUs are not learned: \
                         {error} (restart the gateway)"
                    ));
                    self.sockets = None;
                }
            }
        }
        std::future::pending().await
    }

    /// Believes what deserves it. True: an SA's estimate is another one.
    pub(super) fn take(
        &mut self,
        errors: &[IcmpError],
        snapshot: &Snapshot,
        now: Time,
        print: Print,
    ) -> bool {
        let mut changed = false;
        for error in errors {
            let Some((sa, report)) = self.concerned(error, snapshot) else {
                continue;
            };
            changed |= match report.complaint {
                Complaint::TooBig(told) => self.lower(&sa, &report, told, error, now, print),
                Complaint::Other(kind, code) => {
                    if self.lines.allow(now) {
                        print(&format!(
                            "sa {}: ICMP error {kind}/{code} from {} about its packets",
                            sa.name, error.from
                        ));
                    }
                    false
                }
            };
        }
        changed
    }

    /// The SA that an error is about, if it is heeded and names what only the way can know.
    //= T65 (RFC 4301 sections 6.1.1, 8.2.1)
    fn concerned(&self, error: &IcmpError, snapshot: &Snapshot) -> Option<(Arc<Sa>, Report)> {
        let report = match error.version {
            Version::V4 => Report::of_v4(&error.bytes),
            Version::V6 => Report::of_v6(&error.bytes),
        }?;
        let (kind, code) = report.kind();
        if !self.heeded.takes(error.version, kind, code) {
            return None;
        }
        let sa = snapshot.tables.sender(&report)?;
        Some((Arc::clone(sa), report))
    }

    //= T126 T127 (RFC 4301 section 8.2.1, RFC 1191 section 3)
    fn lower(
        &mut self,
        sa: &Arc<Sa>,
        report: &Report,
        told: u32,
        error: &IcmpError,
        now: Time,
        print: Print,
    ) -> bool {
        let path = &sa.published.path_mtu;
        let known = path.bytes();
        let new = lowered(error.version, told, report.length, known, self.minimum);
        let Some(new) = new else {
            return false;
        };
        // Confirmed too: no larger size is tried before its age is over.
        path.learn(new, now);
        if !self.learned.iter().any(|known| Arc::ptr_eq(known, sa)) {
            self.learned.push(Arc::clone(sa));
        }
        if new < known && self.lines.allow(now) {
            print(&format!(
                "sa {}: path MTU {new}, by {}",
                sa.name, error.from
            ));
        }
        new < known
    }

    /// Forgets what is too old. True: an SA's estimate is gone.
    //= T62 T128 (RFC 4301 section 8.2.2)
    pub(super) fn forget(&mut self, now: Time) -> bool {
        let before = self.learned.len();
        self.learned.retain(|sa| {
            let path = &sa.published.path_mtu;
            path.forget_after(self.age, now);
            // A peer that moved may have made it forget too.
            path.learned().is_some()
        });
        self.learned.len() < before
    }
}
