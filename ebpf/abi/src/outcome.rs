//! What became of a frame: one code per rule of the steering program, counted per queue.

macro_rules! outcomes {
    ($($(#[doc = $doc:expr])+ $variant:ident = $name:literal,)+) => {
        /// What the program decided about a frame. Every frame has exactly one, except that the
        /// two last ones are counted beside the decision for the socket that they amend.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Outcome {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Outcome {
            /// All of them, in the order of their codes.
            pub const ALL: [Self; OUTCOMES as usize] = [$(Self::$variant,)+];

            /// Name in `stats` and documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means, for an operator.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)+
                }
            }
        }
    };
}

outcomes! {
    /// Rule 1: neither IPv4 nor IPv6 (ARP, LLDP, 802.3): to the kernel.
    PassNotIp = "pass_not_ip",
    /// Rule 1: VLAN-tagged: to the kernel.
    PassVlan = "pass_vlan",
    /// Rule 1: not to the port's own MAC (broadcast, multicast, promiscuous): to the kernel.
    PassOtherMac = "pass_other_mac",
    /// Rule 2: an IP header that the bounded walk cannot parse: to the kernel.
    PassUnparsed = "pass_unparsed",
    /// Rule 3: ESP or AH for an endpoint: to the socket.
    SocketIpsec = "socket_ipsec",
    /// Rules 3 and 4: ESP or AH for a listed endpoint, but not for an SA of ours: to the kernel.
    PassListed = "pass_listed",
    /// Rule 4: UDP-encapsulated ESP, or a keepalive of a peer: to the socket.
    SocketEncapsulated = "socket_encapsulated",
    /// Rule 4: the IKE marker at an encapsulation port, or no more than one byte there: to the
    /// kernel.
    PassMarker = "pass_marker",
    /// Rule 4: a UDP fragment to an endpoint: to the kernel.
    PassUdpFragment = "pass_udp_fragment",
    /// Rule 4: a UDP fragment to an endpoint, with `reassemble_udp`: to the socket.
    SocketUdpFragment = "socket_udp_fragment",
    /// Rule 5: IPv6 neighbour discovery: to the kernel.
    PassNeighborDiscovery = "pass_neighbor_discovery",
    /// Rule 5: DHCP or DHCPv6: to the kernel.
    PassDhcp = "pass_dhcp",
    /// Rule 5: an IP multicast or limited broadcast destination: to the kernel.
    PassMulticast = "pass_multicast",
    /// Rule 5: a link-local source or destination: to the kernel.
    PassLinkLocal = "pass_link_local",
    /// Rule 5: IKE (UDP 500 or 4500) from or to the machine: to the kernel.
    PassIke = "pass_ike",
    /// Rule 6: for one of the machine's own addresses: to the kernel.
    PassLocal = "pass_local",
    /// Rule 6: for one of the machine's own addresses, but an inbound policy protects or discards
    /// it: to the socket.
    SocketLocal = "socket_local",
    /// Rule 7: a policy names its addresses: to the socket.
    SocketPolicy = "socket_policy",
    /// Rule 8: no policy names its addresses, `unmatched = "kernel"`: to the kernel.
    PassUnmatched = "pass_unmatched",
    /// Rule 8: no policy names its addresses, `unmatched = "discard"`: dropped.
    DropUnmatched = "drop_unmatched",
    /// Beside `socket_*`: no socket on this queue, so it went to the kernel.
    NoSocketPassed = "no_socket_passed",
    /// Beside `socket_*`: no socket on this queue and policy protects or discards it: dropped.
    NoSocketDropped = "no_socket_dropped",
}

/// Number of outcomes.
pub const OUTCOMES: u32 = Outcome::NoSocketDropped as u32 + 1;
