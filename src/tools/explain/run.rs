//! Carries out an explanation: lookup, attempts, plaintext probes, verdict.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tokio::time::timeout;

use crate::config::values::{Anchors, ExactCertificate, Host, Name, Server, Trust as TrustSpec};
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::fingerprint::{labelled_hex, labelled_pin};
use crate::credentials::identity::Identity;
use crate::credentials::refusal::Refusal;
use crate::credentials::trust::{RootFacts, Trust};
use crate::observe::metrics::Registry;
use crate::pipeline::originate::handshake::{Cause as Broken, Flight};
use crate::pipeline::originate::origin::{Origin, OriginKey};
use crate::pipeline::originate::servers::resolve::Resolver;
use crate::protocols::Upgrade;
use crate::tools::explain::attempt::{Attempt, AttemptKind};
use crate::tools::explain::cause::{self, Cause, Evidence};
use crate::tools::explain::chain::{self, Anchor, Chain};
use crate::tools::explain::exchange::exchange;
use crate::tools::explain::legacy_hello::Answer;
use crate::tools::explain::plaintext_probe::{self, Greeting};
use crate::tools::explain::probe::{self, Observation, Stage, prepare, probe};
use crate::tools::explain::repair;
use crate::tools::explain::report::{self, Report};
use crate::tools::explain::target::Target;
use crate::tools::explain::{hello, notes};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress<'a> {
    LookUp(&'a str),
    Try(AttemptKind, SocketAddr),
    ProbePlaintext(SocketAddr),
}

/// More addresses of a name are there for load, and behave like these.
const MAX_ADDRESSES: usize = 8;

/// Explains a server. Takes at most about fourteen times the timeout of the target; usually some round trips.
///
/// Cancel safe: connections end with the future.
pub(crate) async fn explain(target: &Target, report_progress: &mut (dyn FnMut(Progress<'_>) + Send)) -> Report {
    let mut run = Run { target, report_progress, observations: Vec::new(), main: None };
    let addresses = run.addresses().await;
    let plaintext = match &addresses {
        Ok(addresses) => {
            run.originate(addresses).await;
            run.probe_plaintext().await
        }
        Err(_) => PlaintextFindings::default(),
    };
    let observations = std::mem::take(&mut run.observations);
    conclude(target, addresses, &observations, plaintext)
}

struct Run<'a> {
    target: &'a Target,
    report_progress: &'a mut (dyn FnMut(Progress<'_>) + Send),
    observations: Vec<Observation>,
    /// Of the attempt as configured; its sessions are the ones resumed.
    main: Option<Origin>,
}

#[derive(Default)]
struct PlaintextFindings {
    greeting: Option<Greeting>,
    plaintext_protocol: Option<Upgrade>,
    legacy: Option<Answer>,
}

