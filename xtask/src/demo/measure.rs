//! Rounds of measurements on one set of wires.

use anyhow::{Context, Result};
use serde_json::Value;
use xipsec_tests::config::RIGHT;
use xipsec_tests::iperf;
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::End;

use super::contender::{ALL, Contender, checksum_offload};
use super::{Binaries, Options, Progress};

/// The hosts' route MTU, for every contender: with ESP around it a packet of this size still fits
/// the wires' 1500, so all three carry packets of the same size.
pub(crate) const INNER_MTU: u32 = 1440;
/// Payload bytes of small datagrams: the rate is bound by packets.
pub(crate) const SMALL: u32 = 64;
/// Payload bytes of large datagrams.
pub(crate) const LARGE: u32 = 1300;

/// What is measured of each contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP, bits a second; segmentation offloads as given.
    Tcp { offloads: bool },
    /// UDP as fast as it goes, datagrams a second.
    Udp { length: u32 },
}

/// Columns of the table, in measuring order: what needs the same offloads stands together.
pub(super) const KINDS: [Kind; 4] = [
    Kind::Tcp { offloads: false },
    Kind::Udp { length: LARGE },
    Kind::Udp { length: SMALL },
    Kind::Tcp { offloads: true },
];

/// All samples, and what the gateways counted over all their runs.
#[derive(Default)]
pub(super) struct Results {
    samples: Vec<(Contender, Kind, f64)>,
    /// One document per gateway and run: gwA, gwB.
    pub(super) stats: [Vec<Value>; 2],
}

impl Results {
    /// The median over the rounds.
    pub(super) fn median(&self, contender: Contender, kind: Kind) -> f64 {
        let wanted = |sample: &&(Contender, Kind, f64)| sample.0 == contender && sample.1 == kind;
        let mut values: Vec<f64> = self.samples.iter().filter(wanted).map(|s| s.2).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Steps that `run` reports.
pub(super) fn steps(options: &Options) -> u64 {
    u64::from(options.rounds) * 2 * ALL.len() as u64
}

/// Measures all contenders in turns, first with segmentation offloads off, then with them on.
pub(super) fn run(options: &Options, binaries: &Binaries, progress: &Progress) -> Result<Results> {
    let plan = Plan {
        queues: options.queues,
        core_each: true,
        ..Plan::default()
    };
    let mut lab = Lab::with_binary(&plan, &binaries.xipsec)?;
    lab.left.init_state()?;
    lab.right.init_state()?;
    lab.route_mtu(INNER_MTU)?;
    let server = iperf::Server::start(&lab.host_b)?;
    let mut results = Results::default();
    for offloads in [false, true] {
        segmentation(&lab, offloads)?;
        for round in 1..=options.rounds {
            for contender in ALL {
                let state = if offloads { "on" } else { "off" };
                let name = contender.name();
                progress.step(format!("round {round}, offloads {state}: {name}"));
                let work = |lab: &Lab| samples(lab, contender, offloads, options.seconds);
                let (samples, stats) = contender
                    .with(&mut lab, binaries, offloads, work)
                    .with_context(|| format!("{name}, offloads {state}"))?;
                results.samples.extend(samples);
                for (all, one) in results.stats.iter_mut().zip(stats.into_iter().flatten()) {
                    all.push(one);
                }
            }
        }
    }
    drop(server);
    Ok(results)
}

fn samples(
    lab: &Lab,
    contender: Contender,
    offloads: bool,
    seconds: u32,
) -> Result<Vec<(Contender, Kind, f64)>> {
    let mut samples = Vec::new();
    for kind in KINDS {
        let value = match kind {
            Kind::Tcp { offloads: on } if on == offloads => {
                iperf::tcp(&lab.host_a, RIGHT.host[0], seconds)?
            }
            Kind::Udp { length } if !offloads => {
                iperf::udp([&lab.host_a, &lab.host_b], RIGHT.host[0], length, seconds)?
            }
            _ => continue,
        };
        samples.push((contender, kind, value));
    }
    Ok(samples)
}

fn segmentation(lab: &Lab, on: bool) -> Result<()> {
    checksum_offload(lab, on)?;
    for gate in [&lab.gate_a, &lab.gate_b] {
        End::new(gate, "lan0").segmentation(on)?;
        End::new(gate, "wan0").segmentation(on)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_one_contender_and_kind() {
        let (kind, other) = (KINDS[0], KINDS[1]);
        let mut results = Results::default();
        for value in [3.0, 1.0, 2.0] {
            results.samples.push((Contender::Kernel, kind, value));
            results
                .samples
                .push((Contender::Xipsec, kind, value * 10.0));
            results
                .samples
                .push((Contender::Kernel, other, value * 100.0));
        }
        assert!((results.median(Contender::Kernel, kind) - 2.0).abs() < f64::EPSILON);
        assert!(results.median(Contender::BareXdp, kind).is_nan());
    }
}
