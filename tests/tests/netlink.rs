//! The kernel's tables mirrored, neighbours kept, host routes and the guard: live, as root, in
//! network namespaces of this run's own.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(
    clippy::print_stdout,
    reason = "a test says what it skipped and what it measured"
)]

#[path = "netlink/world.rs"]
mod world;

#[path = "netlink/mirror.rs"]
mod mirror;

#[path = "netlink/guard_net.rs"]
mod guard_net;

#[path = "netlink/guard.rs"]
mod guard;

#[path = "netlink/guard_headers.rs"]
mod guard_headers;

#[path = "netlink/neighbors.rs"]
mod neighbors;

#[path = "netlink/host_routes.rs"]
mod host_routes;

#[path = "netlink/icmp.rs"]
mod icmp;
