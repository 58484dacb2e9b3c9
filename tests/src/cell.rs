//! One cell of the matrix that the gateway and a Linux kernel go through together: a pair of SAs or
//! bundles, with the configuration of both sides. Cells are data; all of a matrix are in force at
//! once, each with its own SPIs, keys and addresses behind the kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::algorithms::Transform;
use crate::config::{Config, Family, LEFT, RIGHT, hex, text};

/// Prefixes behind the kernel, one address of which belongs to each cell.
pub const FAR: [&str; 2] = ["10.2.0.0/16", "fd00:2::/64"];

/// ESN cells start this close below the end of an epoch, so that they cross it.
const BEFORE_WRAP: u64 = (1 << 32) - 6;

/// How an SA wraps packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In a packet between the gateways.
    Tunnel,
    /// Between the packet's own header and its payload.
    Transport,
}

/// One SA of a cell, both directions of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What it does.
    pub transform: Transform,
    /// How.
    pub mode: Mode,
}

/// Who speaks on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// The host on the protected side.
    Host,
    /// The gateway's own machine.
    Gateway,
}

/// What is wrong on the kernel's side of a cell that must not work: such cells prove that the
/// others could fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The key that the ICV hangs on differs in its first digit.
    Key,
    /// The other one of extended and short sequence numbers.
    Esn,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the gateway to the kernel.
    There = 0,
    /// From the kernel to the gateway.
    Back = 1,
}

/// A pair of SAs, or of bundles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its place in the matrix: SPIs, keys and addresses follow from it.
    pub number: u32,
    /// Innermost first.
    pub layers: Vec<Layer>,
    /// IP version between the gateways.
    pub outer: Family,
    /// Extended sequence numbers, from just before the end of an epoch.
    pub esn: bool,
    /// The outermost layer travels in UDP.
    pub encapsulated: bool,
    /// Who speaks on our side.
    pub near: Near,
    /// What the kernel has wrong.
    pub flaw: Option<Flaw>,
}

impl Cell {
    /// A cell of the host behind the gateway or, without any tunnel, of the gateway's machine.
    pub fn new(number: u32, layers: Vec<Layer>, outer: Family, esn: bool) -> Self {
        let tunnel = layers.iter().any(|layer| layer.mode == Mode::Tunnel);
        Self {
            number,
            layers,
            outer,
            esn,
            encapsulated: false,
            near: if tunnel { Near::Host } else { Near::Gateway },
            flaw: None,
        }
    }

    /// What it is called in results.
    pub fn name(&self) -> String {
        let layers: Vec<String> = self.layers.iter().map(Layer::name).collect();
        let outer = match self.outer {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        let mut name = format!("{} {outer}", layers.join(" in "));
        for (set, word) in [
            (self.esn, " esn"),
            (self.encapsulated, " udp"),
            (self.near == Near::Gateway, " own"),
            (self.flaw == Some(Flaw::Key), " with a wrong key"),
            (self.flaw == Some(Flaw::Esn), " with the wrong numbers"),
        ] {
            if set {
                name += word;
            }
        }
        name
    }

    /// IP versions that can travel in it: both in tunnels. An SA in transport mode has addresses of
    /// one version, and the kernel finds none of the other behind a tunnel.
    pub fn families(&self) -> Vec<Family> {
        if self.layers.iter().all(|layer| layer.mode == Mode::Tunnel) {
            vec![Family::V4, Family::V6]
        } else {
            vec![self.outer]
        }
    }

    /// The address of its speaker on our side.
    pub fn near_address(&self, family: Family) -> &'static str {
        match self.near {
            Near::Host => LEFT.host[family.index()],
            Near::Gateway => LEFT.wan[family.index()],
        }
    }

    /// The address behind the kernel that is this cell's alone.
    pub fn far_address(&self, family: Family) -> String {
        let number = self.number + 1;
        match family {
            Family::V4 => Ipv4Addr::from_bits(0x0a02_0000 + number).to_string(),
            Family::V6 => Ipv6Addr::from_bits((0xfd00_0002 << 96) + u128::from(number)).to_string(),
        }
    }

    /// SPI of one of its SAs.
    pub fn spi(&self, layer: usize, way: Way) -> u32 {
        let place = u32::try_from(layer * 2).unwrap_or(0) + way as u32;
        0x1_0000 + self.number * 16 + place
    }

