//! Cycles per packet of `seal` and `open` over bursts, of every code that this machine has for a
//! suite, as a ratio to a reference: ring called in place packet by packet, and where ring lacks
//! the suite the libraries behind our own interface.
//!
//! Every sample of a contender stands beside one of the reference, and the table at the end
//! compares minima: what else the machine does meanwhile only adds. Names filter, as criterion's
//! do: `cargo bench -p xipsec-bench --bench crypto -- aes128gcm16/seal/1420`.
#![deny(unsafe_code)]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use ipsec::crypto::{Backend, OpenJob, SealJob, Transform, open, seal};
use ipsec::secret::Secret;
use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use serde_json::json;
use xipsec_bench::cycles::now;
use xipsec_bench::measurement::Cycles;
use xipsec_bench::progress::Document;

/// Packets of one burst.
const BURST: usize = 32;

/// Payloads, bytes: the least IP packets, what mixes of traffic consist of, Ethernet, jumbo frames.
const SIZES: [usize; 5] = [64, 256, 576, 1420, 8900];

/// ESP header and the IV of a counter mode.
const HEADER: usize = 8;

/// What is measured. Another suite takes a line here; without a cipher in [`reference`] its
/// reference is the libraries.
const SUITES: [Suite; 9] = [
    aead(Encryption::AesGcm { bits: 128, icv: 16 }),
    aead(Encryption::AesGcm { bits: 256, icv: 16 }),
    separate(Encryption::Null, Integrity::Sha1_96),
    separate(Encryption::Null, Integrity::Sha256_128),
    separate(Encryption::AesCbc { bits: 128 }, Integrity::Sha1_96),
    separate(Encryption::AesCbc { bits: 128 }, Integrity::Sha256_128),
    separate(Encryption::AesCtr { bits: 128 }, Integrity::Sha1_96),
    separate(Encryption::AesCtr { bits: 128 }, Integrity::Sha256_128),
    aead(Encryption::AesGmac { bits: 128 }),
];

const fn aead(encryption: Encryption) -> Suite {
    Suite {
        encryption,
        integrity: None,
    }
}

const fn separate(encryption: Encryption, integrity: Integrity) -> Suite {
    Suite {
        encryption,
        integrity: Some(integrity),
    }
}

fn name(suite: Suite) -> String {
    let encryption = suite.encryption.name();
    match suite.integrity {
        Some(integrity) => format!("{encryption}+{}", integrity.name()),
        None => encryption.to_owned(),
    }
}

/// One kind of burst.
#[derive(Clone, Copy)]
struct Case {
    suite: Suite,
    opens: bool,
    size: usize,
    /// Lengths from half of `size` to one and a half, in an order that changes with each burst:
    /// branch predictors must not learn it.
    ragged: bool,
    sas: usize,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        SUITES.into_iter().flat_map(|suite| {
            [false, true].into_iter().flat_map(move |opens| {
                SIZES.into_iter().flat_map(move |size| {
                    [(false, 1), (true, 1), (false, BURST), (true, BURST)].map(|(ragged, sas)| {
                        Self {
                            suite,
                            opens,
                            size,
                            ragged,
                            sas,
                        }
                    })
                })
            })
        })
    }

    fn name(self) -> String {
        let direction = if self.opens { "open" } else { "seal" };
        let lengths = if self.ragged { "ragged" } else { "equal" };
        format!(
            "{}/{direction}/{}/{lengths}/{}sa",
            name(self.suite),
            self.size,
            self.sas
        )
    }

    fn payload(self, number: usize) -> usize {
        if self.ragged {
            self.size / 2 + self.size * number / (BURST - 1)
        } else {
            self.size
        }
    }

    /// Keys of one SA.
    fn keys(self, sa: usize) -> [Secret; 2] {
        let integrity = self.suite.integrity.map_or(0, |it| it.key_length());
        let lengths = [self.suite.encryption.key_length(), integrity];
        lengths.map(|length| Secret::new(bytes(length, sa + 1)))
    }

    fn transforms(self, backend: Backend) -> Vec<Transform> {
        let keys = (0..self.sas).map(|sa| self.keys(sa));
        let expanded = keys.map(|[encryption, integrity]| {
            Transform::with(backend, self.suite, &encryption, &integrity)
        });
        expanded
            .map(|it| it.expect("the bench's own keys"))
            .collect()
    }

    /// A packet in clear: header, IV, payload, trailer, room for the ICV.
    fn packet(self, number: usize) -> Vec<u8> {
        let front = HEADER + self.suite.iv_length();
        let text = (self.payload(number) + 2).next_multiple_of(self.suite.alignment());
        let mut packet = bytes(front + text, number + 77);
        packet.resize(packet.len() + self.suite.icv_length(), 0);
        packet
    }
}

