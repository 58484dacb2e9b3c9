//! NAPI, what busy polling polls: which one a socket's is, and what the interface says about its
//! interrupts beside. Changing that is the operator's: here it is read and told.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::port::interface::Control;

/// Interrupts that the NIC holds back while its queue is polled, and nanoseconds after which the
/// kernel looks for itself when nobody polls any more.
const KNOBS: [(&str, u64); 2] = [
    ("napi_defer_hard_irqs", 2),
    // The value of the kernel's own example (Documentation/networking/napi.rst).
    ("gro_flush_timeout", 200_000),
];

/// The NAPI of one socket. A driver that tells none is found out with the first frame: to ask for
/// what does nothing would cost a system call a round.
#[derive(Clone, Debug, Default)]
pub struct Napi(Arc<OnceLock<u32>>);

impl Napi {
    /// Its number; 0: the driver tells none. Nothing while that is not known.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.0.get().copied()
    }

    /// There is one, or that is not known yet.
    pub(super) fn may_be_polled(&self) -> bool {
        self.number() != Some(0)
    }

    /// A frame has come: asks, the first time.
    pub(super) fn learn(&self, ask: impl FnOnce() -> u32) {
        self.0.get_or_init(ask);
    }
}

/// What the knobs of `interface` mean for busy polling, and what to do about it.
pub(super) fn knobs(interface: &str) -> String {
    let folder = Path::new("/sys/class/net").join(interface);
    let index = Control::new().and_then(|control| control.index(interface));
    told(&folder, index.ok())
}

/// The same of the folder that sysfs has for the interface, if it is that of the interface with
/// this kernel index: sysfs may show another network namespace than the socket's.
fn told(folder: &Path, index: Option<u32>) -> String {
    let number = |file: &str| -> Option<u64> {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        text.trim().parse().ok()
    };
    let [defer, timeout] = KNOBS.map(|(file, _)| number(file));
    let same = index.map(u64::from) == number("ifindex");
    let (Some(defer), Some(timeout), true) = (defer, timeout, same) else {
        return "napi_defer_hard_irqs and gro_flush_timeout cannot be read here".to_owned();
    };
    let commands: Vec<String> = KNOBS
        .into_iter()
        .zip([defer, timeout])
        .filter(|(_, now)| *now == 0)
        .map(|((file, value), _)| format!("`echo {value} > {}/{file}`", folder.display()))
        .collect();
    if commands.is_empty() {
        return format!("napi_defer_hard_irqs {defer}, gro_flush_timeout {timeout} ns");
    }
    format!(
        "warning: napi_defer_hard_irqs is {defer} and gro_flush_timeout {timeout}, so interrupts \
         go on beside it: {}",
        commands.join(", ")
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn folder(defer: &str, timeout: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ifindex"), "7\n").unwrap();
        fs::write(folder.path().join("napi_defer_hard_irqs"), defer).unwrap();
        fs::write(folder.path().join("gro_flush_timeout"), timeout).unwrap();
        folder
    }

    #[test]
    fn knobs_at_zero_come_with_the_command_for_them() {
        let both = folder("0\n", "0\n");
        let path = both.path().display();
        assert_eq!(
            told(both.path(), Some(7)),
            format!(
                "warning: napi_defer_hard_irqs is 0 and gro_flush_timeout 0, so interrupts go on \
                 beside it: `echo 2 > {path}/napi_defer_hard_irqs`, `echo 200000 > \
                 {path}/gro_flush_timeout`"
            )
        );
        let one = told(folder("2\n", "0\n").path(), Some(7));
        assert!(
            !one.contains("echo 2 >") && one.contains("echo 200000 >"),
            "{one}"
        );
        assert_eq!(
            told(folder("2\n", "50000\n").path(), Some(7)),
            "napi_defer_hard_irqs 2, gro_flush_timeout 50000 ns"
        );
    }

    #[test]
    fn the_first_frame_tells_and_what_tells_nothing_is_not_polled_again() {
        let napi = Napi::default();
        assert!(napi.number().is_none() && napi.may_be_polled());
        let told = napi.clone();
        napi.learn(|| 8193);
        napi.learn(|| 0);
        assert!(told.number() == Some(8193) && told.may_be_polled());
        let none = Napi::default();
        none.learn(|| 0);
        assert!(none.number() == Some(0) && !none.may_be_polled());
    }

    #[test]
    fn another_namespaces_interface_is_not_ours() {
        let folder = folder("2\n", "50000\n");
        for index in [Some(8), None] {
            assert!(told(folder.path(), index).ends_with("cannot be read here"));
        }
        assert!(told(&folder.path().join("none"), Some(7)).ends_with("cannot be read here"));
    }
}
