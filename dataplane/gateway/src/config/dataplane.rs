//! `[dataplane]`.

use std::path::PathBuf;

use ipsec::ip::reassemble::TIMEOUT_MAXIMUM;
use ipsec::limits::BATCH;
use ipsec::time::MILLISECOND;
use toml::de::DeValue;

use crate::config::reader::{Entry, Findings, Table};
use crate::config::report::quoted;
use crate::config::settings::{
    Dataplane, Forwarding, Fragments, Guard, Icmp, IcmpAccept, IcmpType, Keys, PathMtu, Unmatched,
    Workers,
};
use crate::port::settings::{BusyPoll, Idle, Rings, Umem, XdpMode, ZeroCopy};

/// Longest name of an interface: IFNAMSIZ without its NUL.
const INTERFACE_NAME: usize = 15;

/// Longest path of a socket: `sun_path` without its NUL.
const SOCKET_PATH: usize = 107;

/// The table, and the lines of what is compared with other tables.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) settings: Dataplane,
    pub(super) state_dir_line: usize,
    pub(super) host_port_line: usize,
}

/// Reads the table.
pub(super) fn read<'d>(found: &mut Findings<'d>, mut table: Table<'d>) -> Draft {
    let mut draft = Draft::default();
    let settings = &mut draft.settings;
    read_workers(found, &mut table, settings);
    read_ports(found, &mut table, settings);
    read_sources(found, &mut table, settings);
    if let Some(icmp) = table.table(found, "icmp") {
        settings.icmp = read_icmp(found, icmp);
    }
    if let Some(path_mtu) = table.table(found, "path_mtu") {
        settings.path_mtu = read_path_mtu(found, path_mtu);
    }
    if let Some(fragments) = table.table(found, "fragments") {
        settings.fragments = read_fragments(found, fragments);
    }
    if let Some(entry) = table.take(found, "state_dir") {
        draft.state_dir_line = entry.line;
        if let Some(path) = entry.text(found, "a path, or \"\" for no persistence") {
            settings.state_dir = (!path.is_empty()).then(|| PathBuf::from(path));
        }
    }
    if let Some(entry) = table.take(found, "host_port") {
        draft.host_port_line = entry.line;
        read_host_port(found, &entry, settings);
    }
    table.finish(found);
    draft
}

fn read_workers<'d>(found: &mut Findings<'d>, table: &mut Table<'d>, settings: &mut Dataplane) {
    if let Some(entry) = table.take(found, "cores") {
        settings.cores = read_cores(found, &entry);
    }
    if let Some(entry) = table.take(found, "workers") {
        let accepted = "auto | a number from 1 to 1024";
        match entry.value.get_ref() {
            DeValue::String(text) if text == "auto" => {}
            DeValue::String(text) => {
                entry.refuse(found, format!("{} is unknown", quoted(text)), accepted);
            }
            _ => {
                if let Some(count) = entry.number_as(found, 1..=1024, accepted) {
                    settings.workers = Workers::Count(count);
                    let cores = settings.cores.as_ref().map(Vec::len);
                    if cores.is_some_and(|cores| cores != usize::from(count)) {
                        let accepted = "auto, or as many as cores";
                        entry.refuse(found, "differs from the number of cores", accepted);
                    }
                }
            }
        }
    }
    if let Some(entry) = table.take(found, "batch") {
        let largest = u64::try_from(BATCH).unwrap_or(u64::MAX);
        let batch = entry.number(found, 1..=largest);
        settings.batch = batch
            .and_then(|it| usize::try_from(it).ok())
            .unwrap_or(BATCH);
    }
    if let Some(entry) = table.take(found, "idle") {
        let choices = [
            ("adaptive", Idle::Adaptive),
            ("spin", Idle::Spin),
            ("sleep", Idle::Sleep),
        ];
        settings.idle = entry.choice(found, &choices).unwrap_or_default();
    }
}

fn read_cores<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<Vec<u16>> {
    let accepted = "a list of different CPU numbers from 0 to 65535";
    let mut cores = Vec::new();
    for element in entry.elements(found, false, accepted)? {
        if let Some(core) = element.number_as(found, 0..=u16::MAX, accepted) {
            if cores.contains(&core) {
                element.refuse(found, format!("CPU {core} twice"), accepted);
            }
            cores.push(core);
        }
    }
    Some(cores)
}

fn read_ports<'d>(found: &mut Findings<'d>, table: &mut Table<'d>, settings: &mut Dataplane) {
    if let Some(entry) = table.take(found, "xdp_mode") {
        let choices = [
            ("auto", XdpMode::Auto),
            ("native", XdpMode::Native),
            ("generic", XdpMode::Generic),
        ];
        settings.xdp_mode = entry.choice(found, &choices).unwrap_or_default();
    }
    if let Some(entry) = table.take(found, "zero_copy") {
        let choices = [
            ("auto", ZeroCopy::Auto),
            ("on", ZeroCopy::On),
            ("off", ZeroCopy::Off),
        ];
        settings.zero_copy = entry.choice(found, &choices).unwrap_or_default();
    }
    if let Some(busy_poll) = table.table(found, "busy_poll") {
        settings.busy_poll = Some(read_busy_poll(found, busy_poll));
    }
    if let Some(rings) = table.table(found, "rings") {
        settings.rings = read_rings(found, rings);
    }
    if let Some(umem) = table.table(found, "umem") {
        settings.umem = read_umem(found, umem);
    }
}

