//! Says once when an SA reaches a limit of its lifetime, or its numbers run out: whoever makes the
//! next keys hears it while the old ones still work, also when no packet comes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipsec::sa::Sa;
use ipsec::sa::association::Direction;
use ipsec::sa::sequence::{is_running_out, last_number};
use ipsec::time::Time;

/// SAs that one look takes at most: a million of them are seen within a quarter of a minute.
const AT_ONCE: usize = 65_536;

/// What to do about it.
const REMEDY: &str = "new keys on both sides";

/// What was said already.
#[derive(Default)]
pub(super) struct Lifetimes {
    /// By SA: the limits whose line was printed.
    said: Vec<Vec<&'static str>>,
    /// Where the next look begins.
    next: usize,
}

impl Lifetimes {
    /// Looks at the next SAs; the lines that are to be printed. To be called about once a second.
    pub(super) fn look(&mut self, sas: &[Arc<Sa>], now: Time) -> Vec<String> {
        self.said.resize_with(sas.len(), Vec::new);
        let mut lines = Vec::new();
        for _ in 0..AT_ONCE.min(sas.len()) {
            self.next = (self.next + 1) % sas.len();
            let said = &mut self.said[self.next];
            tell(&sas[self.next], now, &mut |what, line| {
                if !said.contains(&what) {
                    said.push(what);
                    lines.push(line());
                }
            });
        }
        lines
    }
}

/// Offers a line for each limit that the SA has reached, under a name of the limit's own.
//= T04 T57 (RFC 4303 section 3.3.3, RFC 4301 section 4.4.2.1)
fn tell(sa: &Sa, now: Time, offer: &mut dyn FnMut(&'static str, &dyn Fn() -> String)) {
    let parameters = &sa.parameters;
    let name = &sa.name;
    for (key, limit, hard) in parameters.lifetime.reached(sa.published.usage(now)) {
        let (state, effect) = if hard {
            ("dead", ": its packets drop as sa_expired")
        } else {
            ("dying", "")
        };
        offer(key, &|| {
            format!("warning: sa {name}: {state}, {key} {limit} is reached{effect} ({REMEDY})")
        });
    }
    let sequence = sa.published.sequence.load(Ordering::Relaxed);
    if is_running_out(sequence, parameters.esn) {
        let bits = if parameters.esn { 64 } else { 32 };
        offer("numbers", &|| {
            format!(
                "warning: sa {name}: dying, nine tenths of its 2^{bits} sequence numbers are used \
                 ({REMEDY})"
            )
        });
    }
    if parameters.direction == Direction::Out && sequence >= last_number(parameters.esn) {
        offer("last number", &|| {
            format!(
                "warning: sa {name}: dead, its sequence numbers are used up: its packets drop as \
                 sequence_exhausted ({REMEDY})"
            )
        });
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::path::Path;

    use ipsec::sa::lifetime::Stage;
    use ipsec::time::SECOND;

    use super::*;
    use crate::assembly;
    use crate::config::{self, Purpose};
    use crate::state::unreserved;

    fn sas(extra: &str) -> Vec<Arc<Sa>> {
        let text = format!(
            "[dataplane]\nstate_dir = \"unused\"\n\
             [[port]]\nname = \"wan0\"\nside = \"unprotected\"\n\
             [[port]]\nname = \"lan0\"\nside = \"protected\"\n\
             [[sa]]\nname = \"out\"\ndirection = \"out\"\nprotocol = \"esp\"\n\
             mode = \"tunnel\"\nspi = 4097\nsource = \"192.0.2.1\"\n\
             destination = \"192.0.2.2\"\nencryption = \"aes128gcm16\"\n\
             encryption_key = \"{}\"\n{extra}\n",
            "07".repeat(20)
        );
        let text = text.into_bytes().into();
        let mut config = config::parse(Path::new("test.toml"), text, Purpose::Run).unwrap();
        let parameters = std::mem::take(&mut config.sas);
        let starts = unreserved(&parameters);
        assembly::sas(parameters, &[], &starts, Time(0)).unwrap()
    }

    //= test T57
    #[test]
    fn each_limit_is_told_once_also_when_no_packet_comes() {
        let sas = sas("lifetime = { soft_packets = 5, hard_packets = 9, soft_seconds = 60 }");
        let mut lives = Lifetimes::default();
        let mut at = |packets, seconds| {
            sas[0].published.packets.store(packets, Ordering::Relaxed);
            let lines = lives.look(&sas, Time(seconds * SECOND));
            (lines, sas[0].stage(Time(seconds * SECOND)))
        };
        let dying = |what| {
            let line =
                format!("warning: sa out: dying, {what} is reached (new keys on both sides)");
            (vec![line], Stage::Dying)
        };
        assert_eq!(at(4, 59), (vec![], Stage::Mature));
        assert_eq!(at(5, 59), dying("soft_packets 5"));
        assert_eq!(at(8, 59), (vec![], Stage::Dying));
        assert_eq!(at(8, 60), dying("soft_seconds 60"));
        let (lines, stage) = at(9, 61);
        assert_eq!((lines.len(), stage), (1, Stage::Dead));
        assert!(lines[0].contains("dead, hard_packets 9"), "{lines:?}");
        assert_eq!(at(9, 90), (vec![], Stage::Dead));
    }

    //= test T04
    #[test]
    fn numbers_that_run_out_are_told_and_shown() {
        let sas = sas("");
        let mut lives = Lifetimes::default();
        let last = u64::from(u32::MAX);
        let mut at = |sequence| {
            sas[0].published.sequence.store(sequence, Ordering::Relaxed);
            let lines = lives.look(&sas, Time(0));
            (lines.len(), sas[0].stage(Time(0)))
        };
        assert_eq!(at(last / 10 * 9 - 1), (0, Stage::Mature));
        assert_eq!(at(last / 10 * 9), (1, Stage::Dying));
        assert_eq!(at(last - 1), (0, Stage::Dying));
        assert_eq!(at(last), (1, Stage::Dead));
        assert_eq!(at(last), (0, Stage::Dead));
    }
}