    /// Name of one of its SAs in the gateway's configuration.
    pub fn sa(&self, layer: usize, way: Way) -> String {
        let spi = self.spi(layer, way);
        match way {
            Way::There => format!("there-{spi:x}"),
            Way::Back => format!("back-{spi:x}"),
        }
    }

    /// Every SA of one way, innermost first.
    pub fn sas(&self, way: Way) -> Vec<String> {
        (0..self.layers.len())
            .map(|layer| self.sa(layer, way))
            .collect()
    }

    /// Adds its SAs and policies to the gateway's configuration.
    pub fn configure(&self, config: &mut Config) {
        for (layer, way) in self.places() {
            self.configure_sa(config, layer, way);
        }
        for (way, direction) in [(Way::There, "out"), (Way::Back, "in")] {
            let names: Vec<String> = self
                .sas(way)
                .iter()
                .map(|name| format!("\"{name}\""))
                .collect();
            let sas = format!("sa = [{}]", names.join(", "));
            for family in self.families() {
                let name = format!("{direction}-{}-{}", self.number, family.index());
                let local = self.near_address(family);
                let remote = self.far_address(family);
                config.policy(
                    [&name, direction, "protect"],
                    [local, &remote],
                    100,
                    std::slice::from_ref(&sas),
                );
            }
        }
    }

    fn configure_sa(&self, config: &mut Config, layer: usize, way: Way) {
        let Layer { transform, mode } = self.layers[layer];
        let [source, destination] = self.endpoints(layer, way);
        let mode = mode.name();
        let mut lines = vec![
            text("name", &self.sa(layer, way)),
            text("direction", ["out", "in"][way as usize]),
            text("protocol", transform.protocol()),
            text("mode", mode),
            format!("spi = {:#x}", self.spi(layer, way)),
            text("source", &source),
            text("destination", &destination),
            format!("esn = {}", self.esn),
        ];
        if self.esn {
            lines.push(format!("sequence = {BEFORE_WRAP}"));
        }
        let [encryption, integrity] = self.keys(layer, way);
        if let Some(cipher) = transform.cipher() {
            lines.push(text("encryption", cipher.name));
            if cipher.key_bytes > 0 {
                lines.push(text("encryption_key", &encryption));
            }
        }
        if let Some(mac) = transform.mac() {
            lines.push(text("integrity", mac.name));
            lines.push(text("integrity_key", &integrity));
        }
        if self.is_encapsulated(layer) {
            let ports = "{ source_port = 4500, destination_port = 4500 }";
            lines.push(format!("udp_encapsulation = {ports}"));
        }
        config.table("[[sa]]", &lines);
    }

    /// What `ip` must be told to make the kernel's states: one command a line.
    pub fn kernel_states(&self) -> Vec<String> {
        self.places()
            .map(|(layer, way)| self.kernel_state(layer, way))
            .collect()
    }

    fn kernel_state(&self, layer: usize, way: Way) -> String {
        let Layer { transform, mode } = self.layers[layer];
        let [source, destination] = self.endpoints(layer, way);
        let [mut encryption, mut integrity] = self.keys(layer, way);
        if self.flaw == Some(Flaw::Key) {
            let key = if integrity.is_empty() {
                &mut encryption
            } else {
                &mut integrity
            };
            let first = if key.starts_with('0') { "1" } else { "0" };
            key.replace_range(..1, first);
        }
        let esn = self.esn != (self.flaw == Some(Flaw::Esn));
        let mut line = format!(
            "xfrm state add src {source} dst {destination} proto {} spi {:#x} reqid {} mode {}",
            transform.protocol(),
            self.spi(layer, way),
            self.reqid(layer),
            mode.name(),
        );
        let mut flags = Vec::new();
        if mode == Mode::Tunnel {
            // Both IP versions inside, whatever is outside.
            flags.push("af-unspec");
        }
        if esn {
            flags.push("esn");
        }
        let shorter = transform.protocol() == "ah" && self.outer == Family::V4;
        if shorter && way == Way::There {
            // Our AH over IPv4 ends at a word, as RFC 4302 has it; what the kernel sends without
            // this flag ends at two words, and we take that, too.
            flags.push("align4");
        }
        line += " replay-window 64";
        if !flags.is_empty() {
            line += &format!(" flag {}", flags.join(" "));
        }
        if self.esn && esn {
            line += &format!(" replay-seq {BEFORE_WRAP:#x} replay-oseq {BEFORE_WRAP:#x}");
        }
        if let Some(mac) = transform.mac() {
            let bits = mac.icv_bits;
            line += &format!(" auth-trunc '{}' 0x{integrity} {bits}", mac.kernel);
        }
        if let Some(cipher) = transform.cipher() {
            line += &match cipher.icv_bits {
                Some(bits) => format!(" aead '{}' 0x{encryption} {bits}", cipher.kernel),
                None if cipher.key_bytes == 0 => format!(" enc '{}' \"\"", cipher.kernel),
                None => format!(" enc '{}' 0x{encryption}", cipher.kernel),
            };
        }
        if self.is_encapsulated(layer) {
            let any = ["0.0.0.0", "::"][self.outer.index()];
            line += &format!(" encap espinudp 4500 4500 {any}");
        }
        line
    }

