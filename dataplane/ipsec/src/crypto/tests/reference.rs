//! Every suite against a second implementation that shares no mode code with the first: the AEAD
//! crates, ring's HMAC, the cmac crate, and CBC, CTR, XCBC and HMAC-MD5 spelled out block by block.

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit, consts};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::{Aead, Nonce, Payload};
use chacha20poly1305::ChaCha20Poly1305;
use cmac::Cmac;
use des::Des;
use md5::{Digest, Md5};
use ring::hmac;

use super::*;

/// The sealed packet as the second implementation makes it.
fn reference(suite: Suite, payload: &[u8], sequence: u64, esn: bool) -> Vec<u8> {
    let (key, integrity_key) = keys(suite, 9);
    let mut packet = prepared(suite, payload.len(), sequence);
    let text_at = 8 + suite.iv_length();
    packet.truncate(packet.len() - suite.icv_length());
    packet[text_at..text_at + payload.len()].copy_from_slice(payload);
    let high = &sequence.to_be_bytes()[..4];
    let high = if esn { high } else { &[] };
    let head = [&packet[..4], high, &packet[4..8]].concat();
    let iv = packet[8..text_at].to_vec();
    let text = packet.split_off(text_at);
    let aead = |data: &[u8], text: &[u8]| aead(suite.encryption, &key, &iv, data, text);
    match suite.encryption {
        Encryption::AesGmac { .. } => {
            let tag = aead(&[&head[..], &iv, &text].concat(), &[]);
            [&packet[..], &text, &tag].concat()
        }
        encryption if encryption.is_aead() => {
            let sealed = aead(&head, &text);
            let length = text.len() + suite.icv_length();
            [&packet[..], &sealed[..length]].concat()
        }
        encryption => {
            packet.extend(cipher(encryption, &key, &iv, &text));
            let covered = [&packet[..], high].concat();
            let full = mac(suite.integrity.unwrap(), &integrity_key, &covered);
            packet.extend(&full[..suite.icv_length()]);
            packet
        }
    }
}

fn aead(encryption: Encryption, key: &[u8], iv: &[u8], data: &[u8], text: &[u8]) -> Vec<u8> {
    let (key, salt) = key.split_at(key.len() - 4);
    let nonce = [salt, iv].concat();
    match (encryption, key.len()) {
        (Encryption::ChaCha20Poly1305, _) => run::<ChaCha20Poly1305>(key, &nonce, data, text),
        (_, 16) => run::<AesGcm<Aes128, consts::U12>>(key, &nonce, data, text),
        (_, 24) => run::<AesGcm<Aes192, consts::U12>>(key, &nonce, data, text),
        _ => run::<AesGcm<Aes256, consts::U12>>(key, &nonce, data, text),
    }
}

fn run<A: Aead + KeyInit>(key: &[u8], nonce: &[u8], data: &[u8], text: &[u8]) -> Vec<u8> {
    let nonce = Nonce::<A>::try_from(nonce).unwrap();
    let payload = Payload {
        msg: text,
        aad: data,
    };
    A::new_from_slice(key)
        .unwrap()
        .encrypt(&nonce, payload)
        .unwrap()
}

fn cipher(encryption: Encryption, key: &[u8], iv: &[u8], text: &[u8]) -> Vec<u8> {
    match (encryption, key.len()) {
        (Encryption::Null, _) => text.to_vec(),
        (Encryption::TripleDes, _) => chain(iv, text, |block| triple_des(key, block)),
        (Encryption::AesCbc { .. }, 16) => chain(iv, text, |block| one::<Aes128>(key, block)),
        (Encryption::AesCbc { .. }, 24) => chain(iv, text, |block| one::<Aes192>(key, block)),
        (Encryption::AesCbc { .. }, _) => chain(iv, text, |block| one::<Aes256>(key, block)),
        (_, 20) => count(key, iv, text, one::<Aes128>),
        (_, 28) => count(key, iv, text, one::<Aes192>),
        _ => count(key, iv, text, one::<Aes256>),
    }
}

/// One block through a freshly keyed cipher.
fn one<C: BlockCipherEncrypt + BlockSizeUser + KeyInit>(key: &[u8], block: &[u8]) -> Vec<u8> {
    let mut block = Block::<C>::try_from(block).unwrap();
    C::new_from_slice(key).unwrap().encrypt_block(&mut block);
    block.to_vec()
}

