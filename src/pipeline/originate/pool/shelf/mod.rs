//! The shelf: things that were made ready, taken newest first, each once. Pure: it knows neither sockets nor clocks.
//!
//! A shelf belongs to one origin and no other can reach it. To put something on it, a place is reserved first, so that
//! what is being made counts against the bounds as well.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Ready things, by endpoint.
///
/// Each item comes out exactly once: taken, or given back by the call that removed it (`expire`, `keep_only`,
/// `inspect`, `bound`, `close`), or dropped with the shelf. Nothing is dropped under the lock.
#[derive(Debug)]
pub struct Shelf<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    stacks: HashMap<SocketAddr, Vec<Shelved<T>>>,
    idle: usize,
    reserved: usize,
    bounds: Option<Bounds>,
    closed: bool,
    next: u64,
}

/// What a shelf may hold.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Most items on this shelf, reserved places included.
    pub most: usize,
    /// One permit for each, over all shelves of the process.
    pub everywhere: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shelved<T> {
    number: u64,
    until: Instant,
    item: T,
    _permit: OwnedSemaphorePermit,
}

/// The right to put one item on the shelf. Dropping it gives it back.
#[derive(Debug)]
pub struct Reservation<T> {
    shelf: Arc<Shelf<T>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<T> Default for Shelf<T> {
    /// Without bounds yet, so that nothing can be put on it.
    fn default() -> Self {
        let state = State { stacks: HashMap::new(), idle: 0, reserved: 0, bounds: None, closed: false, next: 0 };
        Self { state: Mutex::new(state) }
    }
}

impl<T> Shelf<T> {
    /// Sets the bounds. Gives back what is too much, the oldest of each endpoint first.
    #[must_use = "what is too much is given back"]
    pub fn bound(&self, bounds: Bounds) -> Vec<T> {
        let mut state = self.state();
        let most = bounds.most;
        state.bounds = Some(bounds);
        let mut removed = Vec::new();
        while state.idle > most {
            let oldest = |stack: &Vec<Shelved<T>>| stack.first().map(|entry| entry.number);
            let endpoint = state.stacks.iter().min_by_key(|(_, stack)| oldest(stack)).map(|(endpoint, _)| *endpoint);
            removed.extend(endpoint.and_then(|endpoint| state.remove(endpoint, 0)));
        }
        removed
    }

    /// `None` when a bound is reached, or the shelf is closed.
    pub fn reserve(self: &Arc<Self>) -> Option<Reservation<T>> {
        let mut state = self.state();
        let bounds = state.bounds.as_ref().filter(|bounds| !state.closed && state.held() < bounds.most)?;
        let permit = Arc::clone(&bounds.everywhere).try_acquire_owned().ok()?;
        state.reserved += 1;
        drop(state);
        Some(Reservation { shelf: Arc::clone(self), permit: Some(permit) })
    }

    /// The newest of this endpoint that has not expired.
    pub fn take(&self, endpoint: SocketAddr, now: Instant) -> Option<T> {
        let mut state = self.state();
        // Expired ones are few: `expire` collects them, and this call may come before it.
        let newest = state.stacks.get(&endpoint)?.iter().rposition(|entry| entry.until > now)?;
        state.remove(endpoint, newest)
    }

    #[must_use = "what is removed is given back"]
    pub(crate) fn expire(&self, now: Instant) -> Vec<T> {
        self.remove_where(|_, entry| entry.until <= now)
    }

    /// Gives back those of endpoints for which `stays` is false.
    #[must_use = "what is removed is given back"]
    pub(crate) fn keep_only(&self, stays: impl Fn(SocketAddr) -> bool) -> Vec<T> {
        self.remove_where(|endpoint, _| !stays(endpoint))
    }

    /// Inspects each, one at a time: between two, others may take and put. Gives back those for which `look` returns a
    /// reason, with it.
    pub(crate) fn inspect<R>(&self, mut look: impl FnMut(&mut T) -> Option<R>) -> Vec<(T, R)> {
        let places: Vec<(SocketAddr, u64)> = self.state().numbers().collect();
        let mut removed = Vec::new();
        for (endpoint, number) in places {
            let mut state = self.state();
            let Some(stack) = state.stacks.get_mut(&endpoint) else { continue };
            let Some(at) = stack.iter().position(|entry| entry.number == number) else { continue };
            if let Some(reason) = look(&mut stack[at].item) {
                removed.extend(state.remove(endpoint, at).map(|item| (item, reason)));
            }
        }
        removed
    }

    /// Closes it for good: later puts are refused.
    #[must_use = "what is removed is given back"]
    pub(crate) fn close(&self) -> Vec<T> {
        self.state().closed = true;
        self.remove_where(|_, _| true)
    }

    pub(crate) fn idle(&self) -> usize {
        self.state().idle
    }

    pub(crate) fn stock_of(&self, endpoint: SocketAddr) -> usize {
        self.state().stacks.get(&endpoint).map_or(0, Vec::len)
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.state().held()
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.state().stacks.values().flatten().map(|entry| entry.until).min()
    }

    fn remove_where(&self, goes: impl Fn(SocketAddr, &Shelved<T>) -> bool) -> Vec<T> {
        let mut state = self.state();
        let mut removed = Vec::new();
        for (endpoint, stack) in &mut state.stacks {
            removed.extend(stack.extract_if(.., |entry| goes(*endpoint, entry)).map(|entry| entry.item));
        }
        state.stacks.retain(|_, stack| !stack.is_empty());
        state.idle -= removed.len();
        removed
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Counts and stacks change together in code that cannot fail: a poisoned shelf is a whole shelf.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn held(&self) -> usize {
        self.idle + self.reserved
    }

    fn numbers(&self) -> impl Iterator<Item = (SocketAddr, u64)> {
        self.stacks.iter().flat_map(|(endpoint, stack)| stack.iter().map(|entry| (*endpoint, entry.number)))
    }

    fn remove(&mut self, endpoint: SocketAddr, at: usize) -> Option<T> {
        let stack = self.stacks.get_mut(&endpoint)?;
        let entry = stack.remove(at);
        if stack.is_empty() {
            self.stacks.remove(&endpoint);
        }
        self.idle -= 1;
        Some(entry.item)
    }
}

impl<T> Reservation<T> {
    /// Puts it on the shelf until it expires.
    ///
    /// # Errors
    /// The shelf was closed or got smaller meanwhile: the item is returned.
    pub fn put(mut self, endpoint: SocketAddr, item: T, until: Instant) -> Result<(), T> {
        let mut state = self.shelf.state();
        let fits = state.bounds.as_ref().is_some_and(|bounds| state.held() <= bounds.most);
        let Some(permit) = self.permit.take().filter(|_| fits && !state.closed) else {
            state.reserved -= 1;
            return Err(item);
        };
        state.reserved -= 1;
        state.idle += 1;
        let number = state.next;
        state.next += 1;
        state.stacks.entry(endpoint).or_default().push(Shelved { number, until, item, _permit: permit });
        Ok(())
    }
}

impl<T> Drop for Reservation<T> {
    fn drop(&mut self) {
        // `put` has taken the permit, and settled the account.
        if self.permit.take().is_some() {
            self.shelf.state().reserved -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
