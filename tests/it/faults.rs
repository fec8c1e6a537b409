//! The table of `docs/faults.md`: what becomes of a stream when one side misbehaves at some step of it. What was
//! received is delivered, nothing else is; streams of another origin go on; nothing is left behind.

mod client;
mod server;
mod stage;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::egret::{Egret, listener, roots};
use crate::support::free_port;
use crate::support::peer::{Peer, accepted, mutual};
use crate::support::pki::Pki;
use crate::support::plain::End;
use stage::{BYSTANDER, Bystander, Case, ECHOES, Outcome, SUBJECT, Words, greeting_echo};

/// How far the side that misbehaves has come: six steps of a client, six of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Connected,
    FirstByte,
    AmidItsData,
    HalfClosed,
    AmidTheAnswer,
    AfterTheAnswer,
    Accepted,
    HelloRead,
    AmidItsFlight,
    AfterFinished,
    AmidARecord,
    AfterCloseNotify,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Connected => "client: connected",
            Self::FirstByte => "client: first byte",
            Self::AmidItsData => "client: amid its data",
            Self::HalfClosed => "client: half-closed",
            Self::AmidTheAnswer => "client: amid the answer",
            Self::AfterTheAnswer => "client: after the answer",
            Self::Accepted => "server: accepted",
            Self::HelloRead => "server: ClientHello read",
            Self::AmidItsFlight => "server: amid its flight",
            Self::AfterFinished => "server: after Finished",
            Self::AmidARecord => "server: amid a record",
            Self::AfterCloseNotify => "server: after close_notify",
        }
    }

    fn of_the_client(self) -> bool {
        self < Self::Accepted
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Reset,
    Stall,
    Truncation,
    Garbage,
    HalfClose,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Stall => "stall",
            Self::Truncation => "truncation",
            Self::Garbage => "garbage",
            Self::HalfClose => "half-close",
        }
    }
}

