//! The mirror: the kernel's tables, followed.

use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use tokio::time::{Instant, sleep_until};

use super::subscription::{Notification, Subscription};
use super::tables::{Changes, Stale, Tables, View};
use super::{Kernel, NetlinkError, OURS};
use crate::route::PortIndex;

/// Changes are gathered for this long before they are told: a daemon that feeds the kernel a table
/// makes thousands at once, and each tells costs a rebuilt FIB.
const GATHER: Duration = Duration::from_millis(5);

/// The kernel's tables in the network namespace in which it was made, kept current.
#[derive(Debug)]
pub struct Mirror {
    kernel: Kernel,
    subscription: Subscription,
    tables: Tables,
    /// When what was gathered is to be told.
    due: Option<Instant>,
    notices: Vec<String>,
}

impl Mirror {
    /// Subscribes and reads all tables. `ports` are the interfaces' names in the order of the
    /// ports' indices; routes whose device is `host_port` (empty: none) are never mirrored.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn new(
        kernel: Kernel,
        ports: Vec<String>,
        host_port: String,
    ) -> Result<Self, NetlinkError> {
        let subscription = Subscription::new()?;
        let notices = rules(&kernel).await?;
        let mut mirror = Self {
            kernel,
            subscription,
            tables: Tables::new(ports, host_port),
            due: None,
            notices,
        };
        mirror.read_stale().await?;
        mirror.tables.changes = Changes::default();
        Ok(mirror)
    }

    /// Waits until something changed, and for what else changes within 5 ms. Cancelling loses
    /// nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn due(&mut self) -> Result<(), NetlinkError> {
        loop {
            let notifications = match self.due {
                None => self.subscription.receive().await?,
                Some(due) => tokio::select! {
                    received = self.subscription.receive() => received?,
                    () = sleep_until(due) => Vec::new(),
                },
            };
            self.take(notifications, false);
            let pending = self.tables.changes.any() || self.tables.stale != Stale::default();
            match self.due {
                None if pending => self.due = Some(Instant::now() + GATHER),
                Some(due) if due <= Instant::now() => return Ok(()),
                None | Some(_) => {}
            }
        }
    }

    /// What has changed, after [`Mirror::due`]. Must not be cancelled: a table that is read in half
    /// stands in the way of the next reading. What could not be read is due again.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn collect(&mut self) -> Result<Changes, NetlinkError> {
        let read = self.read_stale().await;
        let again = read.is_err() || self.tables.stale != Stale::default();
        self.due = again.then(|| Instant::now() + GATHER);
        read?;
        Ok(std::mem::take(&mut self.tables.changes))
    }

    /// Both together, for those that wait for nothing else.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn changed(&mut self) -> Result<Changes, NetlinkError> {
        loop {
            self.due().await?;
            let changes = self.collect().await?;
            if changes.any() {
                return Ok(changes);
            }
        }
    }

    /// The tables as they are.
    #[must_use]
    pub fn view(&self) -> View {
        self.tables.view()
    }

    /// What is in the kernel's tables and cannot be mirrored, each thing once: for warnings.
    pub fn notices(&mut self) -> Vec<String> {
        let mut notices = std::mem::take(&mut self.notices);
        notices.extend(self.tables.notices());
        notices
    }

    /// The interface index of a port, `None` while it has no interface.
    #[must_use]
    pub fn interface(&self, port: PortIndex) -> Option<u32> {
        self.tables.interface(port)
    }

    /// The index of an interface by its name.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<u32> {
        self.tables.index_of(name)
    }

    /// Whether a neighbour was entered for ever: it needs no keeping.
    #[must_use]
    pub fn is_permanent(&self, port: PortIndex, address: IpAddr) -> bool {
        self.tables.is_permanent(port, address)
    }

    fn take(&mut self, notifications: Vec<Notification>, settling: bool) {
        for notification in notifications {
            match notification {
                Notification::Entry(flags, entry) => self.tables.apply(flags, &entry, settling),
                // IPv4 routes go with a nexthop object without a word.
                Notification::Nexthop => self.tables.stale.routes = true,
                Notification::Lost => self.tables.stale = Stale::ALL,
            }
        }
    }

    /// Reads again what is stale, then takes in what was told meanwhile.
    async fn read_stale(&mut self) -> Result<(), NetlinkError> {
        let stale = self.tables.stale;
        if stale.links {
            let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
            let entries = self.kernel.dump("reading links", request).await?;
            self.tables.replace_links(&entries);
        }
        if stale.addresses {
            let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            let entries = self.kernel.dump("reading addresses", request).await?;
            self.tables.replace_addresses(&entries);
        }
        if stale.routes {
            let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
            let entries = self.kernel.dump("reading routes", request).await?;
            self.tables.replace_routes(&entries);
        }
        if stale.neighbors {
            let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
            let entries = self.kernel.dump("reading neighbours", request).await?;
            self.tables.replace_neighbors(&entries);
        }
        if stale != Stale::default() {
            while let Some(notifications) = self.subscription.received() {
                self.take(notifications?, true);
            }
        }
        Ok(())
    }
}

/// Says which policy rules there are beyond the kernel's own and ours.
async fn rules(kernel: &Kernel) -> Result<Vec<String>, NetlinkError> {
    let request = RouteNetlinkMessage::GetRule(RuleMessage::default());
    let entries = kernel.dump("reading rules", request).await?;
    let foreign = entries.iter().filter(|entry| match entry {
        RouteNetlinkMessage::NewRule(rule) => !is_known(rule),
        _ => false,
    });
    Ok(match foreign.count() {
        0 => Vec::new(),
        count => vec![format!(
            "{count} policy rules (ip rule) and what they lead to, VRFs among it, are not \
             mirrored: the gateway forwards by the main table alone"
        )],
    })
}

/// The kernel's three default rules and our own.
fn is_known(rule: &RuleMessage) -> bool {
    let mut priority = 0;
    let mut ours = false;
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Protocol(protocol) => ours = u8::from(*protocol) == OURS,
            _ => {}
        }
    }
    ours || matches!(priority, 0 | 32_766 | 32_767)
}
