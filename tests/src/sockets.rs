//! What became of UDP datagrams in the kernels at both ends of a wire, by their own counters.

use std::fmt;

use anyhow::{Context, Result};

/// Counters of `cat /proc/net/snmp /proc/net/snmp6`, both IP versions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Lost in a socket: its buffer was full, or memory short (`InErrors` has `RcvbufErrors`,
    /// `MemErrors` and bad checksums in it).
    pub lost: u64,
    /// Arrived when nobody listened any more: an answer that came too late.
    pub late: u64,
}

/// What prints the text that [`Sockets::read`] takes.
pub const COMMAND: &str = "cat /proc/net/snmp /proc/net/snmp6";

/// What prints every place where a kernel may lose a packet: protocols, interfaces, the queues of
/// its CPUs, of its neighbours, of its interfaces.
pub const PLACES: [&str; 4] = [
    COMMAND,
    "head -v /proc/net/dev /proc/net/softnet_stat /proc/net/stat/arp_cache \
     /proc/net/stat/ndisc_cache",
    "ip -s neigh",
    "tc -s qdisc",
];

/// Datagrams that askers missed and asked for again, and every reason that one can have. As long as
/// they are not more than their reasons, nothing got lost without a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Sent again.
    pub repeated: u64,
    /// Dropped here, before its number was reserved.
    pub waited: u64,
    /// Lost in a socket.
    pub lost: u64,
    /// The answer was late: it came again, or to nobody.
    pub late: u64,
}

impl Missed {
    /// Whether each has its reason.
    #[must_use]
    pub const fn is_explained(self) -> bool {
        self.repeated <= self.waited + self.lost + self.late
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            repeated,
            waited,
            lost,
            late,
        } = self;
        write!(
            f,
            "{repeated} missed: {waited} before a reservation, {lost} lost in sockets, {late} late"
        )
    }
}

impl Sockets {
    /// Reads the counters.
    ///
    /// # Errors
    /// When one is missing.
    pub fn read(text: &str) -> Result<Self> {
        let mut rows = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
        let (names, values) = rows.next().zip(rows.next()).context("no UDP counters")?;
        let v4 = |name: &str| -> Result<u64> {
            let mut both = names.split_whitespace().zip(values.split_whitespace());
            let (_, value) = both.find(|(it, _)| *it == name).context("no counter")?;
            Ok(value.parse()?)
        };
        let v6 = |name: &str| -> Result<u64> {
            let mut lines = text.lines().map(str::split_whitespace);
            let value =
                lines.find_map(|mut words| (words.next()? == name).then(|| words.next())?);
            Ok(value.context("no counter of IPv6")?.parse()?)
        };
        Ok(Self {
            lost: v4("InErrors")? + v6("Udp6InErrors")?,
            late: v4("NoPorts")? + v6("Udp6NoPorts")?,
        })
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            late: self.late + other.late,
        }
    }

    /// What was added since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            lost: self.lost.saturating_sub(before.lost),
            late: self.late.saturating_sub(before.late),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    const TEXT: &str = "Ip: Forwarding\nIp: 1\n\
        Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 100 2 3 4 3\n\
        UdpLite: InDatagrams NoPorts InErrors\nUdpLite: 7 7 7\n\
        Ip6InReceives 9\nUdp6InDatagrams                 \t55\n\
        Udp6NoPorts                     \t10\nUdp6InErrors \t20\nUdpLite6InErrors \t7\n";

    #[test]
    fn both_versions_count_and_nothing_else() {
        let read = Sockets::read(TEXT).unwrap();
        assert_eq!((read.lost, read.late), (23, 12));
        let before = Sockets { lost: 20, late: 12 };
        assert_eq!(read.since(before), Sockets { lost: 3, late: 0 });
        assert_eq!(read.and(before), Sockets { lost: 43, late: 24 });
        assert!(Sockets::read("").is_err());
        assert!(Sockets::read(&TEXT.replace("Udp6InErrors", "other")).is_err());
    }

    #[test]
    fn one_more_than_the_reasons_is_one_too_many() {
        let [waited, lost, late] = [1, 2, 4];
        let missed = |repeated| Missed {
            repeated,
            waited,
            lost,
            late,
        };
        assert!(missed(7).is_explained());
        assert!(!missed(8).is_explained());
        let text = "8 missed: 1 before a reservation, 2 lost in sockets, 4 late";
        assert_eq!(missed(8).to_string(), text);
    }
}
