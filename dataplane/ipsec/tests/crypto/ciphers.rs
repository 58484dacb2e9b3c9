//! NIST's known answers and multi-block messages for AES-CBC (AESAVS) and 3DES-CBC (TMOVS), each as
//! an ESP packet with a MAC beside the cipher.

use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use ipsec::crypto::{KeyError, Transform};
use ipsec::secret::Secret;

use crate::answers::published;
use crate::packet::Head;
use crate::records::{Record, records};

/// A record of either direction is one answer: text and ciphertext belong together.
fn answer(encryption: Encryption, key: &[u8], record: &Record) {
    let [iv, text, expected] = ["IV", "PLAINTEXT", "CIPHERTEXT"].map(|name| record.bytes(name));
    let parts = [&iv[..], &text, &expected];
    published(encryption, key, Head::PLAIN, parts, &record.place);
}

#[test]
fn aes_cbc_of_nist() {
    let mut count = 0;
    for (kind, lengths) in [
        ("GFSbox", &[128_u16, 192, 256][..]),
        ("KeySbox", &[128, 192, 256]),
        ("MMT", &[128, 192, 256]),
        ("VarKey", &[128]),
        ("VarTxt", &[128]),
    ] {
        for bits in lengths {
            for record in records(&format!("nist/CBC{kind}{bits}.rsp")) {
                let encryption = Encryption::AesCbc { bits: *bits };
                answer(encryption, &record.bytes("KEY"), &record);
                count += 1;
            }
        }
    }
    assert!(count > 700, "{count} records");
}

/// Keying option 1 (three keys) and 2 (the first is the third); option 3 (one key, that is DES) is
/// refused.
//= test T152
#[test]
fn triple_des_of_nist() {
    let key = |record: &Record| {
        if record.has("KEYs") {
            record.bytes("KEYs").repeat(3)
        } else {
            ["KEY1", "KEY2", "KEY3"]
                .map(|name| record.bytes(name))
                .concat()
        }
    };
    for option in [3, 2] {
        for record in records(&format!("nist/TCBCMMT{option}.rsp")) {
            answer(Encryption::TripleDes, &key(&record), &record);
        }
    }
    let suite = Suite {
        encryption: Encryption::TripleDes,
        integrity: Some(Integrity::Sha1_96),
    };
    for record in records("nist/TCBCMMT1.rsp") {
        let key = Secret::new(key(&record));
        let refusal = Transform::new(suite, &key, &Secret::new(vec![1; 20])).err();
        assert_eq!(refusal, Some(KeyError::WeakKey), "{}", record.place);
    }
}
