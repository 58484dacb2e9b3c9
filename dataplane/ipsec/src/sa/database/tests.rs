//! The database against a list.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::sa::association::{Direction, SaParameters};
use crate::sa::sample;

fn inbound(slot: u32, spi: u32, destination: &str) -> Arc<Sa> {
    sample::sa(slot, sample::parameters(Direction::In, spi, destination))
}

fn many(count: u32) -> Vec<Arc<Sa>> {
    (0..count)
        .map(|slot| {
            let destination = match slot % 3 {
                0 => "192.0.2.1",
                1 => "2001:db8::1",
                _ => "198.51.100.77",
            };
            inbound(slot, 0x100 + slot / 2, destination)
        })
        .collect()
}

fn same(found: Option<&Arc<Sa>>, sa: &Arc<Sa>) -> bool {
    found.is_some_and(|found| Arc::ptr_eq(found, sa))
}

//= test T56
#[test]
fn all_parts_of_the_key_count() {
    let first = inbound(0, 0x1001, "192.0.2.1");
    let ah = SaParameters {
        protocol: Protocol::Ah,
        name: "ah".into(),
        ..sample::parameters(Direction::In, 0x1001, "192.0.2.1")
    };
    let ah = sample::sa(1, ah);
    let elsewhere = inbound(2, 0x1001, "192.0.2.2");
    let all = [first, ah, elsewhere].to_vec();
    let sad = Sad::new(&all).unwrap();
    let bits = |text: &str| address_bits(text.parse().unwrap());
    let find = |spi, protocol, version, address| sad.lookup(spi, protocol, version, bits(address));
    let (esp, v4, v6) = (Protocol::Esp, Version::V4, Version::V6);
    assert!(same(find(0x1001, esp, v4, "192.0.2.1"), &all[0]));
    assert!(same(find(0x1001, Protocol::Ah, v4, "192.0.2.1"), &all[1]));
    assert!(same(find(0x1001, esp, v4, "192.0.2.2"), &all[2]));
    assert!(find(0x1002, esp, v4, "192.0.2.1").is_none());
    assert!(find(0x1001, esp, v4, "192.0.2.3").is_none());
    // An IPv6 packet to the IPv4-mapped address is another destination.
    assert!(find(0x1001, esp, v6, "::ffff:192.0.2.1").is_none());
    assert!(find(0x1001, Protocol::Ah, v4, "192.0.2.2").is_none());
}

#[test]
fn every_sa_is_found_by_key_slot_and_name_and_no_other() {
    for count in [0, 1, 5, 6, 300, 20_000] {
        let all = many(count);
        let sad = Sad::new(&all).unwrap();
        assert_eq!(sad.len(), all.len());
        assert_eq!(sad.is_empty(), all.is_empty());
        assert!(
            sad.iter()
                .zip(&all)
                .all(|(found, sa)| Arc::ptr_eq(found, sa))
        );
        assert_eq!(sad.iter().count(), all.len());
        let keys: Vec<Key> = all.iter().map(|sa| Key::of(sa)).collect();
        let mut found = vec![None; keys.len() + 1];
        sad.find_batch(&keys, &mut found);
        for ((sa, key), found) in all.iter().zip(&keys).zip(found) {
            assert!(same(sad.find(key), sa));
            assert!(same(found, sa));
            assert!(same(sad.by_slot(sa.slot), sa));
            assert!(same(sad.by_name(&sa.name), sa));
            let other = Key {
                spi: key.spi ^ 0x8000_0000,
                ..*key
            };
            assert!(sad.find(&other).is_none());
            let mut none = [Some(sa)];
            sad.find_batch(&[other], &mut none);
            assert!(none[0].is_none());
        }
        assert!(sad.by_slot(SaSlot(count)).is_none());
        assert!(sad.by_slot(SaSlot(u32::MAX)).is_none());
        assert!(sad.by_name("nobody").is_none());
    }
}

