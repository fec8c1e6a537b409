//! A panic in any task is logged and counted, and what the task is for goes on.
//!
//! The program under test has to be a debug build: others carry no way to make it panic.
#![cfg(debug_assertions)]

use std::time::Duration;

use crate::pool::support::{Certificates, Counting, wait_for_warm};
use crate::support::egret::{Egret, Settings, listener, roots};
use crate::support::name_server::NameServer;
use crate::support::peer::{self, Peer};
use crate::support::records::{Records, shake};
use crate::support::{PATIENCE, eventually, free_port, plain};

/// Runs of the task that panic.
const PANICS: u32 = 3;

/// A task, and how it is seen that its work is done after all.
struct Case {
    task: &'static str,
    /// Lines of the upstream that make it run.
    lines: &'static str,
    works: fn(&Egret, &Counting),
}

const CHECK: &str = "active_check = { interval = \"100ms\" }\n";
const POOL: &str = "pool = { min_idle = 1 }\n";

/// It is started again, later and later.
const KEPT: [Case; 6] = [
    Case { task: "listener", lines: "", works: serves },
    Case { task: "admin", lines: "", works: serves },
    Case { task: "watcher", lines: "", works: reloads },
    Case { task: "dns_refresh", lines: CHECK, works: serves },
    Case { task: "health_checks", lines: CHECK, works: checks },
    Case { task: "pool", lines: POOL, works: fills },
];

/// Its caller tries again.
const DONE_ONCE: [Case; 3] = [
    Case { task: "dns_lookup", lines: CHECK, works: serves },
    Case { task: "health_check", lines: CHECK, works: checks },
    Case { task: "pool_fill", lines: POOL, works: fills },
];

fn serves(egret: &Egret, _: &Counting) {
    let address = egret.address("app");
    // A failed look-up is remembered for a second.
    eventually("a client to be served", || (plain::ask_and_finish(address, b"here").0 == b"here").then_some(()));
}

fn reloads(egret: &Egret, _: &Counting) {
    let text = std::fs::read_to_string(egret.config()).unwrap();
    std::fs::write(egret.config(), text + "# changed\n").unwrap();
    eventually("the changed file to be loaded", || (egret.generation() == 2.0).then_some(()));
}

fn checks(_: &Egret, server: &Counting) {
    let before = server.accepted();
    eventually("two more checks", || (server.accepted() > before + 1).then_some(()));
}

fn fills(egret: &Egret, server: &Counting) {
    wait_for_warm(egret, 1);
    serves(egret, server);
}

fn start(certificates: &Certificates, server: &Counting, names: &NameServer, case: &Case) -> Egret {
    let sections = format!(
        "[dns]\nservers = [\"{}\"]\nmin_ttl = \"50ms\"\nmax_ttl = \"100ms\"\n{}{}\
         [upstreams.app]\nservers = [\"db.example.com:{}\"]\n{}\
         tls = {{ identity = \"client\", trust = \"server\", server_name = \"127.0.0.1\" }}\n{}",
        names.address,
        certificates.pki.client("client").identity("client"),
        roots("server", &certificates.pki.root()),
        server.address().port(),
        case.lines,
        listener("app", 0, "app"),
    );
    let asked = ("EGRET_TEST_PANICS", format!("{}={PANICS}", case.task).into());
    Egret::start_with(Settings { watch: true, environment: vec![asked], ..Settings::default() }, &sections)
}

/// The pauses that the log has, once the task has failed as often as was asked for.
fn failures(egret: &Egret, task: &str, message: &str) -> Vec<String> {
    let labels = [("task", task), ("reason", "panicked")];
    eventually(&format!("{task} to panic {PANICS} times"), || {
        (egret.metrics().sum("egret_task_failures_total", &labels) == f64::from(PANICS)).then_some(())
    });
    // The log is written by a thread of its own.
    eventually(&format!("{PANICS} lines of {task}"), || {
        let lines = egret.log().into_iter().filter(|line| line["message"] == message && line["task"] == task);
        let pauses: Vec<_> = lines.map(|line| line["pause"].as_str().unwrap_or_default().to_owned()).collect();
        (pauses.len() == PANICS as usize).then_some(pauses)
    })
}

