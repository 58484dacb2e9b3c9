//! The separate suites at every size and every alignment. The libraries seal each packet once; each
//! kernel seals and opens it at all 64 places in a line of the cache.

use super::super::tests::{bytes, prepared};
use super::super::{Backend, OpenJob, SealJob, Transform, open, seal};
use super::bursts::{GUARD, backends, numbered, suites, transform};

/// Longest payload, bytes.
const LONGEST: usize = 9216;

/// Bytes of a line, and of what must stay as it is on either side of a packet.
const LINE: usize = 64;

/// Packets of a burst.
const BURST: usize = 64;

/// SAs of a burst.
const SAS: usize = 7;

/// A packet of one length.
struct Packet {
    length: usize,
    /// Its place in its burst, which says its number.
    index: usize,
    clear: Vec<u8>,
    /// As the library sealed it.
    sealed: Vec<u8>,
}

impl Packet {
    const fn sa(&self) -> usize {
        self.length * 5 % SAS
    }

    /// The bit that is turned over on its way, of every ninth packet.
    fn damage(&self) -> Option<usize> {
        let bit = self.length * 7919 % (self.sealed.len() * 8);
        (self.length % 9 == 4).then_some(bit)
    }
}

/// Packets of all lengths.
fn packets(library: &[Transform], text: &[u8]) -> Vec<Packet> {
    let suite = library[0].suite();
    let packets = (0..=LONGEST).map(|length| {
        let index = length % BURST;
        let (sequence, esn) = numbered(index);
        let clear = prepared(suite, length, sequence);
        let mut packet = Packet {
            length,
            index,
            sealed: clear.clone(),
            clear,
        };
        seal(&mut [SealJob {
            transform: &library[packet.sa()],
            source: &text[..length],
            destination: &mut packet.sealed,
            sequence,
            esn,
        }]);
        packet
    });
    packets.collect()
}

/// Room for a packet at any place in a line, with a line in front and behind.
struct Room {
    bytes: Vec<u8>,
    /// Where the packet begins.
    start: usize,
    length: usize,
}

impl Room {
    fn new() -> Self {
        Self {
            bytes: vec![GUARD; LONGEST + 512],
            start: LINE,
            length: 0,
        }
    }

    /// For `length` bytes at that place in a line.
    fn put(&mut self, place: usize, length: usize) -> &mut [u8] {
        self.start = self.bytes.as_ptr().align_offset(LINE) + LINE + place;
        self.length = length;
        let end = self.start + length;
        self.bytes[self.start - LINE..self.start].fill(GUARD);
        self.bytes[end..end + LINE].fill(GUARD);
        self.packet()
    }

    fn packet(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }

    /// Whether nothing was written beside the packet.
    fn is_guarded(&self) -> bool {
        let end = self.start + self.length;
        let around = [
            &self.bytes[self.start - LINE..self.start],
            &self.bytes[end..end + LINE],
        ];
        around.iter().all(|line| **line == [GUARD; LINE])
    }
}

/// The rooms of a kernel.
struct Bench<'a> {
    name: &'static str,
    kernel: &'a [Transform],
    /// The text at each place in a line.
    texts: Vec<Room>,
    packets: Vec<Room>,
    opened: Vec<Room>,
}

impl<'a> Bench<'a> {
    fn new(name: &'static str, kernel: &'a [Transform], text: &[u8]) -> Self {
        let rooms = || (0..BURST).map(|_| Room::new()).collect();
        let texts = (0..LINE).map(|place| {
            let mut room = Room::new();
            room.put(place, text.len()).copy_from_slice(text);
            room
        });
        Self {
            name,
            kernel,
            texts: texts.collect(),
            packets: rooms(),
            opened: rooms(),
        }
    }