/// Bytes that differ.
fn bytes(length: usize, seed: usize) -> Vec<u8> {
    let mut random = Random((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..length)
        .map(|_| random.next().to_be_bytes()[0])
        .collect()
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.next() % (last as u64 + 1);
            items.swap(last, usize::try_from(other).unwrap_or(0));
        }
    }
}

/// Something that runs a burst.
trait Contender {
    /// Cycles for the packets in that order.
    fn burst(&mut self, order: &[usize]) -> u64;
}

/// The code of one backend, by our own interface.
struct Own {
    case: Case,
    transforms: Vec<Transform>,
    sources: Vec<Vec<u8>>,
    destinations: Vec<Vec<u8>>,
}

impl Own {
    fn new(case: Case, backend: Backend) -> Self {
        let clear = (0..BURST).map(|number| case.packet(number));
        let mut new = Self {
            case,
            transforms: case.transforms(backend),
            sources: (0..BURST)
                .map(|number| bytes(case.payload(number), number))
                .collect(),
            destinations: clear.collect(),
        };
        if case.opens {
            new.seal(&(0..BURST).collect::<Vec<_>>());
            new.sources.clone_from(&new.destinations);
        }
        new
    }

    fn seal(&mut self, order: &[usize]) -> u64 {
        let mut destinations: Vec<_> = self.destinations.iter_mut().map(Some).collect();
        let jobs = order.iter().map(|number| SealJob {
            transform: &self.transforms[number % self.case.sas],
            source: &self.sources[*number],
            destination: destinations[*number].take().expect("each packet once"),
            sequence: 1 << 32,
            esn: true,
        });
        let mut jobs: Vec<_> = jobs.collect();
        let start = now();
        seal(&mut jobs);
        now() - start
    }

    fn open(&mut self, order: &[usize]) -> u64 {
        let mut destinations: Vec<_> = self.destinations.iter_mut().map(Some).collect();
        let jobs = order.iter().map(|number| OpenJob {
            transform: &self.transforms[number % self.case.sas],
            source: &self.sources[*number],
            destination: destinations[*number].take().expect("each packet once"),
            sequence: 1 << 32,
            esn: true,
            authentic: false,
        });
        let mut jobs: Vec<_> = jobs.collect();
        let start = now();
        open(&mut jobs);
        let cycles = now() - start;
        assert!(jobs.iter().all(|job| job.authentic));
        cycles
    }
}

impl Contender for Own {
    fn burst(&mut self, order: &[usize]) -> u64 {
        if self.case.opens {
            self.open(order)
        } else {
            self.seal(order)
        }
    }
}

/// ring alone, in place: no packet format, no copy.
struct Ring {
    case: Case,
    keys: Vec<LessSafeKey>,
    /// What each burst starts with: clear text, or cipher text and its tag.
    texts: Vec<Vec<u8>>,
    rooms: Vec<Vec<u8>>,
}

/// Associated data with ESN.
const DATA: [u8; 12] = [7; 12];

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([5; 12])
}

/// What ring calls it, if it has it.
fn algorithm(encryption: Encryption) -> Option<&'static Algorithm> {
    match encryption {
        Encryption::AesGcm { bits: 128, icv: 16 } => Some(&AES_128_GCM),
        Encryption::AesGcm { bits: 256, icv: 16 } => Some(&AES_256_GCM),
        Encryption::ChaCha20Poly1305 => Some(&CHACHA20_POLY1305),
        _ => None,
    }
}

impl Ring {
    fn new(case: Case) -> Self {
        let algorithm = algorithm(case.suite.encryption).expect("a suite of ring's");
        let keys = (0..case.sas).map(|sa| {
            let [key, _] = case.keys(sa);
            let key = &key.expose()[..algorithm.key_len()];
            LessSafeKey::new(UnboundKey::new(algorithm, key).expect("the bench's own keys"))
        });
        let keys: Vec<_> = keys.collect();
        let texts = (0..BURST).map(|number| {
            let length = (case.payload(number) + 2).next_multiple_of(case.suite.alignment());
            let mut text = bytes(length, number);
            if case.opens {
                let key = &keys[number % case.sas];
                key.seal_in_place_append_tag(nonce(), Aad::from(DATA), &mut text)
                    .expect("short");
            }
            text
        });
        let texts: Vec<_> = texts.collect();
        Self {
            case,
            keys,
            rooms: texts.clone(),
            texts,
        }
    }
}