    /// What `ip` must be told to make the kernel's policies.
    pub fn kernel_policies(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for family in self.families() {
            let (near, far) = (self.near_address(family), self.far_address(family));
            for (way, direction) in [(Way::There, "in"), (Way::Back, "out")] {
                let [source, destination] = match way {
                    Way::There => [near, &far],
                    Way::Back => [&far, near],
                };
                let mut line =
                    format!("xfrm policy add src {source} dst {destination} dir {direction}");
                for (index, layer) in self.layers.iter().enumerate() {
                    line += " tmpl";
                    if self.is_tunnelled(index) {
                        let [source, destination] = self.endpoints(index, way);
                        line += &format!(" src {source} dst {destination}");
                    }
                    let protocol = layer.transform.protocol();
                    let (reqid, mode) = (self.reqid(index), layer.mode.name());
                    line += &format!(" proto {protocol} reqid {reqid} mode {mode}");
                }
                lines.push(line);
            }
        }
        lines
    }

    /// Every SA: layer and way.
    fn places(&self) -> impl Iterator<Item = (usize, Way)> {
        (0..self.layers.len()).flat_map(|layer| [(layer, Way::There), (layer, Way::Back)])
    }

    fn reqid(&self, layer: usize) -> u32 {
        self.spi(layer, Way::There)
    }

    fn is_encapsulated(&self, layer: usize) -> bool {
        self.encapsulated && layer + 1 == self.layers.len()
    }

    fn is_tunnelled(&self, layer: usize) -> bool {
        let mut within = self.layers[..=layer].iter();
        within.any(|layer| layer.mode == Mode::Tunnel)
    }

    /// Source and destination of an SA. Transport mode keeps the addresses that the packet has by
    /// then: those of a tunnel inside, or its own.
    fn endpoints(&self, layer: usize, way: Way) -> [String; 2] {
        let outer = self.outer.index();
        let [near, far] = if self.is_tunnelled(layer) {
            [LEFT.wan[outer].to_owned(), RIGHT.wan[outer].to_owned()]
        } else {
            [
                self.near_address(self.outer).to_owned(),
                self.far_address(self.outer),
            ]
        };
        match way {
            Way::There => [near, far],
            Way::Back => [far, near],
        }
    }

    /// Keys for encryption and integrity, in hexadecimal: no two alike, and the same in every run.
    fn keys(&self, layer: usize, way: Way) -> [String; 2] {
        let transform = self.layers[layer].transform;
        // xorshift64, whose state must not be 0.
        let mut state = u64::from(self.spi(layer, way)) << 20 | 1;
        let mut bytes = |count| {
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_be_bytes()[3]
            })
            .take(count)
            .collect();
            hex(&bytes)
        };
        [
            bytes(transform.cipher().map_or(0, |cipher| cipher.key_bytes)),
            bytes(transform.mac().map_or(0, |mac| mac.key_bytes)),
        ]
    }
}

impl Layer {
    fn name(&self) -> String {
        let Self { transform, mode } = self;
        let protocol = transform.protocol();
        format!("{protocol} {} {}", mode.name(), transform.name())
    }
}

impl Mode {
    /// Its name here and in the kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Transport => "transport",
        }
    }
}