fn read_busy_poll<'d>(found: &mut Findings<'d>, mut table: Table<'d>) -> BusyPoll {
    let microseconds = table.take(found, "microseconds");
    let budget = table.take(found, "budget");
    let busy_poll = BusyPoll {
        microseconds: microseconds
            .and_then(|entry| entry.number(found, 1..=1_000_000))
            .unwrap_or(20),
        budget: budget
            .and_then(|entry| entry.number(found, 1..=65535))
            .unwrap_or(64),
    };
    table.finish(found);
    busy_poll
}

fn read_rings<'d>(found: &mut Findings<'d>, mut table: Table<'d>) -> Rings {
    let mut rings = Rings::default();
    for (key, entries) in [
        ("rx", &mut rings.rx),
        ("tx", &mut rings.tx),
        ("fill", &mut rings.fill),
        ("completion", &mut rings.completion),
    ] {
        let accepted = "a power of two from 2 to 65536";
        if let Some(entry) = table.take(found, key)
            && let Some(number) = entry.number_as(found, 2..=65536_u32, accepted)
        {
            if !number.is_power_of_two() {
                entry.refuse(found, format!("{number} is no power of two"), accepted);
            }
            *entries = number;
        }
    }
    table.finish(found);
    rings
}

fn read_umem<'d>(found: &mut Findings<'d>, mut table: Table<'d>) -> Umem {
    let mut umem = Umem::default();
    if let Some(entry) = table.take(found, "frames") {
        let accepted = "an even number from 2 to 16777216";
        if let Some(frames) = entry.number_as(found, 2..=16_777_216_u32, accepted) {
            if !frames.is_multiple_of(2) {
                entry.refuse(found, format!("{frames} is odd"), accepted);
            }
            umem.frames = frames;
        }
    }
    if let Some(entry) = table.take(found, "frame_size") {
        let accepted = "2048 or 4096";
        if let Some(size) = entry.number_as(found, 2048..=4096_u32, accepted) {
            if !size.is_power_of_two() {
                entry.refuse(found, format!("{size} is out of range"), accepted);
            }
            umem.frame_size = size;
        }
    }
    if let Some(entry) = table.take(found, "huge_pages") {
        umem.huge_pages = entry.boolean(found).unwrap_or_default();
    }
    table.finish(found);
    umem
}

fn read_sources<'d>(found: &mut Findings<'d>, table: &mut Table<'d>, settings: &mut Dataplane) {
    if let Some(entry) = table.take(found, "control_socket") {
        let accepted = "a path of 1 to 107 bytes";
        if let Some(path) = entry.text(found, accepted) {
            if path.is_empty() || path.len() > SOCKET_PATH {
                entry.refuse(found, "no path of a socket", accepted);
            }
            settings.control_socket = PathBuf::from(path);
        }
    }
    if let Some(entry) = table.take(found, "control_group")
        && let Some(group) = entry.text(found, "the name of a group")
    {
        group.clone_into(&mut settings.control_group);
    }
    if let Some(entry) = table.take(found, "forwarding") {
        let choices = [
            ("kernel", Forwarding::Kernel),
            ("static", Forwarding::Static),
        ];
        settings.forwarding = entry.choice(found, &choices).unwrap_or_default();
    }
    if let Some(entry) = table.take(found, "keys") {
        let choices = [("file", Keys::File), ("kernel", Keys::Kernel)];
        settings.keys = entry.choice(found, &choices).unwrap_or_default();
        if settings.keys == Keys::Kernel {
            //= exception T112: keys by hand, from the file; keys by a protocol come with the
            //= mirror of the kernel's XFRM state, which an unmodified IKE daemon fills
            found.not_built(entry.line, &entry.key, "file");
        }
    }
    if let Some(entry) = table.take(found, "unmatched") {
        let choices = [
            ("kernel", Unmatched::Kernel),
            ("discard", Unmatched::Discard),
        ];
        settings.unmatched = entry.choice(found, &choices).unwrap_or_default();
    }
    if let Some(entry) = table.take(found, "guard") {
        let choices = [("closed", Guard::Closed), ("open", Guard::Open)];
        settings.guard = entry.choice(found, &choices).unwrap_or_default();
        if settings.guard == Guard::Open {
            let why = "when the gateway stops, the kernel forwards in clear what policy protects";
            found.warning(entry.line, &entry.key, why);
        }
    }
    if let Some(entry) = table.take(found, "metrics") {
        let accepted = "ADDRESS:PORT";
        if let Some(text) = entry.text(found, accepted) {
            settings.metrics = text.parse().ok();
            if settings.metrics.is_none() {
                entry.refuse(
                    found,
                    format!("{} is no address and port", quoted(text)),
                    accepted,
                );
            }
        }
        found.not_built(entry.line, &entry.key, "leave it out");
    }
    if let Some(entry) = table.take(found, "allow_legacy") {
        settings.allow_legacy = entry.boolean(found).unwrap_or_default();
    }
}