impl Contender for Ring {
    fn burst(&mut self, order: &[usize]) -> u64 {
        self.rooms.clone_from(&self.texts);
        let start = now();
        for number in order {
            let (key, room) = (&self.keys[number % self.case.sas], &mut self.rooms[*number]);
            let data = Aad::from(DATA);
            let done = if self.case.opens {
                key.open_in_place(nonce(), data, room).map(|_| ())
            } else {
                key.seal_in_place_separate_tag(nonce(), data, room)
                    .map(|_| ())
            };
            done.expect("what ring sealed itself");
        }
        now() - start
    }
}

/// What may run a case.
#[derive(Clone, Copy)]
enum Code {
    Ring,
    Own(Backend),
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Own(backend) => backend.name(),
        }
    }

    fn contender(self, case: Case) -> Box<dyn Contender> {
        match self {
            Self::Ring => Box::new(Ring::new(case)),
            Self::Own(backend) => Box::new(Own::new(case, backend)),
        }
    }

    /// All that runs a suite on this machine; the first is the reference.
    fn all(suite: Suite) -> Vec<Self> {
        let ring = algorithm(suite.encryption).map(|_| Self::Ring);
        let mut own: Vec<_> = Backend::all().map(Self::Own).collect();
        own.reverse();
        ring.into_iter().chain(own).collect()
    }
}

/// The least cycles for a burst, of a case's contenders; the reference stands first.
type Minima = Vec<(&'static str, u64)>;

fn note(minima: &mut Minima, code: Code, cycles: u64) {
    match minima.iter_mut().find(|(name, _)| *name == code.name()) {
        Some((_, least)) => *least = cycles.min(*least),
        None => minima.push((code.name(), cycles)),
    }
}

fn run(criterion: &mut Criterion<Cycles>, case: Case) -> Minima {
    let mut minima = Minima::new();
    let codes = Code::all(case.suite);
    let Some((reference, others)) = codes.split_first() else {
        return minima;
    };
    // A lone code is its own reference.
    let others = if others.is_empty() { &codes } else { others };
    let mut random = Random(1);
    let mut order: Vec<usize> = (0..BURST).collect();
    let mut group = criterion.benchmark_group(case.name());
    group.throughput(Throughput::Elements(BURST as u64));
    for code in others {
        // Made only when the name is not filtered out.
        let mut contenders = None;
        group.bench_function(BenchmarkId::from_parameter(code.name()), |bencher| {
            let make = || (reference.contender(case), code.contender(case));
            let (beside, contender) = contenders.get_or_insert_with(make);
            bencher.iter_custom(|rounds| {
                let mut sum = 0;
                for _ in 0..rounds {
                    if case.ragged {
                        random.shuffle(&mut order);
                    }
                    note(&mut minima, *reference, beside.burst(&order));
                    let cycles = contender.burst(&order);
                    note(&mut minima, *code, cycles);
                    sum += cycles;
                }
                sum
            });
        });
    }
    group.finish();
    minima
}

#[expect(clippy::print_stdout, reason = "the result")]
fn print(results: &[(Case, Minima)]) {
    println!("\ncycles of the time-stamp counter per packet, least of many bursts of {BURST}");
    println!("{:<44}{:<20}{:>9}{:>8}", "burst", "code", "cycles", "ratio");
    let mut document = Document::default();
    for (case, minima) in results {
        let reference = minima.first().map_or(0, |(_, cycles)| *cycles);
        for (name, cycles) in minima {
            let ratio = *cycles as f64 / reference as f64;
            let cycles = *cycles as f64 / BURST as f64;
            println!("{:<44}{name:<20}{cycles:>9.1}{ratio:>8.2}", case.name());
            document.record(json!({
                "suite": self::name(case.suite),
                "direction": if case.opens { "open" } else { "seal" },
                "size": case.size,
                "ragged": case.ragged,
                "sas": case.sas,
                "code": name,
                "cycles": cycles,
                "ratio": ratio,
            }));
        }
    }
    document.save_if_asked();
}

fn main() {
    // Short: what counts is the least, and that comes soon.
    let mut criterion = Criterion::default()
        .with_measurement(Cycles)
        .without_plots()
        .sample_size(10)
        .nresamples(1001)
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(60))
        .configure_from_args();
    let results: Vec<_> = Case::all()
        .map(|case| (case, run(&mut criterion, case)))
        .collect();
    let ran: Vec<_> = results
        .into_iter()
        .filter(|(_, minima)| !minima.is_empty())
        .collect();
    print(&ran);
    criterion.final_summary();
}
