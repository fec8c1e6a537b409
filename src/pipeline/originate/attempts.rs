//! The attempts of one stream: which endpoints, in which order, with which part of the time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::config::values::{Ejection, Strategy};
use crate::pipeline::originate::servers::balance::Candidate;
use crate::pipeline::originate::servers::endpoint::{Endpoint, InFlight, Trial};
use crate::pipeline::originate::servers::endpoints::{Member, Members};
use crate::pipeline::originate::servers::health::{self, AttemptKind, Gate};

#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) strategy: Strategy,
    pub(super) ejection: Ejection,
    /// Trials are made by the active check or the pool, not by streams.
    pub(super) checked: bool,
}

pub(super) struct Attempts {
    rules: Rules,
    members: Arc<Members>,
    left: Vec<usize>,
    deadline: Instant,
    /// The endpoints were found when the deadline had passed.
    is_late: bool,
    timeout: Duration,
    /// Until when a stream without an endpoint waits for a trial.
    patience: Option<Instant>,
}

/// One attempt: at the chosen endpoint, or at another address of the same server if the chosen one does not answer.
///
/// The dial race of RFC 8305 is between addresses of one server only, so that the winner has the same origin, and so
/// that a backup server is not reached merely because it is nearer. The chosen endpoint has a head start of a quarter
/// of a second: the choice holds unless the address does not answer.
pub(super) struct Attempt {
    chosen: InFlight,
    trial: Option<Trial>,
    limit: Option<usize>,
    others: Vec<Member>,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
    /// The time is long enough that a timeout counts against the endpoint.
    pub(super) is_fair: bool,
}

pub(super) enum Exhausted {
    /// Everything was tried, or the time is over.
    Tried,
    Nowhere,
    /// All circuits are open; this endpoint is tried next, after this time.
    Open(Arc<Endpoint>, Duration),
    /// Every healthy endpoint is at `max_connections`; one of them.
    Full(Arc<Endpoint>),
}

/// An attempt may take at least this part of the remaining time, however many endpoints are left: of ten seconds three,
/// which is a lost packet of each phase. Endpoints that refuse take no time, so many of those can still be tried.
const LEAST_SHARE: u32 = 3;

/// An attempt that had less than this part of the time proves nothing about its endpoint if it times out.
const FAIR_SHARE: u32 = 10;

/// How long a stream waits for the outcome of another stream's trial, or for the next trial, when there is no other
/// endpoint: a handshake with a server that is back takes less. More than the pause between trials of a server that
/// refuses: with 100 ms, and a busy machine on which a refusal took 10 ms, streams gave up just before the trial that
/// would have succeeded.
const PATIENCE: Duration = Duration::from_millis(250);

impl Attempts {
    pub(super) fn new(rules: Rules, members: Arc<Members>, timeout: Duration, deadline: Instant) -> Self {
        let left = (0..members.list().len()).collect();
        let is_late = Instant::now() >= deadline;
        Self { rules, members, left, deadline, is_late, timeout, patience: None }
    }

    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Attempt, Exhausted> {
        loop {
            let now = Instant::now();
            if self.left.is_empty() || now >= self.deadline {
                return Err(self.exhausted(now));
            }
            let gates = self.gates(now);
            let closed = self.open_to_streams(&gates);
            let attempt = self.trial_that_is_due(&gates, &closed).or_else(|| self.choice(&closed));
            if let Some(attempt) = attempt.or_else(|| self.trial_for_want_of_others()) {
                return Ok(attempt);
            }
            if !self.wait(&gates, now).await {
                return Err(self.exhausted(now));
            }
        }
    }

