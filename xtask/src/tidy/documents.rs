//! What an operator meets is described: every drop reason, every configuration key; and links lead
//! somewhere.

use std::path::Path;

use super::{Finding, Source};

/// Where the reasons are defined, one `Variant = "name",` a line.
const REASONS: &str = "dataplane/ipsec/src/verdict.rs";
/// Where an operator looks them up.
const MANUAL: &str = "docs/OPERATING.md";
/// The sample that names every key.
const SAMPLE: &str = "packaging/xipsec.toml";

/// Every configuration key. The list stands here and not in the schema: a key that is renamed or
/// dropped in code must not vanish unnoticed from what operators rely on.
const KEYS: &str = "
    workers cores batch xdp_mode zero_copy busy_poll idle rings umem control_socket control_group
    state_dir forwarding keys unmatched guard host_port metrics allow_legacy icmp path_mtu fragments
    name side address mac mtu checksum
    direction protocol mode spi source destination encryption integrity encryption_key
    encryption_key_file integrity_key integrity_key_file esn sequence replay_window
    udp_encapsulation keepalive_seconds follow_peer lifetime dont_fragment dscp ecn hop_limit
    flow_label tfc_pad_to per_worker
    action local remote local_port remote_port icmp_type icmp_code priority tcp_mss sa alternatives
    prefix port via
    microseconds budget rx tx fill completion frames frame_size huge_pages accept_unprotected
    accept_protected errors_per_second send_unreachable minimum age_seconds packets bytes timeout_ms
    reassemble_udp
    source_port destination_port soft_packets hard_packets soft_bytes hard_bytes soft_seconds
    hard_seconds";

pub(super) fn check(root: &Path, sources: &[Source], findings: &mut Vec<Finding>) {
    let text = |path: &str| sources.iter().find(|source| source.path == Path::new(path));
    let manual = text(MANUAL).map_or("", |source| &source.text);
    let sample = text(SAMPLE).map_or("", |source| &source.text);
    if let Some(reasons) = text(REASONS) {
        for (line, name) in drop_reasons(&reasons.text) {
            if !manual.contains(&format!("`{name}`")) {
                findings.push(Finding::new(
                    reasons,
                    line,
                    format!("`{name}` is not in {MANUAL}"),
                ));
            }
        }
    }
    for key in KEYS
        .split_whitespace()
        .filter(|key| !describes(manual, sample, key))
    {
        findings.push(Finding {
            path: SAMPLE.into(),
            line: 1,
            text: format!("key {key} is neither here nor in {MANUAL}"),
            fatal: true,
        });
    }
    for source in sources.iter().filter(|source| source.has_ending("md")) {
        links(root, sources, source, findings);
    }
}

fn describes(manual: &str, sample: &str, key: &str) -> bool {
    let assigned = format!("{key} =");
    let opens_word = |(at, _): (usize, &str)| !sample[..at].ends_with(is_word);
    manual.contains(&format!("`{key}`")) || sample.match_indices(&assigned).any(opens_word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Line index and name of each reason.
fn drop_reasons(text: &str) -> Vec<(usize, &str)> {
    let name = |line: &'_ str| -> Option<(usize, usize)> {
        let start = line.find(" = \"")? + 4;
        let end = line.strip_suffix("\",")?.len();
        (line.starts_with("    ") && start < end).then_some((start, end))
    };
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| name(line).map(|(a, b)| (index, &line[a..b])))
        .collect()
}

/// Links to files and headings of this repository.
fn links(root: &Path, sources: &[Source], source: &Source, findings: &mut Vec<Finding>) {
    let mut fenced = false;
    for (line, text) in source.text.lines().enumerate() {
        fenced ^= text.trim_start().starts_with("```");
        for part in text.split("](").skip(1).filter(|_| !fenced) {
            let target = part.split(')').next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = source.path.parent().unwrap_or_else(|| Path::new(""));
            let path = if file.is_empty() {
                source.path.clone()
            } else {
                folder.join(file)
            };
            let linked = sources
                .iter()
                .find(|other| root.join(&other.path) == root.join(&path));
            let found = linked.is_some_and(|other| has_heading(&other.text, heading));
            let plain = heading.is_empty() && root.join(&path).exists();
            if !found && !plain {
                findings.push(Finding::new(
                    source,
                    line,
                    format!("{target} leads nowhere"),
                ));
            }
        }
    }
}

fn has_heading(text: &str, wanted: &str) -> bool {
    let anchor = |line: &str| -> String {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| is_word(*c) || matches!(c, ' ' | '-'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    wanted.is_empty()
        || text
            .lines()
            .any(|line| line.starts_with('#') && anchor(line) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_from_the_list() {
        let text = "drop_reasons! {\n    /// Text.\n    NoSa = \"no_sa\",\n}\n";
        assert_eq!(drop_reasons(text), [(2, "no_sa")]);
    }

    #[test]
    fn keys_are_whole_words() {
        assert!(describes("", "fill = 1", "fill"));
        assert!(!describes("", "refill = 1", "fill"));
        assert!(describes("the `fill` ring", "", "fill"));
    }

    #[test]
    fn headings_have_anchors_as_on_the_web() {
        assert!(has_heading("# One\n## What's a `port`?\n", "whats-a-port"));
        assert!(!has_heading("# One\n", "two"));
    }
}