impl Run<'_> {
    async fn addresses(&mut self) -> Result<Vec<SocketAddr>, (&'static str, String)> {
        (self.report_progress)(Progress::LookUp(&self.target.server.to_string()));
        let failed = |error: crate::pipeline::originate::servers::resolve::Error| (error.reason(), error.to_string());
        let resolver = Resolver::new(&self.target.dns, &Registry::silent()).map_err(failed)?;
        match timeout(self.target.timeout, resolver.places(&self.target.server)).await {
            Ok(Ok((places, _))) => Ok(places.into_iter().map(|place| place.address).take(MAX_ADDRESSES).collect()),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(("dns_timeout", format!("no name server answered within {:?}", self.target.timeout))),
        }
    }

    async fn originate(&mut self, endpoints: &[SocketAddr]) {
        let Some(configured) = self.attempt(AttemptKind::AsConfigured) else { return };
        self.main = self.origin(&configured);
        if let Some(origin) = &self.main {
            prepare(origin).await;
        }
        for endpoint in endpoints {
            self.try_at(*endpoint, &configured, None).await;
        }
        let Some(focus) = self.focus() else { return };
        let endpoint = focus.endpoint;
        let kinds = worthwhile(focus);
        let mut without_identity = None;
        for kind in kinds {
            let Some(attempt) = self.attempt(kind) else { continue };
            let Some(origin) = self.origin(&attempt) else { continue };
            (self.report_progress)(Progress::Try(kind, endpoint));
            self.observations.push(probe(&attempt, endpoint, &origin, None, self.target.timeout).await);
            if kind == AttemptKind::WithoutIdentity {
                without_identity = Some(origin);
            }
        }
        self.sessions(endpoint, without_identity).await;
        self.ask(endpoint).await;
    }

    /// Asks the question, and again without the client certificate where the difference shows whether it is accepted.
    async fn ask(&mut self, endpoint: SocketAddr) {
        let works = self.focus().is_some_and(|focus| focus.agreed.is_some() && focus.reason().is_none());
        let Some(question) = self.target.question.as_ref().filter(|_| works) else { return };
        let bytes = question.bytes(&self.target.authority(endpoint));
        let requested = self.observations.iter().any(|seen| seen.seen.request.is_some());
        for kind in [AttemptKind::Question, AttemptKind::QuestionWithoutIdentity] {
            let Some(attempt) = self.attempt(kind).filter(|_| kind == AttemptKind::Question || requested) else {
                continue;
            };
            let Some(origin) = self.origin(&attempt) else { continue };
            (self.report_progress)(Progress::Try(kind, endpoint));
            let asked = probe::ask(&attempt, endpoint, &origin, (question, &bytes), self.target.timeout);
            self.observations.push(asked.await);
        }
    }

    /// A session of the same identity, then one of another: without a certificate, or of another origin with equal
    /// settings.
    async fn sessions(&mut self, endpoint: SocketAddr, without_identity: Option<Origin>) {
        let held = self.main.as_ref().is_some_and(|origin| origin.sessions_held() > 0);
        let works = self.focus().is_some_and(|focus| focus.agreed.is_some() && focus.failure.is_none());
        let (Some(resumed), Some(foreign), true) =
            (self.attempt(AttemptKind::Resumed), self.attempt(AttemptKind::ForeignSession), held && works)
        else {
            return;
        };
        // First: what a stranger makes of the same store would be the newest session in it.
        self.try_at(endpoint, &resumed, None).await;
        let theirs = without_identity.filter(|origin| origin.sessions_held() > 0);
        match theirs {
            // Ours is offered what nobody has made.
            Some(theirs) => self.try_at(endpoint, &foreign, Some((None, theirs))).await,
            None => {
                let Some(stranger) = self.origin(&foreign) else { return };
                let own = self.main.take();
                if let Some(own) = own {
                    self.try_at(endpoint, &foreign, Some((Some(stranger), own))).await;
                }
            }
        }
    }

    /// Tries under the origin as configured; with `foreign`, under its first origin (or the one as configured), with
    /// the sessions of its second.
    async fn try_at(&mut self, endpoint: SocketAddr, attempt: &Attempt, foreign: Option<(Option<Origin>, Origin)>) {
        (self.report_progress)(Progress::Try(attempt.kind, endpoint));
        let limit = self.target.timeout;
        let Some((stranger, theirs)) = foreign else {
            let Some(main) = &self.main else { return };
            self.observations.push(probe(attempt, endpoint, main, None, limit).await);
            return;
        };
        let Some(own) = stranger.as_ref().or(self.main.as_ref()) else { return };
        self.observations.push(probe(attempt, endpoint, own, Some(&theirs), limit).await);
        // Lent, if they were those of the origin as configured.
        self.main.get_or_insert(theirs);
    }

    /// Probes without TLS, or with old TLS, where no attempt saw a certificate.
    async fn probe_plaintext(&mut self) -> PlaintextFindings {
        let Some(focus) = self.focus() else { return PlaintextFindings::default() };
        let endpoint = focus.endpoint;
        let limit = self.target.timeout;
        let speaks = self.observations.iter().any(|seen| !seen.presented().is_empty());
        let Some(failure) = focus.failure.as_ref().filter(|_| !speaks) else {
            return PlaintextFindings::default();
        };
        let (silent, old) = match &failure.stage {
            Stage::Dial => return PlaintextFindings::default(),
            Stage::Upgrade => (true, false),
            Stage::Handshake(Broken::NotTls(_)) => (true, false),
            Stage::Handshake(Broken::Closed(Flight::BeforeServerHello) | Broken::Reset(Flight::BeforeServerHello)) => {
                (true, true)
            }
            Stage::Handshake(Broken::TimedOut(_)) => (true, false),
            Stage::Handshake(_) => (false, true),
        };
        let mut plaintext = PlaintextFindings::default();
        let upgrade = self.target.plan.upstream.upgrade;
        (self.report_progress)(Progress::ProbePlaintext(endpoint));
        if silent {
            let name = self.target.server_name();
            let name = name.to_str();
            let asked = plaintext_probe::ask_for_tls(endpoint, &name, upgrade, limit);
            (plaintext.greeting, plaintext.plaintext_protocol) =
                tokio::join!(plaintext_probe::listen(endpoint, limit), asked);
        }
        if old && upgrade.is_none() && plaintext.greeting.is_none() && plaintext.plaintext_protocol.is_none() {
            let name = self.target.server_name();
            let sni = match &name {
                rustls::pki_types::ServerName::DnsName(name) => Some(name.as_ref()),
                _ => None,
            };
            plaintext.legacy = plaintext_probe::offer_everything(endpoint, sni, limit).await;
        }
        plaintext
    }

    /// The attempt as configured that the verdict is about.
    fn focus(&self) -> Option<&Observation> {
        let mut tried =
            self.observations.iter().filter(|seen| seen.kind == AttemptKind::AsConfigured && seen.connected());
        tried.clone().find(|seen| seen.reason().is_some()).or_else(|| tried.next())
    }

    fn attempt(&self, kind: AttemptKind) -> Option<Attempt> {
        Attempt::new(kind, &self.target.plan.upstream, &self.target.server_name())
    }

    /// `None` for settings that contradict each other: the attempt is left out.
    fn origin(&self, attempt: &Attempt) -> Option<Origin> {
        let identity = self.target.identity.clone().filter(|_| attempt.spec.tls.identity.is_some());
        let name = self.target.server_name();
        let trust = &self.target.trust;
        let key = OriginKey::new(&attempt.spec, &name, identity.as_deref(), trust);
        Origin::new(key, identity, trust.clone()).ok()
    }
}