/// Encrypt, decrypt, encrypt with the three parts of the key.
fn triple_des(key: &[u8], block: &[u8]) -> Vec<u8> {
    let mut block = Block::<Des>::try_from(one::<Des>(&key[..8], block).as_slice()).unwrap();
    let middle = Des::new_from_slice(&key[8..16]).unwrap();
    middle.decrypt_block(&mut block);
    one::<Des>(&key[16..], &block)
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// CBC.
fn chain(iv: &[u8], text: &[u8], block: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut last = iv.to_vec();
    let mut out = Vec::new();
    for part in text.chunks(iv.len()) {
        last = block(&xor(&last, part));
        out.extend(&last);
    }
    out
}

/// CTR: nonce, IV, counter from 1.
fn count(key: &[u8], iv: &[u8], text: &[u8], block: fn(&[u8], &[u8]) -> Vec<u8>) -> Vec<u8> {
    let (key, nonce) = key.split_at(key.len() - 4);
    let mut out = Vec::new();
    for (counter, part) in (1_u32..).zip(text.chunks(16)) {
        let input = [nonce, iv, &counter.to_be_bytes()].concat();
        out.extend(xor(part, &block(key, &input)));
    }
    out
}

fn mac(integrity: Integrity, key: &[u8], data: &[u8]) -> Vec<u8> {
    let ring = |algorithm| {
        let key = hmac::Key::new(algorithm, key);
        hmac::sign(&key, data).as_ref().to_vec()
    };
    match integrity {
        Integrity::Md5_96 => hmac_md5(key, data),
        Integrity::Sha1_96 => ring(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        Integrity::Sha256_128 => ring(hmac::HMAC_SHA256),
        Integrity::Sha384_192 => ring(hmac::HMAC_SHA384),
        Integrity::Sha512_256 => ring(hmac::HMAC_SHA512),
        Integrity::Aes128Xcbc96 => xcbc(key, data),
        Integrity::Aes128Cmac96 => {
            let mut cmac = Cmac::<Aes128>::new_from_slice(key).unwrap();
            cmac::Mac::update(&mut cmac, data);
            cmac::Mac::finalize(cmac).into_bytes().to_vec()
        }
        Integrity::AesGmac { .. } => unreachable!("no ESP suite has it"),
    }
}

/// RFC 2104.
fn hmac_md5(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|it| it ^ byte).to_vec();
    let inner = Md5::digest([pad(0x36), data.to_vec()].concat());
    Md5::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

/// RFC 3566 §4, step by step.
fn xcbc(key: &[u8], data: &[u8]) -> Vec<u8> {
    let derived = |fill: u8| one::<Aes128>(key, &[fill; 16]);
    let whole = !data.is_empty() && data.len().is_multiple_of(16);
    let mut data = data.to_vec();
    if !whole {
        data.push(0x80);
        data.resize(data.len().next_multiple_of(16), 0);
    }
    let mask = derived(if whole { 2 } else { 3 });
    let last = data.len() - 16;
    let masked = xor(&data[last..], &mask);
    data.splice(last.., masked);
    let chained = chain(&[0; 16], &data, |block| one::<Aes128>(&derived(1), block));
    chained[last..].to_vec()
}

/// Seals, compares with the reference, opens.
fn compare(suite: Suite, lengths: impl Iterator<Item = usize>) {
    let transform = transform(suite, 9);
    for length in lengths {
        let payload = bytes(length, 5);
        let esn = length % 2 == 1;
        let sequence = (length as u64) << 31 | 0x1234;
        let packet = sealed(&transform, &payload, sequence, esn);
        assert_eq!(
            packet,
            reference(suite, &payload, sequence, esn),
            "{suite:?} {length}"
        );
        let text = opened(&transform, &packet, sequence, esn).unwrap();
        assert_eq!(
            text,
            [payload, trailer(suite, length)].concat(),
            "{suite:?} {length}"
        );
    }
}

//= test T10
//= test T16
//= test T18
//= test T20
//= test T21
#[test]
fn every_suite_at_every_length_equals_its_reference() {
    let mut ciphers = Vec::new();
    for suite in esp_suites() {
        // A cipher meets every length once, and every MAC some of them.
        let all = !ciphers.contains(&suite.encryption) || suite.encryption == Encryption::Null;
        ciphers.push(suite.encryption);
        let step = if all { 1 } else { 23 };
        compare(suite, (0..=1500).step_by(step).chain([8900, 9216]));
    }
}
