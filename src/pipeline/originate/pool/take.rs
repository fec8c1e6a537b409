//! Takes warm connections for clients: which may hold one, which gets one.

use std::pin::pin;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::observe::tasks::{self, Task};
use crate::pipeline::originate::attempts::Attempts;
use crate::pipeline::originate::failure::{Failure, Stage};
use crate::pipeline::originate::origin::Origin;
use crate::pipeline::originate::pool::Pool;
use crate::pipeline::originate::pool::hand_over::{Client, hand_over};
use crate::pipeline::originate::pool::replenish::replenish;
use crate::pipeline::originate::pool::shelf::Bounds;
use crate::pipeline::originate::pool::warm::{Discard, Warm};
use crate::pipeline::originate::serve::{Lost, lost};
use crate::pipeline::originate::servers::endpoint::InFlight;
use crate::pipeline::originate::upstream::{Opened, Originated, Originator, Wire};

impl Originator {
    /// Adds a pool, which is empty until [`Originator::replenish`].
    #[must_use]
    pub(crate) fn with_pool(self, pool: Pool) -> Self {
        Self { pool: Some(pool), ..self }
    }

    pub(crate) fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// Fills the pool until [`Originator::stop`] or the end of this object.
    pub(crate) fn replenish(self: &Arc<Self>) {
        let Some(pool) = &self.pool else { return };
        self.origins().for_each(|origin| pool.bound(origin.shelf()));
        let task = tasks::spawn_for(Task::Pool, &self.metrics.registry, self, replenish);
        if let Some(before) = self.replenisher().replace(task) {
            before.abort();
        }
    }

    /// Stops filling the pool, since `next` replaces this originator. Shelves that `next` shares are left to it; the
    /// others are closed, and nothing of theirs is handed out after the return. Streams with `close_on_revocation` are
    /// checked with the trust of `next`.
    pub(crate) fn stop(&self, next: Option<&Self>) {
        if let Some(next) = next {
            self.hand_trust_over(next);
        }
        let Some(pool) = &self.pool else { return };
        if let Some(task) = self.replenisher().take() {
            task.abort();
        }
        for origin in self.origins() {
            let stays = next.is_some_and(|next| next.origins().any(|other| Arc::ptr_eq(origin, other)));
            let left = match (stays, next.is_some_and(|next| next.pool.is_some())) {
                (true, true) => continue,
                // A pool may be given to it again.
                (true, false) => origin.shelf().bound(Bounds { most: 0, everywhere: Arc::new(Semaphore::new(0)) }),
                (false, _) => origin.shelf().close(),
            };
            pool.discard(left.into_iter().map(|warm| (warm, Discard::Replaced)));
        }
    }

    fn replenisher(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.replenisher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A warm connection, if one is ready. One that dies before a byte of the client was written to it is replaced.
    ///
    /// Cancel safe: dropping the future closes what was taken.
    pub(crate) async fn open_warm(&self, client: &mut Client<'_>) -> Option<Result<Opened, Failure>> {
        let pool = self.pool.as_ref()?;
        pool.arrived();
        self.hand_out(pool, client, Instant::now() + self.timeout).await
    }

    /// A stream for a client that finds all servers full because of the pool: an origination under way counts as a
    /// stream, and can serve one.
    ///
    /// Cancel safe: dropping the future closes what was taken.
    pub(crate) async fn open_made(
        &self,
        client: &mut Client<'_>,
        deadline: Instant,
    ) -> Option<Result<Opened, Failure>> {
        let pool = self.pool.as_ref()?;
        loop {
            let mut made = pin!(pool.made());
            // Register before checking, so that a connection finished in between is not missed.
            made.as_mut().enable();
            let making = pool.is_making();
            if let Some(opened) = self.hand_out(pool, client, deadline).await {
                return Some(opened);
            }
            if !making {
                return None;
            }
            timeout_at(deadline, made).await.ok()?;
        }
    }

    /// Errors: The client cannot be served by another connection either.
    async fn hand_out(
        &self,
        pool: &Pool,
        client: &mut Client<'_>,
        deadline: Instant,
    ) -> Option<Result<Opened, Failure>> {
        while let Some((warm, in_flight)) = self.take(pool) {
            let ready = Instant::now();
            let until = warm.born() + pool.spec().max_idle_age;
            let endpoint = in_flight.endpoint();
            let (stream, negotiated) = match hand_over(warm, client, until).await {
                Ok(handed) => handed,
                Err(discard) => {
                    pool.died(discard, endpoint.account());
                    continue;
                }
            };
            match self.log_in(client, stream, &negotiated, endpoint, deadline).await {
                Ok(stream) => {
                    pool.served(true, endpoint.account());
                    let endpoint = Arc::clone(endpoint);
                    let originated = Originated { wire: Wire::Tls(stream), endpoint, negotiated: Some(negotiated) };
                    return Some(Ok(Opened { originated, in_flight, pooled: true, ready, cancels: false }));
                }
                // The others on the shelf were made for the same clients.
                Err(Stage::Login(error)) if error.is_of_connection() => {
                    pool.died(Discard::OtherClient, endpoint.account());
                    return None;
                }
                Err(stage) => match lost(client, Failure::at(endpoint, stage)) {
                    Lost::Client(failure) => return Some(Err(failure)),
                    Lost::Server(_) | Lost::Room(..) => pool.died(Discard::Closed, endpoint.account()),
                },
            }
        }
        None
    }

    /// A warm connection to the endpoint that a new stream would go to, or else to another that is as good.
    fn take(&self, pool: &Pool) -> Option<(Warm, InFlight)> {
        if self.idle() == 0 {
            return None;
        }
        let attempts = Attempts::new(self.rules, self.endpoints.known(), self.timeout, Instant::now() + self.timeout);
        attempts.entries().find_map(|in_flight| {
            let endpoint = in_flight.endpoint();
            let warm = pool.take(endpoint.origin()?.shelf(), endpoint.address())?;
            Some((warm, in_flight))
        })
    }

    pub(crate) fn idle(&self) -> usize {
        self.origins().map(|origin| origin.shelf().idle()).sum()
    }

    /// The origins of its servers, each once.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &Arc<Origin>> {
        let servers = self.servers();
        let of = |at: usize| servers[at].origin.as_ref();
        let is_new =
            move |at: usize, origin: &Arc<Origin>| !(0..at).filter_map(of).any(|other| Arc::ptr_eq(other, origin));
        (0..servers.len()).filter_map(move |at| of(at).filter(|origin| is_new(at, origin)))
    }
}
