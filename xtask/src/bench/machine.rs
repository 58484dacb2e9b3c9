//! The machine that the figures are of.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use xipsec_tests::{binary, shell};

/// CPU features that the ciphers go by.
const FEATURES: [&str; 8] = [
    "aes",
    "pclmulqdq",
    "avx2",
    "vaes",
    "vpclmulqdq",
    "sha_ni",
    "avx512f",
    "gfni",
];

/// Everything about it that a reader of a figure should know.
pub(crate) fn describe() -> Value {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags: Vec<&str> = field(&info, "flags").split_whitespace().collect();
    let features: Vec<&str> = FEATURES
        .into_iter()
        .filter(|feature| flags.contains(feature))
        .collect();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes: u64 = field(&memory, "MemTotal")
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "cpu": cpu(&info),
        "features": features,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "virtual": flags.contains(&"hypervisor"),
        "memory_gib": (kilobytes as f64 / 1_048_576.0).round(),
        "kernel": said("uname", &["-sr"]),
        "load": load.split_whitespace().next().unwrap_or("unknown"),
        "date": said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        "commit": commit(),
    })
}

/// Its name, and its generation, which virtual machines leave out of the name.
fn cpu(info: &str) -> String {
    let [name, family, model] = ["model name", "cpu family", "model"].map(|it| field(info, it));
    if family.is_empty() {
        return name.to_owned();
    }
    format!("{name} (family {family}, model {model})")
}

/// The value behind the first `name :` of a file of the kernel's.
fn field<'t>(text: &'t str, name: &str) -> &'t str {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| key.trim() == name);
    found.map_or("", |(_, value)| value.trim())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.current_dir(binary::workspace()).args(arguments);
    shell::run(&mut command).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The commit that was measured, and whether the tree had changes.
fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    let changes = said("git", &["status", "--porcelain", "--untracked-files=no"]);
    if changes.is_empty() {
        commit
    } else {
        format!("{commit} with changes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_stands_around_the_colon() {
        let text = "model name\t: A: B\nflags\t\t: aes avx2\n";
        assert_eq!(field(text, "model name"), "A: B");
        assert_eq!(field(text, "flags"), "aes avx2");
        assert_eq!(field(text, "bogomips"), "");
    }

    #[test]
    fn the_generation_of_a_cpu_is_told_where_the_kernel_tells_it() {
        let text = "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n";
        assert_eq!(cpu(text), "AMD EPYC (family 25, model 17)");
        assert_eq!(cpu("model name\t: other\n"), "other");
    }
}