/// Step, fault, `ended`, and the end that the other side sees.
type Row = (Step, Fault, &'static str, End);

const ROWS: &[Row] = &[
    (Step::Connected, Fault::Reset, "downstream_reset", End::Reset),
    (Step::Connected, Fault::Stall, "idle_timeout", End::Reset),
    (Step::Connected, Fault::Truncation, "downstream_reset", End::Clean),
    (Step::Connected, Fault::Garbage, "finished", End::Clean),
    (Step::Connected, Fault::HalfClose, "finished", End::Clean),
    (Step::FirstByte, Fault::Reset, "downstream_reset", End::Reset),
    (Step::FirstByte, Fault::Stall, "idle_timeout", End::Reset),
    (Step::FirstByte, Fault::Truncation, "downstream_reset", End::Clean),
    (Step::FirstByte, Fault::Garbage, "finished", End::Clean),
    (Step::FirstByte, Fault::HalfClose, "finished", End::Clean),
    (Step::AmidItsData, Fault::Reset, "downstream_reset", End::Reset),
    (Step::AmidItsData, Fault::Stall, "idle_timeout", End::Reset),
    (Step::AmidItsData, Fault::Truncation, "downstream_reset", End::Clean),
    (Step::AmidItsData, Fault::Garbage, "finished", End::Clean),
    (Step::AmidItsData, Fault::HalfClose, "finished", End::Clean),
    (Step::HalfClosed, Fault::Reset, "downstream_reset", End::Clean),
    (Step::HalfClosed, Fault::Stall, "finished", End::Clean),
    (Step::HalfClosed, Fault::Truncation, "downstream_reset", End::Clean),
    (Step::HalfClosed, Fault::HalfClose, "finished", End::Clean),
    (Step::AmidTheAnswer, Fault::Reset, "downstream_reset", End::Reset),
    (Step::AmidTheAnswer, Fault::Stall, "idle_timeout", End::Reset),
    (Step::AmidTheAnswer, Fault::Truncation, "downstream_reset", End::Reset),
    (Step::AmidTheAnswer, Fault::Garbage, "finished", End::Clean),
    (Step::AmidTheAnswer, Fault::HalfClose, "finished", End::Clean),
    (Step::AfterTheAnswer, Fault::Reset, "downstream_reset", End::Reset),
    (Step::AfterTheAnswer, Fault::Stall, "idle_timeout", End::Reset),
    (Step::AfterTheAnswer, Fault::Truncation, "finished", End::Clean),
    (Step::AfterTheAnswer, Fault::Garbage, "finished", End::Clean),
    (Step::AfterTheAnswer, Fault::HalfClose, "finished", End::Clean),
    (Step::Accepted, Fault::Reset, "reset_in_handshake", End::Reset),
    (Step::Accepted, Fault::Stall, "handshake_timeout", End::Reset),
    (Step::Accepted, Fault::Truncation, "closed_in_handshake", End::Reset),
    (Step::Accepted, Fault::Garbage, "not_tls", End::Reset),
    (Step::Accepted, Fault::HalfClose, "closed_in_handshake", End::Reset),
    (Step::HelloRead, Fault::Reset, "reset_in_handshake", End::Reset),
    (Step::HelloRead, Fault::Stall, "handshake_timeout", End::Reset),
    (Step::HelloRead, Fault::Truncation, "closed_in_handshake", End::Reset),
    (Step::HelloRead, Fault::Garbage, "not_tls", End::Reset),
    (Step::HelloRead, Fault::HalfClose, "closed_in_handshake", End::Reset),
    (Step::AmidItsFlight, Fault::Reset, "reset_in_handshake", End::Reset),
    (Step::AmidItsFlight, Fault::Stall, "handshake_timeout", End::Reset),
    (Step::AmidItsFlight, Fault::Truncation, "closed_in_handshake", End::Reset),
    (Step::AmidItsFlight, Fault::Garbage, "protocol_error", End::Reset),
    (Step::AmidItsFlight, Fault::HalfClose, "closed_in_handshake", End::Reset),
    (Step::AfterFinished, Fault::Reset, "upstream_reset", End::Reset),
    (Step::AfterFinished, Fault::Stall, "idle_timeout", End::Reset),
    (Step::AfterFinished, Fault::Truncation, "upstream_truncated", End::Reset),
    (Step::AfterFinished, Fault::Garbage, "upstream_tls_error", End::Reset),
    (Step::AfterFinished, Fault::HalfClose, "finished", End::Clean),
    (Step::AmidARecord, Fault::Reset, "upstream_reset", End::Reset),
    (Step::AmidARecord, Fault::Stall, "idle_timeout", End::Reset),
    (Step::AmidARecord, Fault::Truncation, "upstream_truncated", End::Reset),
    (Step::AmidARecord, Fault::Garbage, "upstream_tls_error", End::Reset),
    (Step::AmidARecord, Fault::HalfClose, "finished", End::Clean),
    (Step::AfterCloseNotify, Fault::Reset, "upstream_reset", End::Clean),
    (Step::AfterCloseNotify, Fault::Stall, "half_closed_timeout", End::Clean),
    (Step::AfterCloseNotify, Fault::Truncation, "finished", End::Clean),
    (Step::AfterCloseNotify, Fault::Garbage, "finished", End::Clean),
    (Step::AfterCloseNotify, Fault::HalfClose, "finished", End::Clean),
];

const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// A run with its server and the client that is to run.
struct Run {
    case: Arc<Case>,
    server: Peer,
    client: Client,
}

enum Client {
    Faulty(client::Client),
    Waiting(server::Client),
}

impl Run {
    fn new(case: Case, config: &Arc<rustls::ServerConfig>) -> Self {
        let case = Arc::new(case);
        let (server, client) = if case.step.of_the_client() {
            let (server, client) = client::sides(&case);
            let config = Arc::clone(config);
            (Peer::start(move |tcp| server.serve(accepted(tcp, &config))), Client::Faulty(client))
        } else {
            let (server, client) = server::sides(&case, config);
            (Peer::start(move |tcp| server.serve(tcp)), Client::Waiting(client))
        };
        Self { case, server, client }
    }

    /// An upstream and a listener of its own: no run changes the health of another's server.
    fn sections(&self) -> String {
        let Case { name, fault, version, .. } = &*self.case;
        // Long enough for a busy machine to come as far as the step.
        let [limit, half_closed] = if *fault == Fault::Stall { ["6s", "4s"] } else { ["60s"; 2] };
        format!(
            "[upstreams.{name}]\nservers = [\"{}\"]\noriginate_timeout = \"{limit}\"\nidle_timeout = \"{limit}\"\n\
             half_closed_timeout = \"{half_closed}\"\n[upstreams.{name}.tls]\nidentity = \"subject\"\ntrust = \"internal\"\n\
             server_name = \"{SUBJECT}\"\nmin_version = \"{version}\"\nmax_version = \"{version}\"\n{}",
            self.server.address,
            listener(name, free_port(), name)
        )
    }

    /// The run, with a stream of another origin before, meanwhile and afterwards.
    fn judge(&self, stage: &Stage<'_>) -> Outcome {
        let mut other = Bystander::open(stage.bystander);
        other.echo();
        let address = stage.egret.address(&self.case.name);
        let outcome = match &self.client {
            Client::Faulty(client) => client.run(address, stage.words, || other.echo()),
            Client::Waiting(client) => client.run(address, stage.words, || other.echo()),
        };
        other.leave();
        Bystander::open(stage.bystander).leave();
        outcome
    }
}

#[derive(Clone, Copy)]
struct Stage<'a> {
    egret: &'a Egret,
    bystander: SocketAddr,
    words: &'a Words,
}

/// All of them, a run that fails beside the others. Those that stall come first and alone, because they have a limit
/// of time within which even a busy machine must come to the step.
fn judge_all(runs: &mut [Run], stage: Stage<'_>) -> Vec<Result<Outcome, String>> {
    let over = AtomicBool::new(false);
    let mut outcomes: Vec<_> = runs.iter().map(|_| Err("not run".to_owned())).collect();
    let (stalling, others): (Vec<_>, Vec<_>) =
        runs.iter_mut().enumerate().partition(|(_, run)| run.case.fault == Fault::Stall);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                stage.words.read(stage.egret);
                thread::sleep(Duration::from_millis(50));
            }
        });
        for wave in [stalling, others] {
            let wave = wave.into_iter();
            let threads: Vec<_> = wave.map(|(at, run)| (at, scope.spawn(move || run.judge(&stage)))).collect();
            for (at, thread) in threads {
                outcomes[at] = thread.join().map_err(|panic| said(&*panic));
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    outcomes
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())
}