    /// Seals a burst at `place` and the places behind, compares, opens and compares again.
    fn run(&mut self, burst: &[Packet], place: usize) {
        let place = |packet: &Packet| (packet.length + place) % LINE;
        for (packet, room) in burst.iter().zip(&mut self.packets) {
            let to = room.put(place(packet), packet.clear.len());
            to.copy_from_slice(&packet.clear);
        }
        let jobs = burst.iter().zip(&mut self.packets).map(|(packet, room)| {
            let text = &self.texts[LINE - 1 - place(packet)];
            let (sequence, esn) = numbered(packet.index);
            SealJob {
                transform: &self.kernel[packet.sa()],
                source: &text.bytes[text.start..text.start + packet.length],
                destination: room.packet(),
                sequence,
                esn,
            }
        });
        seal(&mut jobs.collect::<Vec<_>>());
        for (packet, room) in burst.iter().zip(&mut self.packets) {
            assert!(room.is_guarded(), "{} {}", self.name, packet.length);
            let sealed = room.packet() == packet.sealed;
            assert!(sealed, "{} {} sealed", self.name, packet.length);
            if let Some(bit) = packet.damage() {
                room.packet()[bit / 8] ^= 1 << (bit % 8);
            }
            let room = &mut self.opened[packet.index];
            let to = room.put(LINE - 1 - place(packet), packet.sealed.len());
            if packet.damage().is_some() {
                to.fill(GUARD);
            }
        }
        self.open(burst);
    }

    fn open(&mut self, burst: &[Packet]) {
        let rooms = self.packets.iter_mut().zip(&mut self.opened);
        let jobs = burst.iter().zip(rooms).map(|(packet, (source, room))| {
            let (sequence, esn) = numbered(packet.index);
            OpenJob {
                transform: &self.kernel[packet.sa()],
                source: source.packet(),
                destination: room.packet(),
                sequence,
                esn,
                authentic: packet.damage().is_some(),
            }
        });
        let mut jobs: Vec<_> = jobs.collect();
        open(&mut jobs);
        let authentic: Vec<bool> = jobs.iter().map(|job| job.authentic).collect();
        let text = &self.texts[0].bytes[self.texts[0].start..];
        for ((packet, room), authentic) in burst.iter().zip(&mut self.opened).zip(authentic) {
            let place = || format!("{} {} opened", self.name, packet.length);
            assert!(room.is_guarded(), "{}", place());
            assert_eq!(authentic, packet.damage().is_none(), "{}", place());
            let suite = self.kernel[0].suite();
            let end = packet.sealed.len() - 8 - suite.iv_length() - suite.icv_length();
            let room = room.packet();
            if authentic {
                assert!(
                    room[..packet.length] == text[..packet.length],
                    "{}",
                    place()
                );
                assert_eq!(room[end - 1], 4, "{}", place());
            } else {
                assert!(room.iter().all(|byte| *byte == GUARD), "{}", place());
            }
        }
    }
}

/// Every packet of a suite at every place, by one kernel; how many that were.
fn sweep(name: &'static str, kernel: &[Transform], packets: &[Packet], text: &[u8]) -> usize {
    let mut bench = Bench::new(name, kernel, text);
    for place in 0..LINE {
        for burst in packets.chunks(BURST) {
            bench.run(burst, place);
        }
    }
    LINE * packets.len()
}

/// Minutes if optimised: CONTRIBUTING.md has the command.
#[test]
#[ignore = "minutes: every size to 9216 at every alignment"]
fn every_length_at_every_alignment_equals_the_library() {
    let (kernels, library) = backends();
    let text = bytes(LONGEST, 21);
    let mut count = 0;
    for suite in suites() {
        let sas = |backend: Backend| -> Vec<Transform> {
            (0..7)
                .map(|seed| transform(backend, suite, seed * 2))
                .collect()
        };
        let packets = packets(&sas(library), &text);
        let (packets, text) = (&packets, &text);
        count += std::thread::scope(|scope| {
            let threads = kernels.iter().map(|backend| {
                scope.spawn(move || sweep(backend.name(), &sas(*backend), packets, text))
            });
            let threads: Vec<_> = threads.collect();
            let counts = threads
                .into_iter()
                .map(|it| it.join().expect("as asserted"));
            counts.sum::<usize>()
        });
    }
    eprintln!("{count} packets");
    assert_eq!(count, kernels.len() * suites().len() * LINE * (LONGEST + 1));
}
