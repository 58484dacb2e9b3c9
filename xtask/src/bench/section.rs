//! What can be measured, each by a sub-command of its own and all of it by `cargo xtask bench`.

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// The cipher alone.
    Crypto,
    /// Each stage of the pipeline.
    Stages,
    /// The pipeline on memory ports.
    Pipeline,
    /// The XDP program.
    Steering,
    /// One device between a generator and a sink.
    Wire,
    /// Everybody who can carry traffic between two hosts.
    Peers,
    /// One SA changes under load.
    Rekey,
    /// The policies change under load.
    Reconfigure,
}

impl Section {
    /// All, in the order of the report.
    pub(crate) const ALL: [Self; 8] = [
        Self::Pipeline,
        Self::Stages,
        Self::Crypto,
        Self::Wire,
        Self::Peers,
        Self::Steering,
        Self::Rekey,
        Self::Reconfigure,
    ];

    /// Its name on the command line and in the document.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Crypto => "crypto",
            Self::Stages => "stages",
            Self::Pipeline => "pipeline",
            Self::Steering => "steering",
            Self::Wire => "wire",
            Self::Peers => "peers",
            Self::Rekey => "rekey",
            Self::Reconfigure => "reconfigure",
        }
    }

    /// Its heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Crypto => "Crypto",
            Self::Stages => "Stages",
            Self::Pipeline => "Pipeline",
            Self::Steering => "Steering",
            Self::Wire => "Wire",
            Self::Peers => "Peers",
            Self::Rekey => "Rekey",
            Self::Reconfigure => "Reconfigure",
        }
    }

    /// How it is measured, in a few sentences.
    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::Crypto => {
                "Sealing and opening bursts of 32 packets, every code that this machine can run \
                 beside a reference whose samples alternate with its own: ring where it has the \
                 suite, else the libraries behind the same interface. Minima of many bursts."
            }
            Self::Stages => {
                "Each stage of the protocol crate over bursts of 32 packets of one SA, the whole \
                 worker on memory ports, and the cipher alone; allocations are counted and must \
                 be none. The least of nine medians."
            }
            Self::Pipeline => {
                "One worker on memory ports, no kernel involved: bursts of 32 UDP packets, \
                 ESP tunnel with AES-128-GCM, ESN and a window of 64 unless said otherwise. Cycles \
                 are those of the time-stamp counter, per packet and direction; a figure is the \
                 least of nine medians. Own work is what is left of the whole when the cipher \
                 (timed alone, one hot key) and the memory port (timed alone) are taken off."
            }
            Self::Steering => {
                "The XDP program by the kernel's test run, which times many runs over one frame: \
                 hot caches, no driver. Maps are what the kernel charges for all of one port."
            }
            Self::Wire => {
                "One device between a generator and a sink of our own over AF_XDP, in \
                 namespaces: plain UDP in, ESP (or, of the two references, plain UDP) out. NDR is \
                 the highest rate without loss, PDR that with at most 0.5 % lost, by bounded \
                 binary search; a load passes when most of three trials do. Latency is from \
                 the generator's stamp in the payload to the sink, at shares of the device's own \
                 NDR. Numbers that come out must rise."
            }
            Self::Peers => {
                "hostA - gwA - gwB - hostB in namespaces, iperf3 between the hosts, everybody in \
                 turns on the same wires with packets of the same size; medians over the turns. \
                 Who is not installed, or fails, is named."
            }
            Self::Rekey => {
                "A worker on memory ports has more to do than it can, on all SAs but one; \
                 meanwhile control builds the next snapshot with that one's successor and \
                 publishes it. The gap is the longest time between two bursts that left. SAs do \
                 not change while the gateway runs yet: this is the cost of what a change will \
                 be made of."
            }
            Self::Reconfigure => {
                "As rekey, but a policy goes and comes back: both SPDs are compiled anew."
            }
        }
    }

    /// The bench of criterion's that measures it, if one does.
    pub(crate) const fn bench(self) -> Option<&'static str> {
        match self {
            Self::Crypto | Self::Stages => Some(self.name()),
            _ => None,
        }
    }

    /// Takes namespaces, raw sockets or the kernel's BPF.
    pub(crate) const fn needs_root(self) -> bool {
        matches!(self, Self::Steering | Self::Wire | Self::Peers)
    }
}