#[test]
fn every_fault_at_every_step_loses_no_byte_and_harms_no_other_stream() {
    let pki = Pki::new();
    let config = mutual(&pki.server(&[SUBJECT]), &pki);
    let cases = ROWS.iter().flat_map(|row| VERSIONS.map(|version| (row, version))).enumerate();
    let mut runs: Vec<Run> = cases
        .map(|(number, (&(step, fault, ..), version))| Run::new(Case::new(number, step, fault, version), &config))
        .collect();
    let echo = greeting_echo(&pki, &pki.server(&[BYSTANDER]));
    let mut sections = roots("internal", &pki.root());
    for (identity, name) in [("subject", SUBJECT), ("bystander", BYSTANDER)] {
        sections += &pki.client(name).identity(identity);
    }
    sections.extend(runs.iter().map(Run::sections));
    sections += &format!(
        "[upstreams.bystander]\nservers = [\"{}\"]\n[upstreams.bystander.tls]\nidentity = \"bystander\"\n\
         trust = \"internal\"\nserver_name = \"{BYSTANDER}\"\n{}",
        echo.address,
        listener("bystander", free_port(), "bystander")
    );
    let egret = Egret::start(&sections);
    let floor = egret.descriptors();
    let words = Words::default();
    let stage = Stage { egret: &egret, bystander: egret.address("bystander"), words: &words };
    let outcomes = judge_all(&mut runs, stage);
    let page = page(&runs, &outcomes);
    egret.wait_until_idle(floor);
    compare(&page);
}

/// The part of the page that is written from the runs; fails with every run that was not as it should be.
fn page(runs: &[Run], outcomes: &[Result<Outcome, String>]) -> String {
    let (mut wrong, mut table, mut bytes) = (String::new(), String::new(), 0);
    let pairs = runs.chunks(VERSIONS.len()).zip(outcomes.chunks(VERSIONS.len()));
    for ((runs, outcomes), (step, fault, ended, end)) in pairs.zip(ROWS) {
        for (run, outcome) in runs.iter().zip(outcomes) {
            match outcome {
                Ok(outcome) if outcome.ended == *ended && outcome.end == Some(*end) => {
                    bytes += outcome.to_server + outcome.to_client;
                }
                _ => writeln!(wrong, "{step:?} {fault:?} TLS {}: {outcome:?}", run.case.version).unwrap(),
            }
        }
        if outcomes.iter().any(|outcome| Some(outcome) != outcomes.first()) {
            writeln!(wrong, "{step:?} {fault:?} depends on the version: {outcomes:?}").unwrap();
        }
        if let Some(Ok(Outcome { to_server, to_client, .. })) = outcomes.first() {
            let end = if *end == End::Clean { "clean" } else { "cut" };
            let (step, fault) = (step.name(), fault.name());
            writeln!(table, "| {step} | {fault} | `{ended}` | {to_server} | {to_client} | {end} |").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let (rows, runs, echoes) = (ROWS.len(), runs.len(), ECHOES.load(Ordering::Relaxed));
    format!(
        "{rows} rows, each with TLS 1.2 and 1.3: {runs} runs through one process, most of them at once. {bytes} bytes had to\n\
         arrive and did: none wrong, none lost. {echoes} echoes of bystanders, each with its own certificate.\n\n\
         | step | fault | `ended` | bytes to the server | bytes to the client | end on the other side |\n\
         | --- | --- | --- | --- | --- | --- |\n{table}\n"
    )
}

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn compare(written: &str) {
    let path = file("docs/faults.md");
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("## The table\n\n").expect("the page has the table");
    let (old, tail) = rest.split_once("## Other faults\n").expect("the page has what follows");
    if std::env::var_os("EGRET_BLESS").is_some() {
        fs::write(&path, format!("{head}## The table\n\n{written}## Other faults\n{tail}")).unwrap();
    } else {
        assert_eq!(old, written, "run the test with EGRET_BLESS=1 to write the table anew");
    }
}

/// What the page says of other faults is tested elsewhere, by tests that are there.
#[test]
fn every_test_that_the_page_names_is_there() {
    let text = fs::read_to_string(file("docs/faults.md")).unwrap();
    let names: Vec<&str> =
        text.split('`').skip(1).step_by(2).filter(|name| name.contains("::") && !name.contains(' ')).collect();
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        let (theme, test) = name.rsplit_once("::").expect("a theme and a test");
        let source = fs::read_to_string(file(&format!("tests/it/{}.rs", theme.replace("::", "/"))))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(source.contains(&format!("fn {test}(")), "{name} is not there");
    }
}
