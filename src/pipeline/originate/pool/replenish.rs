//! Fills the shelves of an upstream in the background: as many as the traffic needs, again when one was taken, has
//! expired or has died. Every origination counts for health, as those for clients do.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::observe::logging::flood::Event;
use crate::observe::tasks::{self, Task};
use crate::pipeline::originate::attempts::Attempt;
use crate::pipeline::originate::failure::{Failure, Stage};
use crate::pipeline::originate::handshake::{self, Cause};
use crate::pipeline::originate::pool::Pool;
use crate::pipeline::originate::pool::demand::Demand;
use crate::pipeline::originate::pool::lifetime::Lifetime;
use crate::pipeline::originate::pool::pause::{Pause, Trouble};
use crate::pipeline::originate::pool::shelf::Reservation;
use crate::pipeline::originate::pool::waiting;
use crate::pipeline::originate::pool::warm::{Discard, Warm};
use crate::pipeline::originate::servers::endpoint::Endpoint;
use crate::pipeline::originate::upstream::{Originated, Originator, Wire};

/// Originations for one upstream's pool at once: what a hundred arrivals a second need where each takes 0.3 s, two
/// thirds of it waiting for the server to verify our certificate. With 8, fifty arrivals a second over a path of 100 ms
/// waited for theirs in more than one of ten cases, and over 60 ms in most if the server sent no tickets.
const PARALLEL: usize = 32;
/// Waiting clients of the whole process for each of which a pool makes one origination less, at this ratio.
const CLIENTS_FOR_ONE: usize = 2;
/// Originations for pools at once in the whole process: some 20 ms of a processor.
static FILLING: Semaphore = Semaphore::const_new(64);

/// How often a pool checks for changes without an event: traffic has ceased, DNS has changed.
const LOOK: Duration = Duration::from_secs(1);

struct Replenisher {
    demand: Demand,
    lifetime: Lifetime,
    pause: Pause,
    fills: JoinSet<Filled>,
}

enum Filled {
    /// Put on the shelf after this time.
    Ready(Duration),
    Failed(Trouble),
    /// There was no endpoint, or no room.
    Nowhere,
}