#[test]
fn a_task_that_panics_is_started_again_after_growing_pauses_and_does_its_work() {
    let (certificates, names) = (Certificates::new(), NameServer::start(0));
    for case in &KEPT {
        let server = Counting::start(certificates.mutual(), None, None);
        let egret = start(&certificates, &server, &names, case);
        let pauses = failures(&egret, case.task, "a task failed and is started again");
        assert_eq!(pauses, ["10ms", "20ms", "40ms"], "{}", case.task);
        (case.works)(&egret, &server);
        assert_eq!(egret.log().iter().filter(|line| line["message"] == "panicked").count(), PANICS as usize);
    }
}

#[test]
fn work_that_panics_is_counted_and_done_again_when_it_is_next_needed() {
    let (certificates, names) = (Certificates::new(), NameServer::start(0));
    for case in &DONE_ONCE {
        let server = Counting::start(certificates.mutual(), None, None);
        let egret = start(&certificates, &server, &names, case);
        failures(&egret, case.task, "a task failed");
        (case.works)(&egret, &server);
    }
}

#[test]
fn a_connection_that_panics_is_counted_and_ends_and_touches_no_other() {
    let (certificates, names) = (Certificates::new(), NameServer::start(0));
    for lines in ["", CHECK, POOL] {
        let server = Counting::start(certificates.mutual(), None, None);
        let case = Case { task: "connection", lines, works: serves };
        let egret = start(&certificates, &server, &names, &case);
        let floor = egret.descriptors();
        for _ in 0..PANICS {
            let (got, end) = plain::ask_and_finish(egret.address("app"), b"hello");
            assert!(got.is_empty(), "{end:?}");
        }
        failures(&egret, case.task, "a task failed");
        (case.works)(&egret, &server);
        egret.wait_until_idle(floor + 2);
    }
}

/// The connection by which egret finds out whether a refusal of one client is meant for all.
#[test]
fn a_confirmation_that_panics_is_counted_and_the_next_refusal_begins_another() {
    let certificates = Certificates::new();
    let refuse_when_asked = |mut tls: peer::Accepted| {
        shake(&mut tls);
        let mut word = [0];
        if let Ok(()) = std::io::Read::read_exact(&mut tls, &mut word)
            && word == *b"?"
        {
            let mut records = Records::of(tls);
            records.send(rustls::ContentType::Alert, &[2, 42]);
            records.finish();
        }
    };
    let mut config = rustls::ServerConfig::clone(&certificates.mutual());
    config.enable_secret_extraction = true;
    let config = std::sync::Arc::new(config);
    let servers = [(); 2].map(|()| Peer::start_tls(std::sync::Arc::clone(&config), refuse_when_asked));
    let sections = certificates.pki.client("client").identity("client")
        + &roots("server", &certificates.pki.root())
        + &format!(
            "[upstreams.app]\nservers = [\"{}\", \"{}\"]\ntls = {{ identity = \"client\", trust = \"server\" }}\n",
            servers[0].address, servers[1].address
        )
        + &listener("app", free_port(), "app");
    let asked = ("EGRET_TEST_PANICS", format!("confirmation={PANICS}").into());
    let egret = Egret::start_with(Settings { environment: vec![asked], ..Settings::default() }, &sections);
    let labels = [("task", "confirmation"), ("reason", "panicked")];
    eventually("every panic to be counted", || {
        assert!(plain::ask(egret.address("app"), b"?").0.is_empty());
        (egret.metrics().sum("egret_task_failures_total", &labels) == f64::from(PANICS)).then_some(())
    });
}

#[test]
fn a_panic_of_the_main_loop_ends_the_process_with_a_code() {
    let asked = ("EGRET_TEST_PANICS", "main=1".into());
    let certificates = Certificates::new();
    let server = Counting::start(certificates.mutual(), None, None);
    let sections = certificates.sections(&certificates.pki.client("client"), server.address(), "min_idle = 0");
    let settings = Settings { environment: vec![asked], lacking: true, ..Settings::default() };
    let mut egret = Egret::start_with(settings, &sections);
    assert_eq!(egret.wait(PATIENCE + Duration::from_secs(5)), Some(1), "{}", egret.log_text());
    egret.wait_for_log("why it ended", |line| line["reason"] == "panicked" && line["level"] == "ERROR");
}
