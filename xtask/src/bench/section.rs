//! What can be measured, each by a sub-command of its own and all of it by `cargo xtask bench`.

use clap::ValueEnum;

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// The pipeline on memory ports: sizes, SAs, policies, workers, memory
    Pipeline,
    /// NDR, PDR and latency between a generator and a sink
    Wire,
}

impl Section {
    /// All, in the order of the report.
    pub(crate) const ALL: [Self; 2] = [Self::Pipeline, Self::Wire];

    /// Its name on the command line and in the document.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Wire => "wire",
        }
    }

    /// Its heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Pipeline => "Pipeline",
            Self::Wire => "Wire",
        }
    }

    /// How it is measured, in a few sentences.
    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::Pipeline => {
                "One worker on memory ports, no kernel involved: bursts of 32 UDP packets, \
                 ESP tunnel with AES-128-GCM, ESN and a window of 64 unless said otherwise. Cycles \
                 are those of the time-stamp counter, per packet and direction; a figure is the \
                 least of nine medians. Own work is what is left of the whole when the cipher \
                 (timed alone, one hot key) and the memory port (timed alone) are taken off."
            }
            Self::Wire => {
                "One device between a generator and a sink of our own over AF_XDP, in \
                 namespaces: plain UDP in, ESP (or, of the two references, plain UDP) out. NDR is \
                 the highest rate without loss, PDR that with at most 0.5 % lost, by bounded \
                 binary search; a load passes when most of three trials do. Latency is from \
                 the generator's stamp in the payload to the sink, at shares of the device's own \
                 NDR. Numbers that come out must rise."
            }
        }
    }

    /// Takes namespaces, raw sockets or the kernel's BPF.
    pub(crate) const fn needs_root(self) -> bool {
        match self {
            Self::Pipeline => false,
            Self::Wire => true,
        }
    }
}