fn read_host_port<'d>(found: &mut Findings<'d>, entry: &Entry<'d>, settings: &mut Dataplane) {
    let accepted = "the name of an interface, 1 to 15 characters, or \"\" for none";
    let Some(name) = entry.text(found, accepted) else {
        return;
    };
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%';
    let special = name == "." || name == "..";
    if name.len() > INTERFACE_NAME || special || !name.bytes().all(legal) {
        entry.refuse(
            found,
            format!("{} is no interface's name", quoted(name)),
            accepted,
        );
    }
    settings.host_port = (!name.is_empty()).then(|| name.to_owned());
}

fn read_icmp<'d>(found: &mut Findings<'d>, mut table: Table<'d>) -> Icmp {
    let mut icmp = Icmp::default();
    if let Some(entry) = table.take(found, "accept_unprotected")
        && let Some(accept) = read_accept(found, &entry)
    {
        icmp.accept_unprotected = accept;
    }
    if let Some(entry) = table.take(found, "accept_protected")
        && let Some(accept) = read_accept(found, &entry)
    {
        icmp.accept_protected = accept;
    }
    if let Some(entry) = table.take(found, "errors_per_second") {
        let rate = entry.number(found, 0..=1_000_000);
        icmp.errors_per_second = rate.unwrap_or(icmp.errors_per_second);
    }
    if let Some(entry) = table.take(found, "send_unreachable") {
        let send = entry.boolean(found);
        icmp.send_unreachable = send.unwrap_or(icmp.send_unreachable);
    }
    table.finish(found);
    icmp
}

fn read_accept<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<IcmpAccept> {
    let accepted = "any | none | a list of too_big, unreachable, time_exceeded, \
                    parameter_problem, redirect or numbers from 0 to 255";
    if let DeValue::Array(values) = entry.value.get_ref() {
        let elements = values.iter().map(|value| entry.element(value));
        let types: Vec<_> = elements
            .map(|it| read_icmp_type(found, &it, accepted))
            .collect();
        return types
            .into_iter()
            .collect::<Option<_>>()
            .map(IcmpAccept::Types);
    }
    match entry.text(found, accepted)? {
        "any" => Some(IcmpAccept::Any),
        "none" => Some(IcmpAccept::None),
        other => {
            entry.refuse(found, format!("{} is unknown", quoted(other)), accepted);
            None
        }
    }
}

fn read_icmp_type<'d>(
    found: &mut Findings<'d>,
    entry: &Entry<'d>,
    accepted: &str,
) -> Option<IcmpType> {
    let DeValue::String(name) = entry.value.get_ref() else {
        let number = entry.number_as(found, 0..=u8::MAX, accepted)?;
        return Some(IcmpType::Number(number));
    };
    let known = match name.as_ref() {
        "too_big" => Some(IcmpType::TooBig),
        "unreachable" => Some(IcmpType::Unreachable),
        "time_exceeded" => Some(IcmpType::TimeExceeded),
        "parameter_problem" => Some(IcmpType::ParameterProblem),
        "redirect" => Some(IcmpType::Redirect),
        _ => None,
    };
    if known.is_none() {
        entry.refuse(found, format!("{} is unknown", quoted(name)), accepted);
    }
    known
}

fn read_path_mtu<'d>(found: &mut Findings<'d>, mut table: Table<'d>) -> PathMtu {
    let mut path_mtu = PathMtu::default();
    if let Some(entry) = table.take(found, "minimum") {
        let minimum = entry.number(found, 68..=u16::MAX);
        path_mtu.minimum = minimum.unwrap_or(path_mtu.minimum);
    }
    if let Some(entry) = table.take(found, "age_seconds") {
        let age = entry.number(found, 300..=u32::MAX);
        path_mtu.age_seconds = age.unwrap_or(path_mtu.age_seconds);
    }
    table.finish(found);
    path_mtu
}

fn read_fragments<'d>(found: &mut Findings<'d>, mut table: Table<'d>) -> Fragments {
    let mut fragments = Fragments::default();
    for (key, largest, value) in [
        ("packets", 1 << 20, &mut fragments.packets),
        ("bytes", u32::MAX, &mut fragments.bytes),
        ("timeout_ms", 3_600_000, &mut fragments.timeout_ms),
    ] {
        if let Some(entry) = table.take(found, key) {
            *value = entry.number(found, 1..=largest).unwrap_or(*value);
            if key == "timeout_ms" && u64::from(*value) * MILLISECOND > TIMEOUT_MAXIMUM {
                let why = "reassembly ends after 60000 at the latest (RFC 8200 section 4.5)";
                found.warning(entry.line, &entry.key, why);
            }
        }
    }
    if let Some(entry) = table.take(found, "reassemble_udp") {
        fragments.reassemble_udp = entry.boolean(found).unwrap_or_default();
    }
    table.finish(found);
    fragments
}
