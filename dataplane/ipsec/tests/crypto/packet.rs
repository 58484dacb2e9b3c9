//! ESP packets over the crate's doors: a head, an IV, a text that ends with its trailer, an ICV.

use ipsec::crypto::suite::{Encryption, Integrity, Protocol, Suite};
use ipsec::crypto::{Backend, OpenJob, SealJob, Transform, open, seal};
use ipsec::secret::Secret;

/// SPI and sequence number as they stand on the wire, and the number's high half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) spi: u32,
    pub(crate) sequence: u64,
    pub(crate) esn: bool,
}

impl Head {
    pub(crate) const PLAIN: Self = Self {
        spi: 0x1001,
        sequence: 7,
        esn: false,
    };

    /// What 8 or 12 bytes of associated data say; `None` for any other length.
    pub(crate) fn of(data: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?));
        let (high, low, esn) = match data.len() {
            8 => (0, word(4)?, false),
            12 => (word(4)?, word(8)?, true),
            _ => return None,
        };
        Some(Self {
            spi: word(0)?,
            sequence: u64::from(high) << 32 | u64::from(low),
            esn,
        })
    }

    /// The eight bytes of the ESP header.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let low = (self.sequence & 0xffff_ffff) as u32;
        [self.spi.to_be_bytes(), low.to_be_bytes()].concat()
    }

    /// The half that is authenticated and does not travel.
    pub(crate) fn high(self) -> Vec<u8> {
        let high = (self.sequence >> 32) as u32;
        if self.esn {
            high.to_be_bytes().to_vec()
        } else {
            Vec::new()
        }
    }

    /// What a combined mode authenticates beside the text.
    pub(crate) fn associated_data(self) -> Vec<u8> {
        let bytes = self.bytes();
        [&bytes[..4], &self.high(), &bytes[4..]].concat()
    }
}

/// Every suite that is legal in ESP.
pub(crate) fn esp_suites() -> Vec<Suite> {
    let integrities = || Integrity::ALL.into_iter().map(Some).chain([None]);
    let pairs = Encryption::ALL.into_iter().flat_map(|encryption| {
        integrities().map(move |integrity| Suite {
            encryption,
            integrity,
        })
    });
    pairs
        .filter(|suite| suite.check(Protocol::Esp).is_ok())
        .collect()
}

/// The expanded keys by every code that this machine has for the suite, each with its name. Only
/// AES in its modes, HMAC-SHA1 and HMAC-SHA256 have more than one.
pub(crate) fn transforms(
    suite: Suite,
    encryption_key: &[u8],
    integrity_key: &[u8],
) -> Vec<(&'static str, Transform)> {
    let keys = [encryption_key, integrity_key].map(|key| Secret::new(key.to_vec()));
    let several = matches!(
        suite.encryption,
        Encryption::AesGcm { .. }
            | Encryption::AesGmac { .. }
            | Encryption::AesCbc { .. }
            | Encryption::AesCtr { .. }
    ) || matches!(
        suite.integrity,
        Some(Integrity::Sha1_96 | Integrity::Sha256_128)
    );
    let backends = Backend::all().filter(|it| several || *it == Backend::chosen());
    let expanded = backends.map(|backend| {
        let transform = Transform::with(backend, suite, &keys[0], &keys[1]);
        (backend.name(), transform.unwrap())
    });
    expanded.collect()
}

/// Seals `text`, whose last two bytes are pad length and next header.
pub(crate) fn sealed(transform: &Transform, head: Head, iv: &[u8], text: &[u8]) -> Vec<u8> {
    let (payload, trailer) = text.split_at(text.len() - 2);
    let mut packet = [&head.bytes(), iv, &vec![0; payload.len()], trailer].concat();
    packet.resize(packet.len() + transform.suite().icv_length(), 0);
    seal(&mut [SealJob {
        transform,
        source: payload,
        destination: &mut packet,
        sequence: head.sequence,
        esn: head.esn,
    }]);
    packet
}

/// The text of an authentic packet.
pub(crate) fn opened(transform: &Transform, head: Head, packet: &[u8]) -> Option<Vec<u8>> {
    let suite = transform.suite();
    let mut destination = vec![0xee; packet.len()];
    let mut jobs = [OpenJob {
        transform,
        source: packet,
        destination: &mut destination,
        sequence: head.sequence,
        esn: head.esn,
        authentic: true,
    }];
    open(&mut jobs);
    let authentic = jobs[0].authentic;
    let around = 8 + suite.iv_length() + suite.icv_length();
    authentic.then(|| destination[..packet.len() - around].to_vec())
}
