//! Waits until egret itself has reached upstreams, by originations as streams make them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::values::Name;
use crate::control::snapshot::Snapshot;
use crate::observe::logging::seconds;
use crate::observe::metrics::Registry;
use crate::observe::tasks::{self, Task};
use crate::pipeline::originate::Failure;

/// The pauses between two originations to an upstream that fails: the first is shorter than a database takes to start,
/// the last asks a server twice a second.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(500);

/// Returns once an origination to each has succeeded.
///
/// # Errors
/// The upstreams for which none has within `limit`; the last failure of each is logged.
///
/// Cancel safe: dropping the future ends the originations.
pub(super) async fn prove_all(
    snapshot: &Arc<ArcSwap<Snapshot>>,
    upstreams: &[Name],
    limit: Duration,
    registry: &Registry,
) -> Result<(), Vec<Name>> {
    let until = Instant::now() + limit;
    let mut proofs = JoinSet::new();
    for name in upstreams {
        let (snapshot, name, registry) = (Arc::clone(snapshot), name.clone(), registry.clone());
        proofs.spawn(async move {
            let proven = tasks::once(Task::Proof, &registry, prove(&snapshot, &name, until)).await;
            (name, proven.unwrap_or(false))
        });
    }
    let mut missing = Vec::new();
    while let Some(ended) = proofs.join_next().await {
        missing.extend(ended.ok().filter(|(_, proven)| !proven).map(|(name, _)| name));
    }
    missing.sort();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

async fn prove(snapshot: &ArcSwap<Snapshot>, name: &Name, until: Instant) -> bool {
    let began = Instant::now();
    let mut pause = *PAUSE.start();
    let mut cause: Option<Failure> = None;
    loop {
        // A reload may have repaired it, or removed it.
        let Some(originator) = snapshot.load().upstreams().get(name).cloned() else { return true };
        let Err(failure) = originator.prove(Some(until)).await else {
            tracing::info!(upstream = %name, seconds = seconds(began.elapsed()), "upstream proven");
            return true;
        };
        // One that failed for want of the time that was left says less than the one before.
        let is_cut = failure.ran_out_of_time() && Instant::now() >= until;
        if cause.is_none() || (failure.was_tried() && !is_cut) {
            cause = Some(failure);
        }
        // An origination in the little time that is left would fail for want of time, which says nothing.
        if Instant::now() + pause >= until {
            sleep_until(until).await;
            cause.iter().for_each(|failure| originator.log_unproven(failure));
            return false;
        }
        sleep(pause).await;
        pause = (pause * 2).min(*PAUSE.end());
    }
}
