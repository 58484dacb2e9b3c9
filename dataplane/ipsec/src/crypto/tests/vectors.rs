//! Published vectors. MACs are asked directly, since their vectors are no packets.

use hmac::{Hmac, KeyInit};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::super::cbc_mac::CbcMac;
use super::super::cipher::{Cipher, Encipher};
use super::super::mac::{self, Authenticate, Mac, Signed};
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Compares with as much of the MAC as is given, 32 bytes at most.
fn check(mac: &impl Authenticate, data: &[u8], expected: &str) {
    let expected = hex(expected);
    let (front, back) = data.split_at(data.len() / 3);
    let whole = mac.tag(data, &[]);
    assert_eq!(whole[..expected.len()], expected);
    assert_eq!(mac.tag(front, back), whole);
}

fn hmac<M: KeyInit + Authenticate>(key: &[u8], data: &[u8], expected: &str) {
    check(&M::new_from_slice(key).unwrap(), data, expected);
}

const LONG: &[u8] = b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data";

/// RFC 2202 section 2.
//= test T19
#[test]
fn hmac_md5() {
    let counted: Vec<u8> = (1..=25).collect();
    let check = hmac::<Hmac<Md5>>;
    check(&[0x0b; 16], b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d");
    check(
        b"Jefe",
        b"what do ya want for nothing?",
        "750c783e6ab0b503eaa86e310a5db738",
    );
    check(&[0xaa; 16], &[0xdd; 50], "56be34521d144c88dbb8c733f0e8b3f6");
    check(&counted, &[0xcd; 50], "697eaf0aca3a3aea3a75164746ffaa79");
    check(
        &[0x0c; 16],
        b"Test With Truncation",
        "56461ef2342edc00f9bab995",
    );
    check(&[0xaa; 80], LONG, "6f630fad67cda0ee1fb1f562db3aa53e");
}

/// RFC 2202 section 3.
//= test T19
#[test]
fn hmac_sha1() {
    let counted: Vec<u8> = (1..=25).collect();
    let check = hmac::<Hmac<Sha1>>;
    check(
        &[0x0b; 20],
        b"Hi There",
        "b617318655057264e28bc0b6fb378c8ef146be00",
    );
    check(
        b"Jefe",
        b"what do ya want for nothing?",
        "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
    );
    check(
        &[0xaa; 20],
        &[0xdd; 50],
        "125d7342b9ac11cd91a39af48aa17b4f63f175d3",
    );
    check(
        &counted,
        &[0xcd; 50],
        "4c9007f4026250c6bc8414f9bf50c86c2d7235da",
    );
    check(
        &[0x0c; 20],
        b"Test With Truncation",
        "4c1a03424b55e07fe7f27be1",
    );
    check(
        &[0xaa; 80],
        LONG,
        "e8e99d0f45237d786d6bbaa7965c7808bbff1a91",
    );
}

/// RFC 4231, cases 2, 4, 6.
//= test T20
#[test]
fn hmac_sha2() {
    let jefe = b"what do ya want for nothing?";
    hmac::<Hmac<Sha256>>(
        b"Jefe",
        jefe,
        "5bdcc146bf60754e6a042426089575c7 5a003f089d2739839d",
    );
    hmac::<Hmac<Sha384>>(
        b"Jefe",
        jefe,
        "af45d2e376484031617f78d2b58a6b1b 9c7ef464f5a01b47e4",
    );
    hmac::<Hmac<Sha512>>(
        b"Jefe",
        jefe,
        "164b7a7bfcf819e2e395fbe73b56e0a3 87bd64222e831fd610",
    );
    let key: Vec<u8> = (1..=25).collect();
    let data = [0xcd; 50];
    hmac::<Hmac<Sha256>>(
        &key,
        &data,
        "82558a389a443c0ea4cc819899f2083a 85f0faa3e578f8077a",
    );
    hmac::<Hmac<Sha384>>(
        &key,
        &data,
        "3e8a69b7783c25851933ab6290af6ca7 7a9981480850009cc5",
    );
    hmac::<Hmac<Sha512>>(
        &key,
        &data,
        "b0ba465637458c6990e5a8c5f61d4af7 e576d97ff94b872de7",
    );
    let (key, data) = (
        [0xaa; 131],
        b"Test Using Larger Than Block-Size Key - Hash Key First",
    );
    hmac::<Hmac<Sha256>>(
        &key,
        data,
        "60e431591ee0b67f0d8a26aacbf5b77f 8e0bc6213728c51405",
    );
    hmac::<Hmac<Sha384>>(
        &key,
        data,
        "4ece084485813e9088d2c63a041bc5b4 4f9ef1012a2b588f3c",
    );
    hmac::<Hmac<Sha512>>(
        &key,
        data,
        "80b24263c7c1a3ebb71493c1dd7be8b4 9b46d1f41b4aeec112",
    );
}

/// RFC 4868 section 2.7.2: keys of the lengths that IPsec uses.
//= test T20
#[test]
fn hmac_sha2_in_ipsec() {
    let tag = |integrity: Integrity, key: &[u8], data: &[u8]| {
        let made = Backend::all().map(|backend| {
            let mac = &Mac::new(backend, integrity, key).unwrap();
            let (packet, high) = (data, None);
            let tags = mac::tags(&std::iter::once(Signed { mac, packet, high }).collect());
            tags[0][..integrity.icv_length()].to_vec()
        });
        let mut made: Vec<Vec<u8>> = made.collect();
        made.dedup();
        assert_eq!(made.len(), 1);
        made.remove(0)
    };
    let (short, long) = (b"Hi There", [0xcd; 50]);
    let counted: Vec<u8> = (1..=32).collect();
    assert_eq!(
        tag(Integrity::Sha256_128, &[0x0b; 32], short),
        hex("198a607eb44bfbc69903a0f1cf2bbdc5"),
    );
    assert_eq!(
        tag(Integrity::Sha256_128, &counted, &long),
        hex("372efcf9b40b35c2115b1346903d2ef4"),
    );
    assert_eq!(
        tag(Integrity::Sha384_192, &[0x0b; 48], short),
        hex("b6a8d5636f5c6a7224f9977dcf7ee6c7 fb6d0c48cbdee973"),
    );
    let key = [&counted[..], &(0x0a..=0x19).collect::<Vec<u8>>()].concat();
    assert_eq!(
        tag(Integrity::Sha384_192, &key, &long),
        hex("5b540085c6e6358096532b2493609ed1 cb298f774f87bb5c"),
    );
    assert_eq!(
        tag(Integrity::Sha512_256, &[0x0b; 64], short),
        hex("637edc6e01dce7e6742a99451aae82df 23da3e92439e590e43e761b33e910fb8"),
    );
    // The key that the RFC prints for case 4 has 80 bytes instead of 64, so case 3 it is.
    assert_eq!(
        tag(Integrity::Sha512_256, &[0xaa; 64], &[0xdd; 50]),
        hex("2ee7acd783624ca9398710f3ee05ae41 b9f9b0510c87e49e586cc9bf961733d8"),
    );
}

/// RFC 3566 section 4.6.
//= test T154
#[test]
fn aes_xcbc() {
    let counted: Vec<u8> = (0..34).collect();
    let mac = CbcMac::xcbc(counted[..16].try_into().unwrap());
    check(&mac, &[], "75f0251d528ac01c4573dfd584d79f29");
    check(&mac, &counted[..3], "5b376580ae2f19afe7219ceef172756f");
    check(&mac, &counted[..16], "d2a246fa349b68a79998a4394ff7a263");
    check(&mac, &counted[..20], "47f51b4564966215b8985c63055ed308");
    check(&mac, &counted[..32], "f54f0ec8d2b9f3d36807734bd5283fd4");
    check(&mac, &counted, "becbb3bccdb518a30677d5481fb6b4d8");
    check(&mac, &[0; 1000], "f0dafee895db30253761103b5d84528f");
}

/// RFC 4493 section 4; RFC 4494 cuts the same ones to 96 bits.
#[test]
fn aes_cmac() {
    let key = hex("2b7e1516 28aed2a6 abf71588 09cf4f3c");
    let mac = CbcMac::cmac(&key.try_into().unwrap());
    let message = hex(
        "6bc1bee2 2e409f96 e93d7e11 7393172a ae2d8a57 1e03ac9c 9eb76fac 45af8e51
         30c81c46 a35ce411 e5fbc119 1a0a52ef f69f2445 df4f9b17 ad2b417b e66c3710",
    );
    check(&mac, &[], "bb1d6929 e9593728 7fa37d12 9b756746");
    check(&mac, &message[..16], "070a16b4 6b4d4144 f79bdd9d d04a287c");
    check(&mac, &message[..40], "dfa66747 de9ae630 30ca3261 1497c827");
    check(&mac, &message, "51f0bebf 7e3b9d92 fc497417 79363cfe");
}

/// Encrypts and decrypts by a cipher that wants a MAC beside it.
fn cipher(encryption: Encryption, key: &str, iv: &str, plain: &[u8], expected: &str) {
    fn run(cipher: &impl Encipher, iv: &[u8], plain: &[u8], sealed: &[u8]) {
        let mut text = plain.to_vec();
        cipher.encrypt(iv, &mut text).unwrap();
        assert_eq!(text, sealed);
        cipher.decrypt(iv, sealed, &mut text).unwrap();
        assert_eq!(text, plain);
    }
    let (iv, sealed) = (hex(iv), hex(expected));
    let library = Backend::all().last().unwrap();
    match Cipher::new(library, encryption, &hex(key)).unwrap() {
        Cipher::Cbc128(cipher) => run(&*cipher, &iv, plain, &sealed),
        Cipher::Ctr128(cipher) => run(&*cipher, &iv, plain, &sealed),
        Cipher::Ctr192(cipher) => run(&*cipher, &iv, plain, &sealed),
        Cipher::Ctr256(cipher) => run(&*cipher, &iv, plain, &sealed),
        _ => unreachable!("only these are asked for"),
    }
}

/// RFC 3602 section 4: cases 1, 3 and the packets of cases 5, 6 and 7.
#[test]
fn aes_cbc() {
    let check = |key, iv, plain: &[u8], expected| {
        cipher(Encryption::AesCbc { bits: 128 }, key, iv, plain, expected);
    };
    check(
        "06a9214036b8a15b512e03d534120006",
        "3dafba429d9eb430b422da802c9fac41",
        b"Single block msg",
        "e353779c1079aeb82708942dbe77181a",
    );
    check(
        "6c3ea0477630ce21a2ce334aa746c2cd",
        "c782dc4c098c66cbd9cd27d825682c81",
        b"This is a 48-byte message (exactly 3 AES blocks)",
        "d0a02b3836451753d493665d33f0e886 2dea54cdb293abc7506939276772f8d5
         021c19216bad525c8579695d83ba2684",
    );
    check(
        "90d382b4 10eeba7a d938c46c ec1a82bf",
        "e96e8c08 ab465763 fd098d45 dd3ff893",
        &hex(
            "08000ebd a70a0000 8e9c083d b95b0700 08090a0b 0c0d0e0f 10111213 14151617
              18191a1b 1c1d1e1f 20212223 24252627 28292a2b 2c2d2e2f 30313233 34353637
              01020304 05060708 090a0b0c 0d0e0e01",
        ),
        "f663c25d 325c18c6 a9453e19 4e120849 a4870b66 cc6b9965 330013b4 898dc856
         a4699e52 3a55db08 0b59ec3a 8e4b7e52 775b07d1 db34ed9c 538ab50c 551b874a
         a269add0 47ad2d59 13ac19b7 cfbad4a6",
    );
    check(
        "90d382b4 10eeba7a d938c46c ec1a82bf",
        "69d08df7 d203329d b093fc49 24e5bd80",
        &hex("0800b5e8 a80a0500 a69c083d 0b660e00 77777777 77777777 77777777 01020201"),
        "f5199588 1ec4e0c4 488987ce 742e8109 689bb379 d2d750c0 d915dca3 46a89f75",
    );
    check(
        "01234567 89abcdef 01234567 89abcdef",
        "f4e76524 4f6407ad f13dc138 0f673f37",
        &hex(
            "45000054 09040000 4001f988 c0a87b03 c0a87bc8 08009f76 a90a0100 b49c083d
              02a20400 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223
              24252627 28292a2b 2c2d2e2f 30313233 34353637 01020304 05060708 090a0a04",
        ),
        "773b5241 a4c44922 5e4f3ce5 ed611b0c 237ca96c f74a9301 3c1b0ea1 a0cf70f8
         e4ecaec7 8ac53aad 7a0f022b 859243c6 47752e94 a859352b 8a4d4d2d ecd136e5
         c177f132 ad3fbfb2 201ac990 4c74ee0a 109e0ca1 e4dfe9d5 a100b842 f1c22f0d",
    );
}

/// RFC 3686 section 6: vectors 1, 3, 6 and 9.
//= test T18
#[test]
fn aes_ctr() {
    let counted: Vec<u8> = (0..36).collect();
    cipher(
        Encryption::AesCtr { bits: 128 },
        "AE6852F8121067CC4BF7A5765577F39E 00000030",
        "0000000000000000",
        b"Single block msg",
        "E4095D4FB7A7B3792D6175A3261311B8",
    );
    cipher(
        Encryption::AesCtr { bits: 128 },
        "7691BE035E5020A8AC6E618529F9A0DC 00E0017B",
        "27777F3F4A1786F0",
        &counted,
        "C1CF48A89F2FFDD9CF4652E9EFDB72D7 4540A42BDE6D7836D59A5CEAAEF31053 25B2072F",
    );
    cipher(
        Encryption::AesCtr { bits: 192 },
        "02BF391EE8ECB159B959617B0965279BF59B60A786D3E0FE 0007BDFD",
        "5CBD60278DCC0912",
        &counted,
        "96893FC55E5C722F540B7DD1DDF7E758 D288BC95C69165884536C811662F2188 ABEE0935",
    );
    cipher(
        Encryption::AesCtr { bits: 256 },
        "FF7A617CE69148E4F1726E2F43581DE2AA62D9F805532EDFF1EED687FB54153D 001CC5B7",
        "51A51D70A1C11148",
        &counted,
        "EB6C52821D0BBBF7CE7594462ACA4FAA B407DF866569FD07F48CC0B583D6071F 1EC0E6B8",
    );
}

/// Seals `payload` into `packet`, whose room for it is empty, and opens it again.
fn packet(suite: Suite, key: &str, head: &str, payload: &str, rest: &str, expected: &str) {
    let keys = [Secret::new(hex(key)), Secret::default()];
    let transform = Transform::new(suite, &keys[0], &keys[1]).unwrap();
    let (payload, expected) = (hex(payload), hex(expected));
    let mut packet = hex(head);
    packet.resize(packet.len() + payload.len(), 0);
    packet.extend(hex(rest));
    packet.resize(packet.len() + suite.icv_length(), 0);
    let sequence = u64::from(u32::from_be_bytes(packet[4..8].try_into().unwrap()));
    seal(&mut [SealJob {
        transform: &transform,
        source: &payload,
        destination: &mut packet,
        sequence,
        esn: false,
    }]);
    assert_eq!(packet, expected);
    let text = opened(&transform, &packet, sequence, false).unwrap();
    assert_eq!(text, [payload, hex(rest)].concat());
}

/// The packet of RFC 7634 appendix A, from the ESP header on.
//= test T21
#[test]
fn chacha20_poly1305_packet() {
    packet(
        Suite {
            encryption: Encryption::ChaCha20Poly1305,
            integrity: None,
        },
        "808182838485868788898a8b8c8d8e8f 909192939495969798999a9b9c9d9e9f a0a1a2a3",
        "01020304 00000005 1011121314151617",
        "45000054a6f200004001e778c6336405 c000020508005b7a3a080000553bec10
         0007362708090a0b0c0d0e0f10111213 1415161718191a1b1c1d1e1f20212223
         2425262728292a2b2c2d2e2f30313233 34353637",
        "01020204",
        "0102030400000005 1011121314151617
         24039428b97f417e3c13753a4f05087b 67c352e6a7fab1b982d466ef407ae5c6
         14ee8099d52844eb61aa95dfab4c02f7 2aa71e7c4c4f64c9befe2facc638e8f3
         cbec163fac469b502773f6fb94e664da 9165b82829f641e0
         76aaa8266b7fb0f7b11b369907e1ad43",
    );
}

/// A packet of draft-mcgrew-gcm-test-01 in the form of RFC 4543: its IV is authenticated.
//= test T150
#[test]
fn aes_gmac_packet() {
    let inner = "45000030da3a00008001df3bc0a80005 c0a800010800c6cd020007006162636465666768
         696a6b6c6d6e6f7071727374";
    let head = "00004321 00000007 0000000000000000";
    let tag = "f2a9a836e155106aa8dcd618e4099aaa";
    packet(
        Suite {
            encryption: Encryption::AesGmac { bits: 128 },
            integrity: None,
        },
        "4c80cdefbb5d10da906ac73c3613a634 22433c64",
        head,
        inner,
        "01020201",
        &[head, inner, "01020201", tag].concat(),
    );
}
