//! Which cores the workers get: those of the configuration, else the NIC's NUMA node, one hardware
//! thread a core, and not core 0 if another is free (the kernel's own work gathers there).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::panic;
use std::path::Path;
use std::thread;

use core_affinity::CoreId;

/// What sysfs says of one CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The kernel's number.
    pub number: usize,
    /// The lowest number among the hardware threads of its core.
    pub first_sibling: usize,
    /// Its NUMA node.
    pub node: Option<usize>,
}

/// Chooses `count` of `cpus` (those that the process may use) for workers.
#[must_use]
pub fn choose(cpus: &[Cpu], nic_node: Option<usize>, count: usize) -> Vec<usize> {
    let mut ranked: Vec<&Cpu> = cpus.iter().collect();
    ranked.sort_by_key(|cpu| {
        let second_thread = cpu.number != cpu.first_sibling;
        let far = nic_node.is_some() && cpu.node.is_some() && cpu.node != nic_node;
        (second_thread, far, cpu.number == 0, cpu.number)
    });
    ranked
        .into_iter()
        .take(count)
        .map(|cpu| cpu.number)
        .collect()
}

/// Workers for `workers = "auto"`: one core stays free for everything else.
#[must_use]
pub fn automatic(available: usize, smallest_queues: u32) -> usize {
    let queues = usize::try_from(smallest_queues).unwrap_or(usize::MAX);
    available.saturating_sub(1).min(queues).max(1)
}

/// The CPUs that this process may use.
#[must_use]
pub fn available() -> Vec<Cpu> {
    let allowed = rustix::thread::sched_getaffinity(None).map(|set| {
        (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect::<Vec<_>>()
    });
    allowed
        .unwrap_or_else(|_| vec![0])
        .into_iter()
        .map(read)
        .collect()
}

fn read(number: usize) -> Cpu {
    let folder = Path::new("/sys/devices/system/cpu").join(format!("cpu{number}"));
    let siblings = fs::read_to_string(folder.join("topology/thread_siblings_list"));
    let first_sibling = siblings
        .ok()
        .and_then(|list| list_of_numbers(&list).first().copied());
    let node = fs::read_dir(&folder).ok().and_then(|entries| {
        entries.flatten().find_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("node")?
                .parse()
                .ok()
        })
    });
    Cpu {
        number,
        first_sibling: first_sibling.unwrap_or(number),
        node,
    }
}

/// The NUMA node of an interface's device; none for virtual ones.
#[must_use]
pub fn node_of_interface(name: &str) -> Option<usize> {
    let path = Path::new("/sys/class/net")
        .join(name)
        .join("device/numa_node");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The NUMA node of a CPU, where the kernel knows it.
#[must_use]
pub fn node_of(core: usize) -> Option<usize> {
    read(core).node
}

/// NUMA nodes of this machine.
#[must_use]
pub fn nodes() -> usize {
    let online = fs::read_to_string("/sys/devices/system/node/online").unwrap_or_default();
    list_of_numbers(&online).len().max(1)
}

/// Does `work` where the memory that it is the first to touch, and what the kernel allocates for
/// it, lies near `core`: in a thread on that core. With one node it makes no difference, so nothing
/// is done about it.
///
/// # Errors
/// A thread cannot be started.
pub fn near<T: Send>(core: usize, nodes: usize, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if nodes < 2 {
        return Ok(work());
    }
    thread::scope(|scope| {
        let there = move || {
            // A core that this process may not use: the worker says so when it is pinned.
            let _pinned = core_affinity::set_for_current(CoreId { id: core });
            work()
        };
        let thread = thread::Builder::new().spawn_scoped(scope, there)?;
        thread
            .join()
            .or_else(|panicked| panic::resume_unwind(panicked))
    })
}

/// Warnings about workers that are on another node than a port: each frame crosses over to them.
#[must_use]
pub fn far(ports: &[(&str, Option<usize>)], workers: &[(usize, Option<usize>)]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, port_node) in ports {
        let Some(port_node) = port_node else {
            continue;
        };
        let away = (0..).zip(workers).filter_map(|(number, (core, node))| {
            let node: usize = (*node).filter(|node| node != port_node)?;
            Some(format!("worker {number} (core {core}) on node {node}"))
        });
        let away: Vec<String> = away.collect();
        if !away.is_empty() {
            warnings.push(format!(
                "port {name} is on NUMA node {port_node}, but {} (give `cores` of its node)",
                away.join(", ")
            ));
        }
    }
    warnings
}

/// The kernel's list format: `0-3,8`.
fn list_of_numbers(list: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(number: usize, first_sibling: usize, node: usize) -> Cpu {
        Cpu {
            number,
            first_sibling,
            node: Some(node),
        }
    }

    #[test]
    fn near_whole_cores_first_and_core_0_last_among_them() {
        let cpus = [
            cpu(0, 0, 0),
            cpu(1, 1, 0),
            cpu(2, 2, 1),
            cpu(3, 3, 1),
            cpu(4, 0, 0),
            cpu(5, 1, 0),
        ];
        assert_eq!(choose(&cpus, Some(0), 2), [1, 0]);
        assert_eq!(choose(&cpus, Some(1), 3), [2, 3, 1]);
        assert_eq!(choose(&cpus, None, 6), [1, 2, 3, 0, 4, 5]);
    }

    #[test]
    fn one_core_stays_free_and_one_worker_stays() {
        assert_eq!(automatic(8, 4), 4);
        assert_eq!(automatic(2, 4), 1);
        assert_eq!(automatic(1, 1), 1);
    }

    #[test]
    fn with_one_node_nothing_moves_and_with_two_the_work_is_done_on_its_core() {
        let here = thread::current().id();
        let allowed = || rustix::thread::sched_getaffinity(None).map(|set| set.count());
        let look = || (thread::current().id(), allowed());
        let before = allowed();
        assert_eq!(near(0, 1, look).ok(), Some((here, before)));
        let core = available().first().map_or(0, |cpu| cpu.number);
        let there = near(core, 2, look).ok();
        assert!(there.is_some_and(|(thread, count)| thread != here && count == Ok(1)));
        assert_eq!(allowed(), before, "the caller stays where it was");
        assert!(nodes() >= 1);
    }

    #[test]
    fn workers_on_another_node_than_a_port_are_told() {
        let workers = [(2, Some(0)), (9, Some(1)), (10, None)];
        assert_eq!(
            far(&[("wan0", Some(0)), ("lan0", None)], &workers),
            [
                "port wan0 is on NUMA node 0, but worker 1 (core 9) on node 1 (give `cores` of its \
                 node)"
            ]
        );
        assert!(far(&[("wan0", Some(0))], &workers[..1]).is_empty());
    }

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(list_of_numbers("0-2,8\n"), BTreeSet::from([0, 1, 2, 8]));
        assert!(list_of_numbers("").is_empty() && list_of_numbers("x-y").is_empty());
    }
}
