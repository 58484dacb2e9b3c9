//! The XDP programs of a port: which frames go to the gateway's AF_XDP socket, which stay with the
//! kernel. Nothing is changed in a frame, nothing is remembered between two of them.
//!
//! `xipsec_steer` and `xipsec_steer_frags` are one program for drivers without and with packets of
//! several buffers. `xipsec_redirect_all` is no part of the gateway: benches and the demo measure a
//! bare AF_XDP forwarder with it.
//!
//! `unsafe` here reads packet bytes behind a bound that the kernel's verifier proves again at every
//! load, and calls BPF helpers.
#![no_std]
#![no_main]

mod maps;
mod parse;
mod steer;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use parse::Frame;
use steer::{Decision, Verdict};
use xipsec_abi::Outcome;

/// What the kernel is told: GPL-only helpers may be used, the source stays MIT or Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[xdp]
pub fn xipsec_steer(context: XdpContext) -> u32 {
    run(&context)
}

#[xdp(frags)]
pub fn xipsec_steer_frags(context: XdpContext) -> u32 {
    run(&context)
}

#[xdp]
pub fn xipsec_redirect_all(context: XdpContext) -> u32 {
    if parse::is_address_resolution(&Frame::new(&context)) {
        return XDP_PASS;
    }
    // Not to the kernel when there is no socket: its forwarding would be measured instead.
    to_socket(context.rx_queue_index(), XDP_DROP)
}

/// Steers one frame and counts what became of it.
#[inline(always)]
fn run(context: &XdpContext) -> u32 {
    let queue = context.rx_queue_index();
    let frame = Frame::new(context);
    let Decision { outcome, verdict } = steer::decide(&frame);
    maps::count(queue, outcome, frame.length);
    let fallback = match verdict {
        Verdict::Pass => return XDP_PASS,
        Verdict::Drop => return XDP_DROP,
        Verdict::Socket => XDP_PASS,
        Verdict::SocketOrDrop => XDP_DROP,
    };
    let action = to_socket(queue, fallback);
    if action == XDP_PASS {
        maps::count(queue, Outcome::NoSocketPassed, frame.length);
    } else if action == XDP_DROP {
        maps::count(queue, Outcome::NoSocketDropped, frame.length);
    }
    action
}

/// Hands the frame to the socket of `queue`, or answers `fallback` when there is none.
#[inline(always)]
fn to_socket(queue: u32, fallback: u32) -> u32 {
    match maps::SOCKETS.redirect(queue, u64::from(fallback)) {
        Ok(action) | Err(action) => action,
    }
}

/// The verifier admits no program that could get here.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
