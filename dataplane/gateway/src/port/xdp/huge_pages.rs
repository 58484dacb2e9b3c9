//! Whether the machine has the huge pages that packet memory asks for. Asked before a port is
//! touched, so that the refusal can say how many it takes.

use std::fs;

use crate::port::settings::Umem;

/// The machine's pool of huge pages of the default size, which anonymous mappings take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// KiB of one page.
    page_kib: u64,
    /// Pages that `vm.nr_hugepages` made.
    total: u64,
    /// Pages that a mapping can still have.
    available: u64,
}

/// Why packet memory cannot lie in huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HugePagesError {
    /// The kernel was built without.
    #[error(
        "umem.huge_pages: this kernel has none (take one with CONFIG_HUGETLBFS=y, or huge_pages = \
         false)"
    )]
    Unknown,
    /// A mapping of huge pages is unmapped by whole pages alone.
    #[error(
        "umem.huge_pages: {frames} frames of {frame_size} bytes are no whole number of huge pages \
         of {page_kib} KiB (frames = {fitting})"
    )]
    Broken {
        /// As configured.
        frames: u32,
        /// As configured.
        frame_size: u32,
        /// KiB of one page.
        page_kib: u64,
        /// The next number of frames that fits.
        fitting: u64,
    },
    /// The pool has too few.
    #[error(
        "umem.huge_pages: {needed} huge pages of {page_kib} KiB are needed, {each} for each of \
         {sockets} sockets, and {available} are free (sysctl -w vm.nr_hugepages={wanted})"
    )]
    TooFew {
        /// Pages in all.
        needed: u64,
        /// KiB of one page.
        page_kib: u64,
        /// Pages for each socket.
        each: u64,
        /// Sockets.
        sockets: u64,
        /// Pages that can be had.
        available: u64,
        /// What the pool must be.
        wanted: u64,
    },
}

impl Pool {
    /// The machine's.
    ///
    /// # Errors
    /// It has none.
    pub fn of_machine() -> Result<Self, HugePagesError> {
        let facts = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let overcommit = fs::read_to_string("/proc/sys/vm/nr_overcommit_hugepages");
        Self::of(&facts, &overcommit.unwrap_or_default()).ok_or(HugePagesError::Unknown)
    }

    /// From the text of `/proc/meminfo` and the sysctl `vm.nr_overcommit_hugepages`.
    fn of(facts: &str, overcommit: &str) -> Option<Self> {
        let number = |name: &str| -> Option<u64> {
            let line = facts.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(':')?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        };
        let page_kib = number("Hugepagesize").filter(|size| *size > 0)?;
        let total = number("HugePages_Total")?;
        let unreserved = number("HugePages_Free")?.saturating_sub(number("HugePages_Rsvd")?);
        let surplus = number("HugePages_Surp")?;
        // What the kernel may make on demand, beyond the pool.
        let spare: u64 = overcommit.trim().parse().unwrap_or(0);
        Some(Self {
            page_kib,
            total: total.saturating_sub(surplus),
            available: unreserved + spare.saturating_sub(surplus),
        })
    }

    /// Pages that `sockets` sockets take with such memory.
    ///
    /// # Errors
    /// It fills no whole pages, or there are too few.
    pub fn check(self, umem: Umem, sockets: u64) -> Result<u64, HugePagesError> {
        let bytes = u64::from(umem.frames) * u64::from(umem.frame_size);
        let page = self.page_kib << 10;
        if !bytes.is_multiple_of(page) {
            return Err(HugePagesError::Broken {
                frames: umem.frames,
                frame_size: umem.frame_size,
                page_kib: self.page_kib,
                fitting: bytes.next_multiple_of(page) / u64::from(umem.frame_size),
            });
        }
        let each = bytes / page;
        let needed = each * sockets;
        if needed > self.available {
            return Err(HugePagesError::TooFew {
                needed,
                page_kib: self.page_kib,
                each,
                sockets,
                available: self.available,
                wanted: self.total + (needed - self.available),
            });
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       24639064 kB\nHugePages_Total:      20\n\
        HugePages_Free:       18\nHugePages_Rsvd:        6\nHugePages_Surp:        0\n\
        Hugepagesize:       2048 kB\nHugetlb:           40960 kB\n";

    fn umem(frames: u32) -> Umem {
        Umem {
            frames,
            huge_pages: true,
            ..Umem::default()
        }
    }

    #[test]
    fn what_is_reserved_by_others_is_not_free_and_what_may_be_made_is() {
        let pool = |overcommit| Pool::of(MEMINFO, overcommit).map(|pool| pool.available);
        assert_eq!((pool("0\n"), pool("5\n")), (Some(12), Some(17)));
        let surplus = MEMINFO.replace("Surp:        0", "Surp:        2");
        let pool = Pool::of(&surplus, "5\n").map(|pool| (pool.total, pool.available));
        assert_eq!(pool, Some((18, 15)));
        assert_eq!(Pool::of("MemTotal: 1 kB\n", "0"), None);
    }

    #[test]
    fn refusals_say_how_many_pages_it_takes() {
        let pool = Pool {
            page_kib: 2048,
            total: 20,
            available: 12,
        };
        assert_eq!(pool.check(umem(1024), 6), Ok(12));
        let told = |frames, sockets| {
            pool.check(umem(frames), sockets)
                .map_err(|it| it.to_string())
        };
        assert_eq!(
            told(8192, 2),
            Err(
                "umem.huge_pages: 32 huge pages of 2048 KiB are needed, 16 for each of 2 sockets, \
                 and 12 are free (sysctl -w vm.nr_hugepages=40)"
                    .to_owned()
            )
        );
        assert_eq!(
            told(1000, 1),
            Err(
                "umem.huge_pages: 1000 frames of 4096 bytes are no whole number of huge pages of \
                 2048 KiB (frames = 1024)"
                    .to_owned()
            )
        );
    }
}