/// Attempts worth trying after this result of the one as configured: a server that does not speak TLS at all is not
/// asked for its versions.
fn worthwhile(focus: &Observation) -> Vec<AttemptKind> {
    match focus.failure.as_ref().map(|failure| &failure.stage) {
        Some(Stage::Dial | Stage::Handshake(Broken::NotTls(_))) => Vec::new(),
        Some(Stage::Upgrade) => vec![AttemptKind::WithoutUpgrade],
        // Each attempt may take the whole timeout: only what a time-out can come from.
        Some(Stage::Handshake(Broken::TimedOut(_))) => vec![AttemptKind::Classic],
        _ => AttemptKind::DIFFERENCES.into_iter().filter(|kind| *kind != AttemptKind::WithoutUpgrade).collect(),
    }
}

fn conclude(
    target: &Target,
    addresses: Result<Vec<SocketAddr>, (&'static str, String)>,
    observations: &[Observation],
    plaintext: PlaintextFindings,
) -> Report {
    let name = target.server_name();
    let now = Date::now();
    let presented = presented(observations);
    let verdicts = presented.as_ref().map(|chain| Verdicts::of(target, chain, now));
    let anchors = anchors(&target.trust);
    let verified = verdicts.as_ref().is_some_and(|verdicts| {
        !matches!(verdicts.by_trust, Some(Refusal::UnknownIssuer | Refusal::SelfSigned { .. }))
    });
    let chain = presented.map(|chain| chain::build(&chain, &anchors, verified)).unwrap_or_default();
    let evidence = Evidence {
        spec: &target.plan.upstream,
        server_name: &name,
        now,
        unresolved: addresses.as_ref().err().cloned(),
        observations,
        not_for_clients: target.identity.as_deref().is_some_and(|identity| !identity.leaf().for_clients),
        chain: &chain,
        anchors: &anchors,
        explicit_trust: target.plan.trust.is_some(),
        system_believes: verdicts.as_ref().is_some_and(|verdicts| matches!(verdicts.by_system, Some(None))),
        alone: verdicts.as_ref().map(Verdicts::alone).unwrap_or_default(),
        in_time: verdicts.as_ref().and_then(|verdicts| verdicts.in_time.clone()),
        greeting: plaintext.greeting,
        plaintext_protocol: plaintext.plaintext_protocol,
        legacy: plaintext.legacy,
    };
    let causes = cause::causes(&evidence);
    let repair = match causes.is_empty() {
        true => repair::as_it_is(&target.plan, &target.server, &chain),
        false => repair::repair(causes.iter().map(|cause| &cause.kind), &target.plan, &target.server, &chain),
    };
    let hello = evidence.main().filter(|_| target.show_hello).map(|main| hello::fields(&main.hello));
    Report {
        server: target.server.to_string(),
        upstream: target.plan.name.to_string(),
        server_name: name.to_str().into_owned(),
        sni: target.plan.upstream.tls.sni && matches!(name, rustls::pki_types::ServerName::DnsName(_)),
        identity: target.identity.as_deref().map(|identity| of_identity(identity, target)),
        trust: trust_in_words(target),
        clock: now.to_string(),
        addresses: addresses.unwrap_or_default().iter().map(|address| shown_address(address, &target.server)).collect(),
        attempts: observations.iter().map(of_observation).collect(),
        chain: verdicts.map(|verdicts| of_chain(&chain, &verdicts)),
        client_certificate: request(&evidence),
        exchange: target.question.as_ref().and_then(|question| exchange(question, &evidence)),
        causes: causes.iter().map(of_cause).collect(),
        notes: notes::notes(&evidence),
        repair,
        hello,
    }
}

/// Of the attempt as configured, else of any other.
fn presented(observations: &[Observation]) -> Option<Vec<rustls::pki_types::CertificateDer<'static>>> {
    let mut shown = observations.iter().filter(|seen| !seen.presented().is_empty());
    let main = |seen: &&Observation| seen.kind == AttemptKind::AsConfigured;
    let wrong = |seen: &&Observation| main(seen) && seen.reason().is_some();
    let found = shown.clone().find(wrong).or_else(|| shown.clone().find(main)).or_else(|| shown.next())?;
    Some(found.presented().to_vec())
}

