//! The second implementation of each suite: the textbook's AES in all its modes, the
//! chacha20poly1305 crate, ring's HMAC; DES and MD5 block by block over their crates.

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Nonce, Payload};
use des::Des;
use des::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt};
use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use md5::{Digest, Md5};
use ring::hmac;

use crate::packet::Head;
use crate::textbook::{Aes, cbc_mac, chain, count, gcm};

/// The sealed packet. `text` ends with its trailer.
pub(crate) fn packet(
    suite: Suite,
    keys: [&[u8]; 2],
    head: Head,
    iv: &[u8],
    text: &[u8],
) -> Vec<u8> {
    let front = [&head.bytes(), iv].concat();
    if let Encryption::AesGmac { .. } = suite.encryption {
        let data = [&head.associated_data(), iv, text].concat();
        let (_, tag) = combined(suite.encryption, keys[0], iv, &data, &[]);
        return [&front, text, &tag].concat();
    }
    if suite.encryption.is_aead() {
        let data = head.associated_data();
        let (sealed, tag) = combined(suite.encryption, keys[0], iv, &data, text);
        return [&front, &sealed[..], &tag[..suite.icv_length()]].concat();
    }
    let covered = [&front[..], &cipher(suite.encryption, keys[0], iv, text)].concat();
    let tag = mac(
        suite.integrity.unwrap(),
        keys[1],
        &[&covered[..], &head.high()].concat(),
    );
    [&covered, &tag[..suite.icv_length()]].concat()
}

/// A combined mode; `key` ends with the salt. Ciphertext and whole tag.
pub(crate) fn combined(
    encryption: Encryption,
    key: &[u8],
    iv: &[u8],
    data: &[u8],
    text: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let (key, salt) = key.split_at(key.len() - 4);
    let nonce = [salt, iv].concat();
    if encryption == Encryption::ChaCha20Poly1305 {
        chacha20_poly1305(key, &nonce, data, text)
    } else {
        gcm(key, &nonce, data, text)
    }
}

pub(crate) fn chacha20_poly1305(
    key: &[u8],
    nonce: &[u8],
    data: &[u8],
    text: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let cipher = ChaCha20Poly1305::new_from_slice(key).unwrap();
    let nonce = Nonce::<ChaCha20Poly1305>::try_from(nonce).unwrap();
    let payload = Payload {
        msg: text,
        aad: data,
    };
    let mut sealed = cipher.encrypt(&nonce, payload).unwrap();
    let tag = sealed.split_off(text.len());
    (sealed, tag)
}

/// A cipher without integrity; the key of CTR ends with the nonce.
pub(crate) fn cipher(encryption: Encryption, key: &[u8], iv: &[u8], text: &[u8]) -> Vec<u8> {
    match encryption {
        Encryption::Null => text.to_vec(),
        Encryption::TripleDes => {
            let [a, b, c] = [0, 8, 16].map(|at| Des::new_from_slice(&key[at..at + 8]).unwrap());
            chain(iv, text, |block| {
                let mut block = Block::<Des>::try_from(block).unwrap();
                a.encrypt_block(&mut block);
                b.decrypt_block(&mut block);
                c.encrypt_block(&mut block);
                block.to_vec()
            })
        }
        Encryption::AesCbc { .. } => {
            let aes = Aes::new(key);
            chain(iv, text, |block| aes.block(block).to_vec())
        }
        Encryption::AesCtr { .. } => {
            let (key, nonce) = key.split_at(key.len() - 4);
            count(&Aes::new(key), &[nonce, iv].concat(), 1, text)
        }
        _ => unreachable!("combined modes are elsewhere"),
    }
}

/// The whole MAC.
pub(crate) fn mac(integrity: Integrity, key: &[u8], data: &[u8]) -> Vec<u8> {
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
        Integrity::Aes128Xcbc96 => cbc_mac(key, true, data),
        Integrity::Aes128Cmac96 => cbc_mac(key, false, data),
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
