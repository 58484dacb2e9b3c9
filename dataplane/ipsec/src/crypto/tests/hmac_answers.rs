//! Every case of RFC 2202 (MD5, SHA-1) and RFC 4231 (SHA-2), keys longer than a block included. The
//! keys are not of IPsec's lengths, so the MACs are asked directly, those of our own kernels too.

use hmac::{Hmac, KeyInit};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::super::mac::Authenticate;
use crate::limits::ICV_LENGTH;

fn hex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

/// Runs the records of a file through a library's MAC; how many there were.
fn run<M: KeyInit + Authenticate>(records: &str) -> usize {
    run_with(records, |key, front, back| {
        M::new_from_slice(key).unwrap().tag(front, back)
    })
}

/// Runs the records of a file through a MAC of key and two pieces of a message.
fn run_with(records: &str, mac: impl Fn(&[u8], &[u8], &[u8]) -> [u8; ICV_LENGTH]) -> usize {
    let blocks = records
        .split("\n\n")
        .filter(|block| block.contains("Key ="));
    let checked = blocks.map(|block| {
        let field = |name: &str| {
            let mut lines = block.lines().filter_map(|line| line.split_once('='));
            let (_, value) = lines.find(|(key, _)| key.trim() == name).unwrap();
            value.trim()
        };
        let length: usize = field("Len").parse().unwrap();
        let (key, message, expected) = (hex(field("Key")), hex(field("Msg")), hex(field("MD")));
        let message = &message[..length / 8];
        let (front, back) = message.split_at(message.len() / 3);
        for tag in [mac(&key, message, &[]), mac(&key, front, back)] {
            // 32 bytes are the longest ICV, so no more of the MAC is ever made.
            let known = expected.len().min(tag.len());
            assert_eq!(tag[..known], expected[..known], "{block}");
        }
    });
    checked.count()
}

//= test T19
//= test T20
#[test]
fn hmac_of_rfc_2202_and_4231() {
    let md5 = include_str!("../../../tests/vectors/rfc/rfc2202-md5.rsp");
    let sha1 = include_str!("../../../tests/vectors/rfc/rfc2202-sha1.rsp");
    let sha256 = include_str!("../../../tests/vectors/rfc/rfc4231-sha256.rsp");
    let sha384 = include_str!("../../../tests/vectors/rfc/rfc4231-sha384.rsp");
    let sha512 = include_str!("../../../tests/vectors/rfc/rfc4231-sha512.rsp");
    assert_eq!(run::<Hmac<Md5>>(md5), 7);
    assert_eq!(run::<Hmac<Sha1>>(sha1), 7);
    assert_eq!(run::<Hmac<Sha256>>(sha256), 6);
    assert_eq!(run::<Hmac<Sha384>>(sha384), 6);
    assert_eq!(run::<Hmac<Sha512>>(sha512), 6);
}

//= test T19
//= test T20
#[cfg(target_arch = "x86_64")]
#[test]
#[expect(clippy::print_stderr, reason = "says what was not tested")]
fn hmac_of_rfc_2202_and_4231_by_our_own_kernels() {
    use super::super::multibuffer::{Hash, HmacKey, Sha, Sha1 as OwnSha1, Sha256 as OwnSha256};
    use sha1::Digest;

    let Some(sha) = Sha::found() else {
        eprintln!("SKIPPED hmac_of_rfc_2202_and_4231_by_our_own_kernels: no SHA-NI");
        return;
    };
    fn mac<H: Hash, D: Digest>(sha: Sha, key: &[u8], pieces: [&[u8]; 2]) -> [u8; ICV_LENGTH] {
        // RFC 2104 section 2: a longer key is hashed; IPsec has none.
        let key = match key.len() {
            ..=64 => key.to_vec(),
            _ => D::digest(key).to_vec(),
        };
        let key = HmacKey::<H>::new(sha, &key);
        key.over(&mut |feed| pieces.into_iter().for_each(&mut *feed))
    }
    let sha1 = include_str!("../../../tests/vectors/rfc/rfc2202-sha1.rsp");
    let sha256 = include_str!("../../../tests/vectors/rfc/rfc4231-sha256.rsp");
    let ran = run_with(sha1, |key, front, back| {
        mac::<OwnSha1, Sha1>(sha, key, [front, back])
    });
    assert_eq!(ran, 7);
    let ran = run_with(sha256, |key, front, back| {
        mac::<OwnSha256, Sha256>(sha, key, [front, back])
    });
    assert_eq!(ran, 6);
}