/// `None`: the trust accepts the chain.
struct Verdicts {
    by_trust: Option<Refusal>,
    /// Outer `None`: the system has no roots.
    by_system: Option<Option<Refusal>>,
    by_itself: Option<Refusal>,
    /// Verdict of the candidate roots on a chain that the trust accepts: `ok`, or a word. `None`: there are none.
    by_candidates: Option<&'static str>,
    /// Of the configured trust, at a moment within the dates that the chain misses today.
    in_time: Option<Refusal>,
    /// Of the leaf by itself, at that moment.
    by_itself_in_time: Option<Refusal>,
}

impl Verdicts {
    fn of(target: &Target, chain: &[rustls::pki_types::CertificateDer<'static>], now: Date) -> Self {
        let name = target.server_name();
        let leaf = &chain[0];
        let rest = &chain[1..];
        let check = |trust: &Trust, at: Date| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.0).unwrap_or(0)));
            trust.check(leaf, rest, &name, at)
        };
        let ask = |trust: &Trust, at: Date| check(trust, at).err();
        let checked = check(&target.trust, now);
        let by_candidates = checked.as_ref().ok().and_then(|believed| believed.candidate);
        let by_trust = checked.err();
        let in_time = |trust: &Trust, today: &Option<Refusal>| match today {
            Some(Refusal::Expired { not_after }) => ask(trust, Date(not_after.0 - 1)),
            Some(Refusal::NotYetValid { not_before }) => ask(trust, Date(not_before.0 + 1)),
            _ => None,
        };
        let alone = CertificateFacts::read(leaf).and_then(|facts| {
            let anchors = Anchors::Certificate(ExactCertificate::Sha256(facts.sha256));
            let spec = TrustSpec { anchors, names: target.trust.expected(&name), ..TrustSpec::default() };
            Trust::load(&Name::new("itself"), &spec).ok()
        });
        let by_itself = alone.as_ref().and_then(|alone| ask(alone, now));
        Self {
            in_time: in_time(&target.trust, &by_trust),
            by_itself_in_time: alone.as_ref().and_then(|alone| in_time(alone, &by_itself)),
            by_trust,
            by_system: target.system.as_deref().map(|system| ask(system, now)),
            by_itself,
            by_candidates: by_candidates.map(|verdict| verdict.err().unwrap_or("ok")),
        }
    }

    /// Refusals of the leaf that another issuer would not change.
    fn alone(&self) -> Vec<Refusal> {
        self.by_itself.iter().chain(&self.by_itself_in_time).cloned().collect()
    }
}

fn anchors(trust: &Trust) -> Vec<Anchor> {
    let anchor =
        |root: &RootFacts| Anchor { subject: root.subject.clone(), issuer: root.issuer.clone(), sha256: root.sha256 };
    trust.roots().iter().map(anchor).collect()
}

