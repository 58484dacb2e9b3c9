//! Who is connected: bounded in all and per user, so that nobody locks the others out.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Clients at once: some operators' tools, not a load.
const CLIENTS: usize = 32;

/// Clients of one user at once: a `top`, a monitor, some scripts.
const OF_ONE_USER: usize = 8;

/// Who a client is, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(pub u32);

impl User {
    /// Root and the user that the gateway runs as may change it, all others only look.
    #[must_use]
    pub fn may_change(self) -> bool {
        self.0 == 0 || self.0 == rustix::process::geteuid().as_raw()
    }
}

struct Client {
    number: u64,
    user: User,
    /// When it last got an answer, or came.
    since: Instant,
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct Table {
    next: u64,
    clients: Vec<Client>,
}

/// The clients of one socket.
#[derive(Clone)]
pub(super) struct Clients(Rc<RefCell<Table>>);

/// One client's place; given back on drop.
pub(super) struct Place {
    clients: Clients,
    number: u64,
    user: User,
}

impl Clients {
    pub(super) fn new() -> Self {
        Self(Rc::default())
    }

    /// A place for a client of `user`. Who has too many already loses the one that has been quiet
    /// the longest, and when all places are taken those who may change the gateway get in so.
    pub(super) fn admit(&self, user: User) -> Option<Place> {
        let mut table = self.0.borrow_mut();
        let of_user = |client: &&Client| client.user == user;
        let leaves = if table.clients.iter().filter(of_user).count() >= OF_ONE_USER {
            quietest(table.clients.iter().filter(of_user))
        } else if table.clients.len() < CLIENTS {
            None
        } else if user.may_change() {
            quietest(table.clients.iter())
        } else {
            return None;
        };
        if let Some(at) = table
            .clients
            .iter()
            .position(|it| Some(it.number) == leaves)
            && let Some(task) = table.clients.swap_remove(at).task
        {
            task.abort();
        }
        let number = table.next;
        table.next += 1;
        table.clients.push(Client {
            number,
            user,
            since: Instant::now(),
            task: None,
        });
        Some(Place {
            clients: self.clone(),
            number,
            user,
        })
    }

    /// How to end a client.
    pub(super) fn remember(&self, number: u64, task: AbortHandle) {
        let mut table = self.0.borrow_mut();
        if let Some(client) = table.clients.iter_mut().find(|it| it.number == number) {
            client.task = Some(task);
        }
    }
}

impl Place {
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn user(&self) -> User {
        self.user
    }

    /// It got an answer.
    pub(super) fn touch(&self) {
        let mut table = self.clients.0.borrow_mut();
        let client = table.clients.iter_mut().find(|it| it.number == self.number);
        if let Some(client) = client {
            client.since = Instant::now();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.clients.0.borrow_mut();
        table.clients.retain(|client| client.number != self.number);
    }
}

fn quietest<'c>(clients: impl Iterator<Item = &'c Client>) -> Option<u64> {
    let oldest = clients.min_by_key(|client| (client.since, client.number));
    oldest.map(|client| client.number)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn numbers(clients: &Clients) -> Vec<u64> {
        let table = clients.0.borrow();
        let mut numbers: Vec<u64> = table.clients.iter().map(|it| it.number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn one_user_takes_no_places_from_others() {
        let clients = Clients::new();
        let mut places: Vec<_> = (0..20)
            .map(|_| clients.admit(User(1000)).unwrap())
            .collect();
        assert_eq!(numbers(&clients), (12..20).collect::<Vec<_>>());
        // Number 12 is the oldest, but it asks; 13 is quiet.
        places[12].touch();
        places.push(clients.admit(User(1000)).unwrap());
        assert!(numbers(&clients).contains(&12) && !numbers(&clients).contains(&13));
        assert!(clients.admit(User(1001)).is_some());
        drop(places);
        assert!(numbers(&clients).is_empty());
    }

    #[test]
    fn when_all_places_are_taken_root_still_gets_one() {
        let clients = Clients::new();
        let many = (0..32).map(|index| clients.admit(User(1000 + index / 8)).unwrap());
        let places: Vec<_> = many.collect();
        assert!(clients.admit(User(2000)).is_none());
        let root = clients.admit(User(0)).unwrap();
        assert_eq!(numbers(&clients), (1..=32).collect::<Vec<_>>());
        drop((places, root));
    }
}