    /// Endpoints for a stream that needs no origination: the balancer's choice first, then other healthy ones of the
    /// same tier, so that warm connections are used before a client waits. Each is counted as a stream when it is
    /// yielded.
    pub(super) fn entries(&self) -> impl Iterator<Item = InFlight> {
        let open = self.open_to_streams(&self.gates(Instant::now()));
        let chosen = self.choice(&open).map(|attempt| attempt.chosen);
        let best = open.iter().map(|place| self.member(*place).tier).min();
        let first = chosen.as_ref().map(|chosen| Arc::as_ptr(chosen.endpoint()));
        let others = open
            .into_iter()
            .map(|place| self.member(place))
            .filter(move |member| Some(member.tier) == best && Some(Arc::as_ptr(&member.endpoint)) != first);
        chosen.into_iter().chain(others.filter_map(|member| member.endpoint.enter_below(member.max_connections)))
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// These addresses of the chosen endpoint's server failed: they are not tried again.
    pub(super) fn lost(&mut self, chosen: &Endpoint, failed: &[SocketAddr]) {
        let server = chosen.server();
        let chosen = chosen.address();
        let list = self.members.list();
        self.left.retain(|place| {
            let endpoint = &list[*place].endpoint;
            endpoint.server() != server || (endpoint.address() != chosen && !failed.contains(&endpoint.address()))
        });
    }

    /// This address is full: another stream was faster.
    pub(super) fn took_the_last_room(&mut self, address: SocketAddr) {
        let list = self.members.list();
        self.left.retain(|place| list[*place].endpoint.address() != address);
    }

    fn gates(&self, now: Instant) -> Vec<Gate> {
        self.members.list().iter().map(|member| member.endpoint.gate(now)).collect()
    }

    fn open_to_streams(&self, gates: &[Gate]) -> Vec<usize> {
        let mut tiers = BTreeMap::<_, Vec<usize>>::new();
        for (place, member) in self.members.list().iter().enumerate() {
            tiers.entry(member.tier).or_default().push(place);
        }
        let mut open = Vec::new();
        for places in tiers.into_values() {
            let of_tier: Vec<_> = places.iter().map(|place| gates[*place]).collect();
            let spared = health::spared(&of_tier, &self.rules.ejection);
            let usable = places.iter().zip(spared).filter(|(place, spared)| *spared || gates[**place] == Gate::Closed);
            open.extend(usable.map(|(place, _)| *place));
        }
        open.retain(|place| self.left.contains(place) && !self.member(*place).endpoint.is_retired());
        open
    }

    fn member(&self, place: usize) -> &Member {
        &self.members.list()[place]
    }

    /// An endpoint whose back-off is over gets one stream, unless its tier is worse than that of the healthy ones.
    fn trial_that_is_due(&self, gates: &[Gate], closed: &[usize]) -> Option<Attempt> {
        if self.rules.checked {
            return None;
        }
        let best = closed.iter().map(|place| self.member(*place).tier).min();
        let due = self.left.iter().filter(|place| gates[**place] == Gate::Due);
        let mut due = due.filter(|place| best.is_none_or(|best| self.member(**place).tier <= best));
        due.find_map(|place| self.trial(*place, false, closed))
    }

    fn trial_for_want_of_others(&self) -> Option<Attempt> {
        let mut places = self.left.clone();
        places.sort_by_key(|place| self.member(*place).tier);
        places.into_iter().find_map(|place| self.trial(place, true, &[]))
    }

    fn trial(&self, place: usize, urgent: bool, others: &[usize]) -> Option<Attempt> {
        let member = self.member(place);
        if member.endpoint.is_retired() {
            return None;
        }
        let chosen = member.endpoint.enter_below(member.max_connections)?;
        let trial = member.endpoint.begin_trial(urgent)?;
        Some(self.attempt(place, chosen, Some(trial), others))
    }

    fn choice(&self, open: &[usize]) -> Option<Attempt> {
        let mut candidates: Vec<_> = open.iter().map(|place| self.candidate(*place)).collect();
        candidates.retain(|candidate| {
            let limit = self.member(candidate.place).max_connections;
            limit.is_none_or(|limit| candidate.load < limit)
        });
        loop {
            let place = self.members.choose(self.rules.strategy, &candidates)?.place;
            let member = self.member(place);
            if let Some(chosen) = member.endpoint.enter_below(member.max_connections) {
                return Some(self.attempt(place, chosen, None, open));
            }
            // Another stream took the last slot meanwhile.
            candidates.retain(|candidate| candidate.place != place);
        }
    }

    fn candidate(&self, place: usize) -> Candidate {
        let Member { endpoint, tier, weight, .. } = self.member(place);
        Candidate { place, tier: *tier, weight: *weight, load: endpoint.in_flight() }
    }

    fn attempt(&self, place: usize, chosen: InFlight, trial: Option<Trial>, open: &[usize]) -> Attempt {
        let first = self.member(place);
        let others = open.iter().filter(|other| **other != place).map(|other| self.member(*other));
        let others = others.filter(|other| (other.server, other.tier) == (first.server, first.tier)).cloned().collect();
        let began = Instant::now();
        let limit = first.max_connections;
        let parts = u32::try_from(self.left.len()).unwrap_or(u32::MAX).min(LEAST_SHARE);
        let share = self.deadline.saturating_duration_since(began) / parts;
        Attempt {
            chosen,
            trial,
            limit,
            others,
            began,
            deadline: began + share,
            is_fair: share >= self.timeout / FAIR_SHARE,
        }
    }

    /// Waits for the outcome of a trial. False: none is expected, or the patience is over.
    async fn wait(&mut self, gates: &[Gate], now: Instant) -> bool {
        let patience = *self.patience.get_or_insert(now + PATIENCE);
        let patience = patience.min(self.deadline);
        if patience <= now {
            return false;
        }
        let again = self.left.iter().filter_map(|place| match gates[*place] {
            Gate::Open { again, .. } => Some(again),
            _ => None,
        });
        let until = again.filter(|again| *again < patience).min();
        // A trial that has run for longer is not about to end.
        let running = |place: &&usize| matches!(gates[**place], Gate::Trial { since } if since + PATIENCE > now);
        let trial = self.left.iter().find(running);
        match (trial, until) {
            (None, None) => return false,
            (None, Some(until)) => sleep_until(until).await,
            (Some(place), until) => self.member(*place).endpoint.found_out(until.unwrap_or(patience)).await,
        }
        true
    }

    fn exhausted(&self, now: Instant) -> Exhausted {
        let list = self.members.list();
        if list.is_empty() {
            return Exhausted::Nowhere;
        }
        if self.left.len() < list.len() {
            return Exhausted::Tried;
        }
        if self.is_late {
            // DNS took all of the time.
            return Exhausted::Nowhere;
        }
        let closed = list.iter().find(|member| member.endpoint.gate(now) == Gate::Closed);
        if let Some(full) = closed {
            return Exhausted::Full(Arc::clone(&full.endpoint));
        }
        let again = |member: &&Member| match member.endpoint.gate(now) {
            Gate::Open { again, .. } => again,
            _ => now,
        };
        list.iter().min_by_key(again).map_or(Exhausted::Nowhere, |next| {
            Exhausted::Open(Arc::clone(&next.endpoint), again(&next).saturating_duration_since(now))
        })
    }
}

impl Attempt {
    /// A check of this endpoint; `None` while its circuit is open and it is to be left alone.
    pub(super) fn check(endpoint: &Arc<Endpoint>, deadline: Instant) -> Option<Self> {
        let trial = match endpoint.gate(Instant::now()) {
            Gate::Closed => None,
            _ => Some(endpoint.begin_trial(true)?),
        };
        let began = Instant::now();
        Some(Self { chosen: endpoint.enter(), trial, limit: None, others: Vec::new(), began, deadline, is_fair: true })
    }

