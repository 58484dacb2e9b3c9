//! Which record an SA's key has.

use std::net::IpAddr;

use ipsec::crypto::suite::Encryption;
use ipsec::sa::SaParameters;
use ipsec::sa::association::{Direction, Protocol};
use ring::hmac;

use crate::state::KeyId;

/// Names the key of an SA, for the SA's own direction.
#[must_use]
pub(super) fn key_id(secret: &[u8; 32], sa: &SaParameters) -> KeyId {
    key_id_towards(secret, sa, sa.direction)
}

/// Names the key of an SA in a direction.
///
/// In counter modes nothing counts but cipher family, key and salt: neither another SPI nor a
/// shorter ICV nor CTR in place of GCM makes the same IV harmless. In the others, where one key may
/// serve two SAs, the SA's identity counts too.
#[must_use]
pub(super) fn key_id_towards(secret: &[u8; 32], sa: &SaParameters, direction: Direction) -> KeyId {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(match direction {
        Direction::In => b"in",
        Direction::Out => b"ou",
    });
    if sa.suite.encryption.is_counter_mode() {
        update(&mut context, family(sa.suite.encryption).as_bytes());
        update(&mut context, sa.encryption_key.expose());
    } else if sa.suite.is_counter_mode() {
        update(&mut context, b"aes");
        update(&mut context, sa.integrity_key.expose());
    } else {
        update(&mut context, sa.suite.encryption.name().as_bytes());
        update(
            &mut context,
            sa.suite.integrity.map_or("", |it| it.name()).as_bytes(),
        );
        update(&mut context, sa.encryption_key.expose());
        update(&mut context, sa.integrity_key.expose());
        update(&mut context, &sa.spi.to_be_bytes());
        update(
            &mut context,
            &[match sa.protocol {
                Protocol::Esp => 50,
                Protocol::Ah => 51,
            }],
        );
        match sa.destination {
            IpAddr::V4(address) => update(&mut context, &address.octets()),
            IpAddr::V6(address) => update(&mut context, &address.octets()),
        }
    }
    let tag = context.sign();
    let mut id = [0; 16];
    for (byte, tag) in id.iter_mut().zip(tag.as_ref()) {
        *byte = *tag;
    }
    KeyId(id)
}

/// Each field with its length, so that no two lists of fields read alike.
fn update(context: &mut hmac::Context, field: &[u8]) {
    context.update(&(field.len() as u64).to_be_bytes());
    context.update(field);
}

const fn family(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::ChaCha20Poly1305 => "chacha20",
        _ => "aes",
    }
}