#[test]
fn a_change_makes_the_next_one_and_leaves_the_last_as_it_was() {
    let all = many(3000);
    let sad = Sad::new(&all[..2000]).unwrap();
    let removed: Vec<SaSlot> = (0..2000).step_by(3).map(SaSlot).collect();
    let next = sad.with(&all[2000..], &removed).unwrap();
    for (index, sa) in all.iter().enumerate() {
        let (before, after) = (index < 2000, index >= 2000 || index % 3 != 0);
        let key = Key::of(sa);
        assert_eq!(same(sad.find(&key), sa), before);
        assert_eq!(same(sad.by_name(&sa.name), sa), before);
        assert_eq!(same(next.find(&key), sa), after);
        assert_eq!(same(next.by_slot(sa.slot), sa), after);
        assert_eq!(same(next.by_name(&sa.name), sa), after);
    }
    assert_eq!(sad.len(), 2000);
    assert_eq!(next.len(), 3000 - removed.len());
    assert_eq!(next.iter().count(), next.len());
}

#[test]
fn a_change_shares_all_shards_but_its_own() {
    let all = many(10_000);
    let sad = Sad::new(&all).unwrap();
    let next = sad
        .with(&[inbound(10_000, 0xffff_0000, "192.0.2.1")], &[SaSlot(77)])
        .unwrap();
    let copied = sad
        .shards
        .iter()
        .zip(&next.shards)
        .filter(|(a, b)| !Arc::ptr_eq(a, b));
    assert!(copied.count() <= 2);
    let copied = sad
        .chunks
        .iter()
        .zip(&next.chunks)
        .filter(|(a, b)| !Arc::ptr_eq(a, b));
    assert!(copied.count() <= 2);
}

#[test]
fn an_sa_may_take_the_place_of_the_one_removed_with_it() {
    let old = inbound(7, 0x1001, "192.0.2.1");
    let new = inbound(7, 0x1001, "192.0.2.1");
    let sad = Sad::new(&[Arc::clone(&old)]).unwrap();
    let next = sad.with(&[Arc::clone(&new)], &[old.slot]).unwrap();
    assert!(same(next.find(&Key::of(&new)), &new));
    assert!(same(next.by_name(&new.name), &new));
    assert_eq!(next.len(), 1);
    let empty = next.with(&[], &[new.slot, new.slot, SaSlot(9)]).unwrap();
    assert!(empty.is_empty());
    assert!(empty.find(&Key::of(&new)).is_none());
}

#[test]
fn keys_names_and_slots_stand_for_one_sa() {
    let first = inbound(0, 0x1001, "192.0.2.1");
    let named = |slot, spi, name: &str| {
        let parameters = sample::parameters(Direction::In, spi, "192.0.2.1");
        sample::sa(
            slot,
            SaParameters {
                name: name.into(),
                ..parameters
            },
        )
    };
    let sad = Sad::new(&[Arc::clone(&first)]).unwrap();
    let error = |sa| sad.with(&[sa], &[]).unwrap_err();
    let (added, present) = ("twin".into(), first.name.clone());
    assert_eq!(
        error(named(1, 0x1001, "twin")),
        SadError::DuplicateKey { added, present }
    );
    assert_eq!(
        error(named(1, 0x1002, &first.name)),
        SadError::DuplicateName(first.name.clone()),
    );
    assert_eq!(
        error(named(0, 0x1002, "late")),
        SadError::DuplicateSlot("late".into())
    );
    let twice = sad.with(&[named(1, 0x2000, "a"), named(2, 0x2000, "b")], &[]);
    assert!(matches!(twice, Err(SadError::DuplicateKey { .. })));
    // Refused whole: the database is as it was.
    assert_eq!(sad.len(), 1);
    assert!(same(sad.find(&Key::of(&first)), &first));
}

#[test]
fn buckets_that_overflow_lead_on() {
    // One shard's worth of SAs by force: all in one shard as `build` makes it.
    let sad = Sad::default();
    let all = many(400);
    let shard = sad.build(&all.iter().collect::<Vec<_>>()).unwrap();
    assert!(shard.iter().any(|bucket| bucket.overflows));
    for sa in &all {
        let key = Key::of(sa);
        assert!(same(search(&shard, &sad.place(&key), &key), sa));
        let other = Key {
            spi: key.spi | 0x4000_0000,
            ..key
        };
        assert!(search(&shard, &sad.place(&other), &other).is_none());
    }
}
