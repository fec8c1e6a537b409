//! The story of one connection: classify, route, originate, relay, report. No mechanism of its own.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::drain::Watch;
use crate::net::{self, Peer, SocketBuffers, Stream};
use crate::pipeline::answer::Parting;
use crate::pipeline::classify;
use crate::pipeline::originate::servers::endpoint::Endpoint;
use crate::pipeline::originate::{Cancellable, Client, Distrust, Opened, Wire};
use crate::pipeline::relay::{self, Downstream, Ended};
use crate::pipeline::report::Report;
use crate::pipeline::route::{Route, RouteTable};

pub(crate) struct Accepted {
    pub(crate) stream: Stream,
    pub(crate) peer: Peer,
    /// The listener's routes in the generation that was running at accept.
    pub(crate) routes: Arc<RouteTable>,
}

/// Serves one connection to its end. `watch` is held until then; once it is forced the client is reset.
pub(crate) async fn serve(accepted: Accepted, watch: Watch) {
    let Accepted { stream, peer, routes } = accepted;
    let report = Report::begin(&routes, &peer);
    if let Some(unserved) = serve_stream(stream, &routes, &report, &watch).await {
        Box::pin(unserved.dismiss()).await;
    }
}

/// Returns a client that was not served.
async fn serve_stream<'a>(
    mut stream: Stream,
    routes: &'a RouteTable,
    report: &'a Report<'a>,
    watch: &Watch,
) -> Option<Box<Unserved<'a>>> {
    // In a box: inside the future it would take memory of every idle stream.
    let unserved = |stream, parting, early| Some(Box::new(Unserved { stream, parting, early }));
    let buffers = SocketBuffers::of_next_stream();
    buffers.bound(&stream);
    let mut class = match unless_forced(watch, classify::classify(routes.expect, &mut stream, routes.patience)).await {
        Some(Ok(class)) => class,
        Some(Err(error)) => return unserved(stream, report.unclassified(&error), Bytes::new()),
        None => return unserved(stream, report.over(None, &Ended::Drained, None), Bytes::new()),
    };
    let route = match routes.find(&class) {
        Ok(route) => route,
        Err(error) => {
            report.unrouted(&error, stream);
            return None;
        }
    };
    let opened = match originate(route, &stream, &mut class.early, report, watch).await {
        Ok(opened) => opened,
        Err(parting) => return unserved(stream, parting, class.early),
    };
    if let Some(error) = classify::begins_with_tls(routes.expect, &stream) {
        return unserved(stream, report.unclassified(&error), Bytes::new());
    }
    // The guard counts the stream at its endpoint until this function ends.
    let (facts, upstream, in_flight) = report.facts(opened, class.protocol, &class.early);
    buffers.bound(upstream.socket());
    let endpoint = in_flight.endpoint();
    let cancellable = route.originator.cancellable(endpoint);
    let distrust = route.originator.watch_trust(endpoint.origin(), facts.negotiated());
    let forced = cut_off(watch, endpoint, route.originator.closes_on_removal(), distrust);
    let early = class.early;
    let limits = &route.limits;
    let counters = &route.counters;
    if !net::say(&stream, upstream.greeting()) {
        return unserved(stream, report.over(Some(route), &Ended::DownstreamReset, None), Bytes::new());
    }
    let parting = |ended: &Ended| report.unanswered(route, &facts, ended);
    let client = Downstream::new(stream, &parting, cancellable.as_deref().map(Cancellable::reader));
    let outcome = match upstream {
        Wire::Tls(upstream) => relay::relay(client, early, upstream, limits, counters, forced).await,
        Wire::Plain(upstream) => relay::pass_through(client, early, upstream, limits, counters, forced).await,
    };
    report.stream(route, &facts, &outcome);
    route.originator.begin_next(endpoint);
    None
}

/// The way to a server, or how the client is answered. What is not used of `early` is left in it.
async fn originate<'a>(
    route: &'a Route,
    stream: &Stream,
    early: &mut Bytes,
    report: &'a Report<'a>,
    watch: &Watch,
) -> Result<Opened, Option<Parting<'a>>> {
    let mut client = Client::new(stream, early);
    let failed = |failure: &_| report.origination_failed(route, failure);
    // In a box: it is large, and dropped before the stream begins. Inside this future it would take memory of every
    // idle stream.
    let opening = Box::pin(route.originator.open(&mut client, failed));
    match unless_over(watch, stream, opening).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(failure)) => Err(report.unoriginated(route, &failure, client.next_packet())),
        Err(ended) => Err(report.over(Some(route), &ended, client.next_packet())),
    }
}

struct Unserved<'a> {
    stream: Stream,
    /// `None`: a reset.
    parting: Option<Parting<'a>>,
    /// Bytes of the client that were read.
    early: Bytes,
}

impl Unserved<'_> {
    async fn dismiss(self) {
        match self.parting {
            Some(parting) => parting.give(self.stream, &self.early).await,
            None => self.stream.reset(),
        }
    }
}

/// Resolves when a stream has to be cut off.
async fn cut_off(
    watch: &Watch,
    endpoint: &Endpoint,
    closes_on_removal: bool,
    distrust: Option<Box<Distrust>>,
) -> Ended {
    if !closes_on_removal && distrust.is_none() {
        watch.forced().await;
        return Ended::Drained;
    }
    // In a box: few upstreams need it, and inside the future it would take memory of every idle stream.
    let retired = Box::pin(endpoint.retired());
    let distrusted = Box::pin(async move {
        match distrust {
            Some(distrust) => distrust.came().await,
            None => std::future::pending().await,
        }
    });
    tokio::select! {
        () = watch.forced() => Ended::Drained,
        () = retired, if closes_on_removal => Ended::Removed,
        () = distrusted => Ended::Distrusted,
    }
}

/// An error when the work is no longer needed: the client has reset its connection, or the drain's deadline came.
async fn unless_over<T>(watch: &Watch, client: &Stream, work: Pin<Box<impl Future<Output = T>>>) -> Result<T, Ended> {
    tokio::select! {
        done = work => Ok(done),
        () = watch.forced() => Err(Ended::Drained),
        () = client.was_reset() => Err(Ended::DownstreamReset),
    }
}

/// `None` when the drain's deadline came first.
async fn unless_forced<T>(watch: &Watch, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = watch.forced() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future that every connection holds to its end; half of them are the relay's. Bounded on both sides,
    /// so that growth is noticed.
    const FUTURE: std::ops::RangeInclusive<usize> = 2600..=3000;

    fn size<F: Future>(_: impl FnOnce(Accepted, Watch) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn future_of_a_connection_keeps_its_size() {
        let size = size(serve);
        assert!(FUTURE.contains(&size), "{size} bytes; if that is meant, say so in FUTURE");
    }
}
