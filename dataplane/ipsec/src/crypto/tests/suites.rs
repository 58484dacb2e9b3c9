//! The algorithm table itself.

use super::*;

#[test]
fn names_lead_back_to_their_algorithm() {
    for it in Encryption::ALL {
        assert_eq!(Encryption::from_name(it.name()), Some(it), "{}", it.name());
    }
    for it in Integrity::ALL {
        assert_eq!(Integrity::from_name(it.name()), Some(it), "{}", it.name());
    }
    for name in [
        "",
        "unknown",
        "aes",
        "AES128",
        "aes128gcm",
        "aes192gmac",
        "sha1",
    ] {
        assert_eq!(Encryption::from_name(name), None, "{name}");
        assert_eq!(Integrity::from_name(name), None, "{name}");
    }
}

/// Name, key bytes, IV, alignment, ICV, counter mode.
type Row = (&'static str, usize, usize, usize, usize, bool);

//= test T144
//= test T145
//= test T06
//= test T07
//= test T149
//= test T72
#[test]
fn the_encryption_table_is_the_documented_one() {
    let rows: [Row; 20] = [
        ("null", 0, 0, 4, 0, false),
        ("aes128gcm16", 20, 8, 4, 16, true),
        ("aes192gcm16", 28, 8, 4, 16, true),
        ("aes256gcm16", 36, 8, 4, 16, true),
        ("aes128gcm12", 20, 8, 4, 12, true),
        ("aes192gcm12", 28, 8, 4, 12, true),
        ("aes256gcm12", 36, 8, 4, 12, true),
        ("aes128gcm8", 20, 8, 4, 8, true),
        ("aes192gcm8", 28, 8, 4, 8, true),
        ("aes256gcm8", 36, 8, 4, 8, true),
        ("aes128gmac", 20, 8, 4, 16, true),
        ("aes256gmac", 36, 8, 4, 16, true),
        ("chacha20poly1305", 36, 8, 4, 16, true),
        ("aes128", 16, 16, 16, 0, false),
        ("aes192", 24, 16, 16, 0, false),
        ("aes256", 32, 16, 16, 0, false),
        ("aes128ctr", 20, 8, 4, 0, true),
        ("aes192ctr", 28, 8, 4, 0, true),
        ("aes256ctr", 36, 8, 4, 0, true),
        ("3des", 24, 8, 8, 0, false),
    ];
    let table = Encryption::ALL.map(|it| {
        let lengths = (
            it.key_length(),
            it.iv_length(),
            it.alignment(),
            it.icv_length(),
        );
        (
            it.name(),
            lengths.0,
            lengths.1,
            lengths.2,
            lengths.3,
            it.is_counter_mode(),
        )
    });
    assert_eq!(table, rows);
    let legacy = Encryption::ALL.into_iter().filter(|it| it.is_legacy());
    assert_eq!(legacy.collect::<Vec<_>>(), [Encryption::TripleDes]);
}

//= test T19
//= test T20
//= test T146
//= test T147
//= test T154
#[test]
fn the_integrity_table_is_the_documented_one() {
    let rows = [
        ("md5_96", 16, 12),
        ("sha1_96", 20, 12),
        ("sha256_128", 32, 16),
        ("sha384_192", 48, 24),
        ("sha512_256", 64, 32),
        ("aes128_xcbc_96", 16, 12),
        ("aes128_cmac_96", 16, 12),
        ("aes128gmac", 20, 24),
        ("aes256gmac", 36, 24),
    ];
    let table = Integrity::ALL.map(|it| (it.name(), it.key_length(), it.icv_length()));
    assert_eq!(table, rows);
    let legacy = Integrity::ALL.into_iter().filter(|it| it.is_legacy());
    assert_eq!(legacy.collect::<Vec<_>>(), [Integrity::Md5_96]);
}

//= test T11
//= test T71
//= test T148
//= test T150
#[test]
fn only_legal_pairs_pass() {
    let check = |encryption, integrity, protocol| {
        Suite {
            encryption,
            integrity,
        }
        .check(protocol)
    };
    let (sha1, gmac) = (
        Some(Integrity::Sha1_96),
        Some(Integrity::AesGmac { bits: 128 }),
    );
    let gcm = Encryption::AesGcm { bits: 128, icv: 16 };
    let cbc = Encryption::AesCbc { bits: 128 };
    let (null, esp, ah) = (Encryption::Null, Protocol::Esp, Protocol::Ah);
    assert_eq!(check(gcm, None, esp), Ok(()));
    assert_eq!(check(cbc, sha1, esp), Ok(()));
    assert_eq!(check(null, sha1, esp), Ok(()));
    assert_eq!(check(null, sha1, ah), Ok(()));
    assert_eq!(check(null, gmac, ah), Ok(()));
    assert_eq!(check(Encryption::AesGmac { bits: 256 }, None, esp), Ok(()));
    assert_eq!(check(null, None, esp), Err(SuiteError::IntegrityMissing));
    assert_eq!(check(cbc, None, esp), Err(SuiteError::IntegrityMissing));
    assert_eq!(check(null, None, ah), Err(SuiteError::IntegrityMissing));
    assert_eq!(check(gcm, sha1, esp), Err(SuiteError::IntegrityWithAead));
    assert_eq!(check(cbc, gmac, esp), Err(SuiteError::GmacIsEncryption));
    assert_eq!(check(null, gmac, esp), Err(SuiteError::GmacIsEncryption));
    assert_eq!(check(cbc, sha1, ah), Err(SuiteError::EncryptionInAh));
    assert_eq!(check(gcm, None, ah), Err(SuiteError::EncryptionInAh));
    for (bits, icv) in [(129, 16), (128, 15), (0, 8)] {
        let odd = Encryption::AesGcm { bits, icv };
        assert_eq!(check(odd, None, esp), Err(SuiteError::Unknown));
    }
    assert_eq!(
        check(Encryption::AesGmac { bits: 192 }, None, esp),
        Err(SuiteError::Unknown)
    );
    // 8 ciphers times 7 MACs, and 12 AEADs.
    assert_eq!(esp_suites().len(), 8 * 7 + 12);
}

//= test T19
//= test T20
//= test T154
#[test]
fn keys_of_any_other_length_are_refused() {
    for suite in esp_suites() {
        let (encryption, integrity) = keys(suite, 1);
        let build = |encryption: &[u8], integrity: &[u8]| {
            let keys = [encryption, integrity].map(|key| Secret::new(key.to_vec()));
            Transform::new(suite, &keys[0], &keys[1]).err()
        };
        assert_eq!(build(&encryption, &integrity), None);
        for given in (0..80).filter(|it| *it != encryption.len()) {
            let wanted = encryption.len();
            let error = KeyError::EncryptionLength { given, wanted };
            assert_eq!(build(&vec![7; given], &integrity), Some(error));
        }
        for given in (0..80).filter(|it| *it != integrity.len()) {
            let wanted = integrity.len();
            let error = KeyError::IntegrityLength { given, wanted };
            assert_eq!(build(&encryption, &vec![7; given]), Some(error));
        }
    }
}

//= test T152
#[test]
fn a_3des_key_with_equal_parts_is_refused() {
    let suite = Suite {
        encryption: Encryption::TripleDes,
        integrity: Some(Integrity::Sha1_96),
    };
    let build = |parts: [[u8; 8]; 3]| {
        let key = Secret::new(parts.concat());
        Transform::new(suite, &key, &Secret::new(vec![1; 20])).err()
    };
    let [a, b, c] = [[0x10; 8], [0x20; 8], [0x40; 8]];
    assert_eq!(build([a, b, c]), None);
    assert_eq!(build([a, b, a]), None);
    assert_eq!(build([a, a, b]), Some(KeyError::WeakKey));
    assert_eq!(build([a, b, b]), Some(KeyError::WeakKey));
    // Parity aside.
    assert_eq!(
        build([a, a.map(|byte| byte | 1), b]),
        Some(KeyError::WeakKey)
    );
}

#[test]
fn an_ah_suite_builds_and_seals_no_esp() {
    let suite = Suite {
        encryption: Encryption::Null,
        integrity: Some(Integrity::AesGmac { bits: 256 }),
    };
    let transform = transform(suite, 1);
    let mut packet = vec![0xaa; 100];
    let destination = &mut packet[..];
    let source = &[1; 20];
    seal(&mut [SealJob {
        transform: &transform,
        source,
        destination,
        sequence: 1,
        esn: false,
    }]);
    assert_eq!(packet, [0; 100]);
    assert_eq!(opened(&transform, &[0xaa; 100], 1, false), None);
}

#[test]
fn a_suite_that_is_legal_nowhere_is_refused() {
    let suite = Suite {
        encryption: Encryption::AesCbc { bits: 128 },
        integrity: None,
    };
    let key = Secret::new(vec![1; 16]);
    let error = Transform::new(suite, &key, &Secret::default()).err();
    assert_eq!(error, Some(SuiteError::IntegrityMissing.into()));
}

//= test T16
//= test T18
//= test T21
#[test]
fn counter_ivs_are_the_masked_number() {
    assert_eq!(
        iv::counter_iv(0x0102_0304_0506_0708, 0),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
    assert_eq!(
        iv::counter_iv(1, 0xff00_0000_0000_0001),
        [0xff, 0, 0, 0, 0, 0, 0, 0]
    );
    let mask = 0x5555_aaaa_1234_5678;
    let ivs = (0..10_000).map(|sequence| iv::counter_iv(sequence, mask));
    assert_eq!(ivs.collect::<std::collections::HashSet<_>>().len(), 10_000);
}

//= test T17
#[test]
fn cbc_ivs_neither_repeat_nor_follow_from_each_other() {
    let draw = |source: &mut iv::RandomIvs| {
        let mut iv = [0; 16];
        source.fill(&mut iv);
        u128::from_be_bytes(iv)
    };
    let mut source = iv::RandomIvs::new().unwrap();
    let ivs: Vec<u128> = (0..10_000).map(|_| draw(&mut source)).collect();
    assert_eq!(
        ivs.iter().collect::<std::collections::HashSet<_>>().len(),
        ivs.len()
    );
    // Neighbours of a counter differ in few bits, those of a cipher in half of them.
    let differing: u32 = ivs
        .windows(2)
        .map(|pair| (pair[0] ^ pair[1]).count_ones())
        .sum();
    let mean = f64::from(differing) / 9_999.0;
    assert!((62.0..66.0).contains(&mean), "{mean}");
    // Two workers have two keys.
    assert_ne!(draw(&mut iv::RandomIvs::new().unwrap()), draw(&mut source));
    let mut short = [0; 8];
    iv::RandomIvs::seeded(&[1; 32], 5).fill(&mut short);
    let mut long = [0; 16];
    iv::RandomIvs::seeded(&[1; 32], 5).fill(&mut long);
    assert_eq!(short, long[..8]);
}