    /// A stream that is of use at this endpoint only, whatever its health or its bound of streams.
    pub(super) fn at(endpoint: &Arc<Endpoint>, deadline: Instant) -> Self {
        let began = Instant::now();
        let chosen = endpoint.enter();
        Self { chosen, trial: None, limit: None, others: Vec::new(), began, deadline, is_fair: true }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        self.chosen.endpoint()
    }

    pub(super) fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    pub(super) fn candidates(&self) -> Vec<Arc<Endpoint>> {
        let others = self.others.iter().map(|other| &other.endpoint);
        std::iter::once(self.endpoint()).chain(others).map(Arc::clone).collect()
    }

    /// Whether the chosen endpoint has room for this attempt beside `warm` connections, which do not count as streams
    /// yet.
    pub(super) fn has_room_beside(&self, warm: usize) -> bool {
        self.limit.is_none_or(|limit| self.endpoint().in_flight() + warm <= limit)
    }

    pub(super) fn kind_at(&self, endpoint: &Endpoint) -> AttemptKind {
        let chosen = endpoint.address() == self.endpoint().address();
        if chosen && self.trial.is_some() { AttemptKind::Trial } else { AttemptKind::Usual }
    }

    /// Counts the stream at the endpoint that won the race; `None` if that is full.
    pub(super) fn won(self, address: SocketAddr) -> Option<InFlight> {
        match self.others.iter().find(|other| other.endpoint.address() == address) {
            Some(other) => other.endpoint.enter_below(other.max_connections),
            None => Some(self.chosen),
        }
    }
}
