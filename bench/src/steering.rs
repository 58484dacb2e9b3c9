//! Tables and frames for the steering program.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use ipsec::packet::{Version, address_bits};
use ipsec::policy::{Action, AddressRange, AddressSelector};
use ipsec::sa::association::Direction;
use xipsec::port::xdp::steer::{SteeringPolicy, SteeringTables};

/// The port's own address.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The endpoint of all SAs.
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A host of the protected side.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

/// First address of the remote networks, /24 each.
const NETWORKS: u32 = u32::from_be_bytes([16, 0, 0, 0]);

/// What the daemon would tell the program: `policies` policies each way, and `sas` SAs that end at
/// one address. In the mode in which all ESP to an endpoint is ours that address is all that the
/// program is told of them.
#[must_use]
pub fn tables(policies: u32, sas: u32) -> SteeringTables {
    let mut tables = SteeringTables::default();
    tables.local.insert(IpAddr::V4(ENDPOINT));
    for _ in 0..sas {
        tables.endpoints.insert(IpAddr::V4(ENDPOINT), false);
    }
    let own = range(u32::from_be_bytes([10, 1, 0, 0]), 16);
    let remotes: Vec<AddressSelector> = (0..policies)
        .map(|policy| range(NETWORKS + (policy << 8), 24))
        .collect();
    let policy = |direction| {
        let own = &own;
        remotes.iter().map(move |remote| SteeringPolicy {
            direction,
            action: Action::Protect,
            local: own,
            remote,
        })
    };
    tables.put_policies(policy(Direction::Out).chain(policy(Direction::In)));
    tables
}

fn range(first: u32, length: u32) -> AddressSelector {
    let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
    let bits = |address: u32| address_bits(IpAddr::V4(Ipv4Addr::from(address)));
    AddressSelector::Ranges(vec![AddressRange {
        version: Version::V4,
        first: bits(first),
        last: bits(last),
    }])
}

/// A frame by what becomes of it.
#[derive(Clone, Copy, Debug)]
pub enum Frame {
    /// From the host to the network of that policy.
    Policy(u32),
    /// From that network to the host, in clear.
    Back(u32),
    /// ESP to the endpoint.
    Esp,
    /// Between networks that no policy names.
    Foreign,
    /// No IP at all.
    Arp,
}

impl Frame {
    /// An IPv4 frame of 64 bytes of packet, or an ARP request.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let network = |policy: u32| Ipv4Addr::from(NETWORKS + (policy << 8) + 2);
        let (source, destination, protocol) = match self {
            Self::Policy(policy) => (HOST, network(policy), 17),
            Self::Back(policy) => (network(policy), HOST, 17),
            Self::Esp => (Ipv4Addr::new(192, 0, 2, 2), ENDPOINT, 50),
            Self::Foreign => {
                let foreign = |last| Ipv4Addr::new(203, 0, 113, last);
                (foreign(1), foreign(2), 17)
            }
            Self::Arp => (HOST, HOST, 0),
        };
        let mut frame = vec![0; 14 + 64];
        frame[..6].copy_from_slice(&MAC);
        frame[6] = 2;
        frame[12..14].copy_from_slice(&[8, 0]);
        if matches!(self, Self::Arp) {
            frame[13] = 6;
            return frame;
        }
        let ip = &mut frame[14..];
        ip[0] = 0x45;
        ip[3] = 64;
        ip[8..10].copy_from_slice(&[64, protocol]);
        ip[12..16].copy_from_slice(&source.octets());
        ip[16..20].copy_from_slice(&destination.octets());
        let sum = ipsec::wire::checksum::Sum::ZERO.bytes(&ip[..20]).checksum();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip[20..24].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
        ip[25] = 44;
        frame
    }
}

/// Kernel memory of all BPF maps that this process holds, bytes, as it is charged for them.
#[must_use]
pub fn map_memory() -> u64 {
    let entries = fs::read_dir("/proc/self/fdinfo").into_iter().flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let maps = texts.filter(|text| text.contains("map_type:"));
    let charged = maps.filter_map(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("memlock:"))?;
        line.trim().parse::<u64>().ok()
    });
    charged.sum()
}
