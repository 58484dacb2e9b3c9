//! Every case of RFC 2202 (MD5, SHA-1) and RFC 4231 (SHA-2), keys longer than a block included. The
//! keys are not of IPsec's lengths, so the MACs are asked directly.

use hmac::{Hmac, KeyInit};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::super::mac::Authenticate;

fn hex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

/// Runs the records of a file; how many there were.
fn run<M: KeyInit + Authenticate>(records: &str) -> usize {
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
        let mac = M::new_from_slice(&key).unwrap();
        let (front, back) = message.split_at(message.len() / 3);
        for tag in [mac.tag(message, &[]), mac.tag(front, back)] {
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
