//! Packets of the protected networks.

use std::net::IpAddr;

use ipsec::packet::{address_bits, protocol};
use ipsec::wire::{ipv4, ipv6, udp};

use crate::gateway::ip;

/// A UDP packet of `length` bytes, IP header included, and what else may be set in it.
#[derive(Clone, Debug)]
pub(crate) struct Udp {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ports: (u16, u16),
    pub(crate) length: usize,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
    pub(crate) flags_and_offset: u16,
    pub(crate) identification: u16,
}

pub(crate) fn v4(length: usize) -> Udp {
    between("10.1.0.1", "10.2.0.1", length)
}

pub(crate) fn v6(length: usize) -> Udp {
    between("2001:db8:1::1", "2001:db8:2::1", length)
}

pub(crate) fn between(source: &str, destination: &str, length: usize) -> Udp {
    Udp {
        source: ip(source),
        destination: ip(destination),
        ports: (5000, 5001),
        length,
        traffic_class: 0,
        hop_limit: 64,
        flags_and_offset: 0,
        identification: 9,
    }
}

impl Udp {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header = self.header(protocol::UDP);
        let mut packet: Vec<u8> = (0..=255).cycle().take(self.length).collect();
        packet[..header.len()].copy_from_slice(&header);
        let udp = udp::Header {
            source: self.ports.0,
            destination: self.ports.1,
            length: u16::try_from(self.length - header.len()).unwrap(),
            checksum: 0,
        };
        if let Some(field) = packet.get_mut(header.len()..header.len() + udp::LENGTH) {
            field.copy_from_slice(&udp.to_bytes());
        }
        packet
    }

    /// The packet with other content behind the IP header.
    pub(crate) fn with(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header_length = if self.source.is_ipv4() { 20 } else { 40 };
        let whole = Self {
            length: header_length + payload.len(),
            ..self.clone()
        };
        let mut packet = whole.header(protocol);
        packet.extend_from_slice(payload);
        packet
    }

    fn header(&self, protocol: u8) -> Vec<u8> {
        let (source, destination) = (address_bits(self.source), address_bits(self.destination));
        if self.source.is_ipv4() {
            let fields = ipv4::Fields {
                traffic_class: self.traffic_class,
                total_length: u16::try_from(self.length).unwrap(),
                identification: self.identification,
                flags_and_offset: self.flags_and_offset,
                hop_limit: self.hop_limit,
                protocol,
                source: (source & 0xffff_ffff) as u32,
                destination: (destination & 0xffff_ffff) as u32,
            };
            fields.to_bytes().to_vec()
        } else {
            let fields = ipv6::Fields {
                traffic_class: self.traffic_class,
                flow_label: 0,
                payload_length: u16::try_from(self.length - ipv6::LENGTH).unwrap(),
                next_header: protocol,
                hop_limit: self.hop_limit,
                source,
                destination,
            };
            fields.to_bytes().to_vec()
        }
    }

    /// The packet one hop further.
    pub(crate) fn lowered(&self) -> Vec<u8> {
        Self {
            hop_limit: self.hop_limit - 1,
            ..self.clone()
        }
        .bytes()
    }
}
