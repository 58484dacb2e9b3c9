//! The key's work is done apart, on another thread, with nothing but what is owned: the same bytes
//! and the same verdicts as in one go.

use std::sync::atomic::Ordering::Relaxed;

use ipsec::inbound::{self, Opening};
use ipsec::limits::BATCH;
use ipsec::outbound::{self, Sealing};
use ipsec::packet::parse;
use ipsec::sa::association::{Mode, SaParameters, UdpEncapsulation};
use ipsec::verdict::DropReason;

use crate::authentication_header;
use crate::gateway::{A, A6, B, B6, Gateway, In, Out, pair, pair_of, set_suite, suites};
use crate::packets::{between, v4, v6};

/// [`outbound::protect`], the keys' part on another thread.
pub(crate) fn protect(items: &mut [outbound::Item<'_>], context: &mut outbound::Context<'_, '_>) {
    for items in items.chunks_mut(BATCH) {
        outbound::write(items, context);
        let sealing = items.iter_mut().filter_map(|item| {
            Some(Sealing {
                task: item.task()?,
                sa: item.sa?,
                source: item.source,
                destination: item.destination.as_deref_mut()?,
                sealed: false,
            })
        });
        let mut sealing: Vec<Sealing<'_>> = sealing.collect();
        std::thread::scope(|scope| scope.spawn(|| outbound::seal(&mut sealing)).join()).unwrap();
        assert!(sealing.iter().all(|one| one.sealed));
    }
}

/// [`inbound::open`], the keys' part on another thread.
pub(crate) fn open<'a>(items: &mut [inbound::Item<'a>], context: &mut inbound::Context<'a, '_>) {
    for items in items.chunks_mut(BATCH) {
        inbound::prepare(items);
        let mut tasks: Vec<_> = items.iter().map(inbound::Item::task).collect();
        let openings = tasks
            .iter_mut()
            .zip(&mut *items)
            .filter_map(|(task, item)| {
                Some(Opening {
                    task: task.as_mut()?,
                    sa: item.sa?,
                    source: item.source,
                    destination: item.destination.as_deref_mut()?,
                })
            });
        let mut openings: Vec<Opening<'_>> = openings.collect();
        std::thread::scope(|scope| scope.spawn(|| inbound::decrypt(&mut openings)).join()).unwrap();
        for (item, task) in items.iter_mut().zip(&tasks) {
            if let (Some(task), Some(sa), Some(destination)) =
                (task, item.sa, item.destination.take())
            {
                *item = inbound::Item::opened(task, (item.source, item.packet), sa, destination);
            }
        }
        inbound::accept(items, context);
    }
}

fn apart((mut a, mut b): (Gateway, Gateway)) -> (Gateway, Gateway) {
    a.apart = true;
    b.apart = true;
    (a, b)
}

/// Packets and damage through a pair that works in one go and one that works apart.
fn compare(pair: impl Fn() -> (Gateway, Gateway), packets: &[Vec<u8>]) {
    let ((mut a, mut b), (mut c, mut d)) = (pair(), apart(pair()));
    let sealed = a.send(packets, 1500);
    assert!(
        sealed
            .iter()
            .all(|(verdict, _)| matches!(verdict, Out::Sealed(_)))
    );
    assert_eq!(sealed, c.send(packets, 1500));
    let mut wire: Vec<_> = sealed.into_iter().map(|(_, packet)| packet).collect();
    // A bad ICV in front of the good one, and every number once more.
    let mut broken = wire[0].clone();
    *broken.last_mut().unwrap() ^= 1;
    wire.insert(0, broken);
    wire.extend_from_within(..);
    let opened = b.receive(&wire);
    assert_eq!(opened, d.receive(&wire));
    let verdicts: Vec<_> = opened.iter().map(|(verdict, _)| *verdict).collect();
    assert_eq!(verdicts[0], In::Drop(DropReason::Authentication));
    assert!(
        verdicts[1..=packets.len()]
            .iter()
            .all(|it| *it == In::Opened)
    );
    let edge = |gateway: &Gateway, name| gateway.sa(name).published.sequence.load(Relaxed);
    assert_eq!(edge(&a, "1001-Out"), edge(&c, "1001-Out"));
    assert_eq!(edge(&b, "1001-In"), edge(&d, "1001-In"));
}

#[test]
fn every_suite_of_esp_is_sealed_and_opened_on_another_thread() {
    for suite in suites() {
        for (source, destination) in [(A, B), (A6, B6)] {
            let udp = |sa: &mut SaParameters| {
                set_suite(sa, suite);
                sa.esn = true;
                sa.udp_encapsulation = Some(UdpEncapsulation {
                    source_port: 4500,
                    destination_port: 4500,
                });
            };
            let packets: Vec<_> = (60..160)
                .flat_map(|length| [v4(length).bytes(), v6(length).bytes()])
                .collect();
            compare(|| pair_of(source, destination, udp), &packets[..70]);
        }
    }
}

#[test]
fn so_are_transport_mode_and_every_suite_of_ah() {
    let transport = |sa: &mut SaParameters| sa.mode = Mode::Transport;
    let packets: Vec<_> = (40..90)
        .map(|length| between(A, B, length).bytes())
        .collect();
    compare(|| pair(transport), &packets);
    for suite in authentication_header::suites() {
        for (six, mode) in [(false, Mode::Tunnel), (true, Mode::Transport)] {
            let sent = |length| authentication_header::sent(six, mode, length).bytes();
            let packets: Vec<_> = (60..90).map(sent).collect();
            compare(
                || authentication_header::gateways(six, mode, suite, true),
                &packets,
            );
        }
    }
}

#[test]
fn a_task_without_its_bytes_comes_to_nothing() {
    let (mut a, mut b) = pair(|_| {});
    let wire = a.seal(&v4(100).bytes());
    let mut plain = vec![0; wire.len()];
    let mut context = b.inbound_context();
    let mut item = inbound::Item::new(&wire, parse(&wire).unwrap());
    let batch = std::slice::from_mut(&mut item);
    inbound::admit(batch, &mut context);
    assert_eq!(item.task().map(|_| ()), Some(()));
    item.destination = Some(&mut plain);
    inbound::prepare(std::slice::from_mut(&mut item));
    let sa = item.sa.unwrap();
    let task = item.task().unwrap();
    for (source, room, authentic) in [
        (&wire[..50], 200, false),
        (&wire, 9, false),
        (&wire, 200, true),
    ] {
        let (mut task, mut room) = (task, vec![0; room]);
        inbound::decrypt(&mut [Opening {
            task: &mut task,
            sa,
            source,
            destination: &mut room,
        }]);
        let again = inbound::Item::opened(&task, (source, parse(&wire).unwrap()), sa, &mut room);
        assert_eq!(again.verdict == In::Continue, authentic);
    }
}