fn trust_in_words(target: &Target) -> String {
    let Some(spec) = &target.plan.trust else { return "the system's roots".into() };
    match &spec.anchors {
        Anchors::Roots { system, paths } => {
            let mut parts: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            parts.extend(system.then(|| "the system's roots".to_owned()));
            parts.join(", ")
        }
        Anchors::Certificate(ExactCertificate::File(file)) => format!("exactly {}", file.display()),
        Anchors::Certificate(ExactCertificate::Sha256(sha256)) => format!("exactly {}", labelled_hex(sha256)),
        Anchors::PinsOnly => "pinned keys".into(),
    }
}

fn request(evidence: &Evidence<'_>) -> Option<report::Request> {
    let request = evidence.request()?;
    let answered = evidence.main().and_then(|main| main.seen.answered()).is_some_and(|request| request.answered);
    Some(report::Request { acceptable: request.acceptable.clone(), answered })
}

fn of_identity(identity: &Identity, target: &Target) -> report::Identity {
    let spec = target.plan.identity.iter();
    let files = spec.flat_map(|spec| {
        [Some(&spec.certificate), spec.private_key.as_ref(), spec.password_file.as_ref()].into_iter().flatten()
    });
    report::Identity {
        files: files.map(|file| file.display().to_string()).collect(),
        subject: identity.leaf().subject.clone(),
        issuer: identity.leaf().issuer.clone(),
        not_after: identity.not_after().to_string(),
        sha256: labelled_hex(&identity.leaf().sha256),
    }
}

fn of_observation(seen: &Observation) -> report::AttemptReport {
    let agreed = seen.agreed.as_ref();
    let leaf = seen.presented().first().and_then(|leaf| CertificateFacts::read(leaf));
    let detail = seen.refusal().map(ToString::to_string);
    report::AttemptReport {
        attempt: seen.kind.word().into(),
        address: seen.endpoint.to_string(),
        sni: seen.sni,
        result: seen.reason().unwrap_or("ok").into(),
        detail: detail.or_else(|| seen.failure.as_ref().map(|failure| failure.detail.clone())),
        late: seen.refusal().is_none() && seen.failure.as_ref().is_some_and(|failure| failure.late),
        version: agreed.map(|agreed| agreed.version.into()),
        suite: agreed.map(|agreed| agreed.suite.into()),
        group: agreed.map(|agreed| agreed.group.into()),
        alpn: agreed.and_then(|agreed| agreed.alpn.as_deref()).map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
        resumption: agreed.map(|agreed| agreed.resumed.as_str().into()),
        certificate: leaf.map(|leaf| labelled_hex(&leaf.sha256)),
        milliseconds: u64::try_from(seen.took.as_millis()).unwrap_or(u64::MAX),
    }
}

fn of_chain(chain: &Chain, verdicts: &Verdicts) -> report::Chain {
    let word = |refusal: &Option<Refusal>| refusal.as_ref().map_or("ok", Refusal::reason).to_owned();
    let certificates = chain.links.iter().map(|link| report::Certificate {
        role: link.role.word().into(),
        subject: link.facts.subject.clone(),
        issuer: link.facts.issuer.clone(),
        names: link.facts.names.clone(),
        not_before: link.facts.not_before.to_string(),
        not_after: link.facts.not_after.to_string(),
        key: match link.facts.key_bits {
            0 => link.facts.key.into(),
            bits => format!("{} {bits}", link.facts.key),
        },
        sha256: labelled_hex(&link.facts.sha256),
        pin: labelled_pin(&link.facts.spki_sha256),
        self_signed: link.facts.self_signed,
        authority: link.facts.authority,
        issuer_url: link.issuer_url.clone(),
    });
    report::Chain {
        certificates: certificates.collect(),
        missing: chain.missing.clone(),
        anchor: chain.anchor.clone(),
        out_of_order: chain.out_of_order,
        by_trust: word(&verdicts.by_trust),
        by_system: verdicts.by_system.as_ref().map(word),
        by_itself: word(&verdicts.by_itself),
        by_candidates: verdicts.by_candidates.map(str::to_owned),
    }
}

fn of_cause(cause: &Cause) -> report::CauseReport {
    let finer = cause.kind.word();
    report::CauseReport {
        cause: if finer.is_empty() { cause.reason } else { finer }.into(),
        reason: cause.reason.into(),
        sentence: cause.kind.to_string(),
        address: cause.endpoint.map(|endpoint| endpoint.to_string()),
    }
}

/// The port is the target's, except for a service, whose hosts have ports of their own.
fn shown_address(address: &SocketAddr, server: &Server) -> String {
    match server.host {
        Host::Service(_) => address.to_string(),
        Host::Dns(_) | Host::Ip(_) => address.ip().to_string(),
    }
}