/// Fills until the originator is dropped. Holds it only while it works; dropping the future closes what was begun.
pub(crate) async fn replenish(originator: Weak<Originator>) {
    let Some(wake) = originator.upgrade().and_then(|originator| originator.pool().map(Pool::wake)) else { return };
    let mut replenisher = Replenisher::new(Instant::now());
    loop {
        let Some(next) = originator.upgrade().and_then(|originator| replenisher.go_on(&originator)) else { return };
        tokio::select! {
            discarded = poll_fn(|cx| listen(&originator, cx)) => replenisher.discarded(&discarded, Instant::now()),
            Some(filled) = replenisher.fills.join_next(), if !replenisher.fills.is_empty() => {
                replenisher.filled(filled.unwrap_or(Filled::Nowhere));
            }
            () = wake.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

fn listen(originator: &Weak<Originator>, cx: &mut Context<'_>) -> Poll<Vec<Discarded>> {
    let Some(originator) = originator.upgrade() else { return Poll::Pending };
    let Some(pool) = originator.pool() else { return Poll::Pending };
    let now = Instant::now();
    let mut discarded = Vec::new();
    for origin in originator.origins() {
        let dead = origin.shelf().inspect(|warm| match warm.poll_discard(cx) {
            Poll::Ready(discard) => Some(discard),
            Poll::Pending => None,
        });
        for (warm, discard) in dead {
            let refused = originator.refused_late(&warm, discard);
            let discarded_at = now.saturating_duration_since(warm.born());
            discarded.push(Discarded { born: warm.born(), age: discarded_at, discard, refused });
            pool.discard([(warm, discard)]);
        }
    }
    if discarded.is_empty() { Poll::Pending } else { Poll::Ready(discarded) }
}

struct Discarded {
    born: Instant,
    age: Duration,
    discard: Discard,
    /// The server refused our certificate with it.
    refused: bool,
}

impl Replenisher {
    fn new(now: Instant) -> Self {
        let demand = Demand::new(now);
        let lifetime = Lifetime::default();
        Self { demand, lifetime, pause: Pause::default(), fills: JoinSet::new() }
    }

    /// Discards what has expired and begins what is missing. Returns when to run again.
    fn go_on(&mut self, originator: &Arc<Originator>) -> Option<Instant> {
        let pool = originator.pool()?;
        let now = Instant::now();
        let age = self.lifetime.most(pool.spec().max_idle_age, now);
        originator.tidy(pool, age, now);
        self.demand.arrived(pool.arrivals(), now);
        if let Some(warm) = pool.has_served() {
            self.pause.worked_for_others(warm);
        }
        let idle = originator.idle();
        let wanted = self.demand.wanted(pool.spec(), age, now);
        let wanted = if originator.has_request() { wanted } else { 0 };
        let under_way = self.fills.len().saturating_sub(pool.trials());
        let missing = wanted.saturating_sub(idle + under_way);
        let pause = self.pause.ends_after(now);
        if pause.is_none() {
            let room = room(self.pause.is_proven(), waiting::clients()).saturating_sub(under_way);
            for _ in 0..missing.min(room) {
                let originator = Arc::clone(originator);
                self.fills.spawn(async move {
                    let filled = tasks::once(Task::PoolFill, &originator.metrics.registry, fill(&originator, age));
                    filled.await.unwrap_or(Filled::Failed(Trouble::Failed))
                });
            }
        }
        let expiry = originator.origins().filter_map(|origin| origin.shelf().next_expiry()).min();
        // Without anything ready or wanted, nothing has to be checked until a client comes.
        let look = if idle + wanted > 0 { now + LOOK } else { now + LOOK * 60 };
        Some([expiry, pause].into_iter().flatten().fold(look, Instant::min))
    }

    fn filled(&mut self, filled: Filled) {
        match filled {
            Filled::Ready(took) => {
                self.demand.took(took);
                self.pause.worked();
            }
            Filled::Failed(trouble) => self.pause.failed(trouble, fastrand::f64(), Instant::now()),
            Filled::Nowhere => self.pause.failed(Trouble::Failed, fastrand::f64(), Instant::now()),
        }
    }

    fn discarded(&mut self, discarded: &[Discarded], now: Instant) {
        for Discarded { born, age, discard, refused } in discarded {
            if matches!(discard, Discard::Closed | Discard::Reset) {
                self.lifetime.closed(*born, *age, now);
            }
            // A server that closes unused connections is not given the next at once.
            self.pause.failed(if *refused { Trouble::Refused } else { Trouble::Died }, fastrand::f64(), now);
        }
    }
}

/// Originations at once. Until one has succeeded, one is enough; and waiting clients go first.
fn room(proven: bool, waiting: usize) -> usize {
    if proven { PARALLEL.saturating_sub(waiting / CLIENTS_FOR_ONE).max(1) } else { 1 }
}

async fn fill(originator: &Originator, age: Duration) -> Filled {
    let Ok(_permit) = FILLING.acquire().await else { return Filled::Nowhere };
    let (Some(pool), mut began) = (originator.pool(), Instant::now()) else { return Filled::Nowhere };
    // Dropped last, so that a waiter can take the freed slot.
    let _making = pool.making();
    let mut attempts = originator.attempts(originator.rules).await;
    let mut filled = Filled::Nowhere;
    while let Ok(attempt) = attempts.next().await {
        let endpoint = attempt.endpoint();
        let Some(shelf) = endpoint.origin().map(|origin| origin.shelf()) else { return filled };
        if !attempt.has_room_beside(shelf.stock_of(endpoint.address())) {
            attempts.took_the_last_room(endpoint.address());
            continue;
        }
        let Some(place) = shelf.reserve() else { return filled };
        let trying = attempt.is_trial().then(|| pool.trying());
        let made = originator.make_ready(&attempt).await;
        drop(trying);
        match made {
            Ok((warm, endpoint)) => {
                let until = Instant::now() + age.mul_f64(1.0 - fastrand::f64() * JITTER);
                put(pool, place, &endpoint, warm, until);
                return Filled::Ready(began.elapsed());
            }
            Err(failure) => {
                pool.failed();
                originator.log_failure(Event::FillFailed, &failure);
                if is_refusal(&failure) {
                    return Filled::Failed(Trouble::Refused);
                }
                filled = Filled::Failed(Trouble::Failed);
                if attempt.is_trial() {
                    // The time of a trial is not measured: another origination was begun in its place.
                    began = Instant::now();
                }
                attempts.lost(attempt.endpoint(), &failure.addresses());
            }
        }
    }
    filled
}

/// An age is shortened by up to this part, so that those that were made together do not end together.
const JITTER: f64 = 0.25;

fn put(pool: &Pool, reservation: Reservation<Warm>, endpoint: &Endpoint, warm: Warm, until: Instant) {
    // Counted before it is there: it may be taken at once.
    pool.ready();
    if let Err(warm) = reservation.put(endpoint.address(), warm, until) {
        pool.discard([(warm, Discard::Replaced)]);
    }
}

/// The server rejected our certificate, or requires one.
fn is_refusal(failure: &Failure) -> bool {
    let Stage::Handshake(error) = &failure.stage else { return false };
    matches!(error.cause(), Cause::ClientCertificateRejected(_) | Cause::ClientCertificateRequired)
}

impl Originator {
    fn tidy(&self, pool: &Pool, age: Duration, now: Instant) {
        let members = self.endpoints.known();
        for origin in self.origins() {
            pool.discard(origin.shelf().expire(now).into_iter().map(|warm| (warm, Discard::Aged)));
            // Made before the server's idle limit was known.
            pool.discard(origin.shelf().inspect(|warm| (warm.born() + age <= now).then_some(Discard::Aged)));
            let stays = |address| members.list().iter().any(|member| member.endpoint.address() == address);
            pool.discard(origin.shelf().keep_only(stays).into_iter().map(|warm| (warm, Discard::Retired)));
        }
    }

    pub(in crate::pipeline::originate) async fn make_ready(
        &self,
        attempt: &Attempt,
    ) -> Result<(Warm, Arc<Endpoint>), Failure> {
        let began = Instant::now();
        let originated = self.originate_in(attempt, None).await;
        let originated = originated.inspect_err(|failure| self.metrics.failures.increment(failure.reason()))?;
        let (Originated { wire: Wire::Tls(stream), negotiated: Some(negotiated), endpoint }, Some(origin)) =
            (originated, attempt.endpoint().origin())
        else {
            unreachable!("an origin was asked for a place on its shelf before")
        };
        let quiet = (began.elapsed() * QUIET_FACTOR).clamp(LEAST_QUIET, MOST_QUIET);
        let facts = negotiated.clone();
        let prepared = timeout_at(attempt.deadline, Warm::prepare(stream, negotiated, quiet, endpoint.account())).await;
        match prepared.unwrap_or(Err(Discard::Reset)) {
            Ok(warm) => {
                endpoint.prove();
                Ok((warm, endpoint))
            }
            Err(discard) => {
                let error = handshake::Error::late(discard, &facts, endpoint.address(), origin);
                let failure = Failure::at(&endpoint, Stage::Handshake(error));
                self.failed_late(&endpoint, failure.reason());
                Err(failure)
            }
        }
    }

    /// Whether an alert on the shelf was a refusal of our certificate, by a server that took longer than the wait. It
    /// is logged and counted as a failure.
    fn refused_late(&self, warm: &Warm, discard: Discard) -> bool {
        let Discard::Alert(alert) = discard else { return false };
        if warm.has_plain() || handshake::late_refusal(alert, warm.negotiated()).is_none() {
            return false;
        }
        let members = self.endpoints.known();
        let mut endpoints = members.list().iter().map(|member| &member.endpoint);
        let endpoint = endpoints.find(|endpoint| Some(endpoint.address()) == warm.address());
        if let Some((endpoint, origin)) = endpoint.and_then(|endpoint| Some((endpoint, endpoint.origin()?))) {
            let error = handshake::Error::late(discard, warm.negotiated(), endpoint.address(), origin);
            let failure = Failure::at(endpoint, Stage::Handshake(error));
            self.failed_late(endpoint, failure.reason());
            self.log_failure(Event::FillFailed, &failure);
        }
        true
    }
}

/// A server's answer to our last flight takes a round trip; of an origination, that is a third or less.
const QUIET_FACTOR: u32 = 2;
/// Servers on the same machine look at a certificate for some milliseconds; busy ones for longer.
const LEAST_QUIET: Duration = Duration::from_millis(100);
/// A later alert is received on the shelf.
const MOST_QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_who_wait_go_first() {
        assert_eq!((room(true, 0), room(true, CLIENTS_FOR_ONE - 1)), (PARALLEL, PARALLEL));
        assert_eq!((room(true, CLIENTS_FOR_ONE), room(true, 3 * CLIENTS_FOR_ONE)), (PARALLEL - 1, PARALLEL - 3));
        // However many clients wait, one is made: one client takes it.
        assert_eq!((room(true, 10_000), room(false, 0)), (1, 1));
    }
}
