//! The alert rules, judged by promtool on what a real egret exported: each fires while its state lasts, and only then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use time::Duration;

use crate::support::egret::{Egret, Settings, binary, listener, roots};
use crate::support::peer::{Peer, anonymous, mutual};
use crate::support::pki::{Leaf, Pki, replace};
use crate::support::process::{Process, guarded, run};
use crate::support::{PATIENCE, eventually, free_port, http};

const HOST: &str = "server.example.com";

/// Minutes of the three parts of the story: all is well; everything is wrong, for as long as the slowest rule waits (a
/// day); all is well again, for longer than the widest window (an hour).
const PARTS: [usize; 3] = [60, 26 * 60, 180];

/// Events a minute for each one that was counted: rules with a rate want more than six a minute.
const RATE: f64 = 10.0;

/// Families whose values are dates.
const DATES: [&str; 3] = ["_not_before_seconds", "_not_after_seconds", "_start_time_seconds"];

fn rules() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alerts.yml")).unwrap()
}

/// The samples by series, of the families that a rule asks for.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let rules = rules();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let samples = lines.map(|line| line.rsplit_once(' ').expect("a sample"));
    let samples = samples.map(|(series, value)| (series.to_owned(), value.parse::<f64>().unwrap()));
    let asked = samples.filter(|(series, _)| rules.contains(series.split('{').next().expect("a family")));
    asked.filter(|(_, value)| value.is_finite()).collect()
}

/// Three servers: one that is believed, one of an authority that is not, one that wants a client certificate.
struct Scene {
    pki: Pki,
    servers: [Peer; 3],
}

impl Scene {
    fn new() -> Self {
        let (pki, foreign) = (Pki::new(), Pki::new());
        let servers = [
            Peer::echo(anonymous(&pki.server(&[HOST]))),
            Peer::echo(anonymous(&foreign.server(&[HOST]))),
            Peer::echo(mutual(&pki.server(&[HOST]), &pki)),
        ];
        Self { pki, servers }
    }

    /// The same names whether all is well or not.
    fn sections(&self, well: bool) -> String {
        let [good, foreign, demanding] = self.servers.each_ref().map(|server| server.address.to_string());
        let pick = |ill: &str| if well { good.clone() } else { ill.to_owned() };
        let identity = |name: &str, valid| {
            let valid = if well { (-1, 90) } else { valid };
            self.pki.issue(name, &Leaf { common_name: name, names: &[], valid }).identity(name)
        };
        let mut text = roots("internal", &self.pki.root());
        if !well {
            text += &format!("crls = [{:?}]\n", self.pki.crl_until(&[], Duration::hours(5)));
        }
        text += &[("short", (-2, 1)), ("ended", (-9, -1)), ("early", (3, 30)), ("kept", (-1, 90)), ("lost", (-1, 90))]
            .map(|(name, valid)| identity(name, valid))
            .concat();
        let unverified = |verify: &str| match well {
            true => String::new(),
            false => format!(", verify = {verify:?}, insecure_reason = \"a test\""),
        };
        for (name, server, tls) in [
            ("dead", pick("127.0.0.1:1"), String::new()),
            ("foreign", pick(&foreign), String::new()),
            ("demanding", pick(&demanding), String::new()),
            ("unverified", good.clone(), unverified("none")),
            ("reported", pick(&foreign), unverified("report")),
            ("needing", good.clone(), ", identity = \"lost\"".to_owned()),
        ] {
            text += &format!(
                "[upstreams.{name}]\nservers = [{server:?}]\n\
                 tls = {{ trust = \"internal\", server_name = \"{HOST}\"{tls} }}\n{}",
                listener(name, free_port(), name)
            );
        }
        let allow = if well { "127.0.0.0/8" } else { "192.0.2.1" };
        text += &listener("closed", free_port(), "unverified");
        text += &format!("allow = [{allow:?}]\n");
        text += &listener("narrow", free_port(), "unverified");
        text += if well { "" } else { "max_connections = 1\n" };
        text
    }
}

/// A client, served or not: what it sends comes back, or the connection ends, maybe before it is known here.
fn visit(egret: &Egret, listener: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(egret.address(listener)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(b"ping").and_then(|()| stream.read(&mut [0; 4]));
    Some(stream)
}

/// What egret exports while all is well.
fn well(scene: &Scene) -> String {
    let egret = Egret::start(&scene.sections(true));
    for name in ["dead", "foreign", "demanding", "unverified", "reported", "needing", "closed", "narrow"] {
        drop(visit(&egret, name));
    }
    egret.admin("GET", "/metrics").body
}

/// What it exports when everything is wrong that a rule asks about.
fn ill(scene: &Scene) -> String {
    let sections = scene.sections(false);
    fs::remove_file(scene.pki.folder().join("lost.key")).unwrap();
    let settings = Settings {
        lacking: true,
        environment: vec![("EGRET_TEST_PANICS", "listener=1".into())],
        ..Settings::default()
    };
    let egret = Egret::start_with(settings, &sections);
    // Three failures in a row eject an address.
    for name in ["dead", "dead", "dead", "foreign", "demanding", "reported", "closed"] {
        drop(visit(&egret, name));
    }
    let _held = [visit(&egret, "narrow"), TcpStream::connect(egret.address("narrow")).ok()];
    replace(&scene.pki.folder().join("kept.crt"), "nothing", 0o644);
    assert!(egret.reload(), "{}", egret.log_text());
    egret.rewrite("nonsense");
    assert!(!egret.reload());
    // As many descriptors as there are, and some for the admin endpoint.
    let limit = egret.descriptors() + 20;
    egret.limit_descriptors(limit);
    let _crowd: Vec<TcpStream> =
        (0..limit).filter_map(|_| TcpStream::connect(egret.address("unverified")).ok()).collect();
    eventually("every state to be in the metrics", || {
        let text = egret.admin("GET", "/metrics").body;
        let found = ["egret_accept_errors_total{", "egret_accept_waits_total{", "egret_task_failures_total{"];
        found.iter().all(|family| text.contains(family)).then_some(text)
    })
}

/// What it exports when nothing can be logged: the disk is full.
fn mute() -> f64 {
    let folder = TempDir::new().unwrap();
    let (config, socket) = (folder.path().join("egret.toml"), folder.path().join("admin.sock"));
    let admin = format!("[admin]\nlisten = \"unix:{}\"\n", socket.display());
    let upstream = "[upstreams.a]\nservers = [\"192.0.2.1:443\"]\n";
    fs::write(&config, admin + upstream + &listener("a", free_port(), "a")).unwrap();
    let mut command = guarded("sh");
    command.args(["-c", "exec \"$0\" run \"$1\" 2>/dev/full"]).arg(binary()).arg(&config);
    let _egret = Process::spawn("egret", command, &folder.path().join("output"));
    eventually("lines to be dropped", || {
        let text = socket.exists().then(|| http::admin(&socket, "GET", "/metrics").body)?;
        samples(&text).get("egret_log_dropped_total").copied().filter(|dropped| *dropped > 0.0)
    })
}

/// The values of a series in the notation of promtool, over all parts of the story.
fn story(family: &str, well: Option<f64>, ill: Option<f64>) -> String {
    let constant = |value: Option<f64>, minutes: usize| match value {
        Some(value) => format!("{value}+0x{}", minutes - 1),
        None => format!("_x{minutes}"),
    };
    let rising = |first: f64, step: f64| format!("{first}+{step}x{}", PARTS[1] - 1);
    let (middle, last) = match (family, ill) {
        // A start a minute.
        ("process_start_time_seconds", Some(ill)) => (rising(ill, 60.0), well),
        (_, Some(ill)) if family.ends_with("_total") => {
            let step = ill * RATE;
            let end = well.unwrap_or(0.0) + step * (PARTS[1] as f64 + 1.0);
            (rising(well.unwrap_or(0.0) + step, step), Some(end))
        }
        (_, ill) => (constant(ill, PARTS[1]), well),
    };
    [constant(well, PARTS[0]), middle, constant(last, PARTS[2])].join(" ")
}

/// promtool's clock begins at zero: dates are moved so that the middle part begins now.
fn moved(family: &str, value: f64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let begins = PARTS[0] as f64 * 60.0;
    if DATES.iter().any(|end| family.ends_with(end)) { value - now + begins } else { value }
}

fn series(well: &BTreeMap<String, f64>, ill: &BTreeMap<String, f64>) -> Vec<Value> {
    let names: BTreeSet<&String> = well.keys().chain(ill.keys()).collect();
    let one = |name: &&String| {
        let (family, labels) = name.split_once('{').unwrap_or((name, "}"));
        let value = |samples: &BTreeMap<String, f64>| samples.get(*name).map(|value| moved(family, *value));
        json!({
            "series": format!("{family}{{job=\"egret\",instance=\"192.0.2.1:9465\",{labels}").replace(",}", "}"),
            "values": story(family, value(well), value(ill)),
        })
    };
    names.iter().map(one).collect()
}

fn firing(minute: usize, alerts: &[&str]) -> Value {
    let samples = alerts.iter().map(|name| json!({ "labels": format!("{{alertname={name:?}}}"), "value": 1 }));
    json!({
        "expr": "group by (alertname) (ALERTS{alertstate=\"firing\"})",
        "eval_time": format!("{minute}m"),
        "exp_samples": samples.collect::<Vec<_>>(),
    })
}

#[test]
fn every_rule_fires_on_what_a_real_egret_exports_and_rests_when_all_is_well() {
    let scene = Scene::new();
    let (mut well, mut ill) = (samples(&well(&scene)), samples(&ill(&scene)));
    ill.insert("egret_log_dropped_total".to_owned(), mute());
    // Of Prometheus itself.
    well.insert("up".to_owned(), 1.0);
    ill.insert("up".to_owned(), 0.0);

    let folder = TempDir::new().unwrap();
    let rules = rules();
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 20, "{names:?}");
    let end: usize = PARTS.iter().sum();
    let test = json!({
        "rule_files": [Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": series(&well, &ill),
            "promql_expr_test": [
                firing(PARTS[0] - 1, &[]),
                firing(PARTS[0] + PARTS[1] - 30, &names),
                firing(end - 1, &[]),
            ],
        }],
    });
    let path = folder.path().join("test.json");
    fs::write(&path, test.to_string()).unwrap();
    run(Command::new("promtool").args(["test", "rules"]).arg(&path));
}

#[test]
fn promtool_takes_the_rules_their_own_tests_and_the_metrics() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    run(Command::new("promtool").current_dir(&deploy).args(["check", "rules", "alerts.yml"]));
    run(Command::new("promtool").current_dir(&deploy).args(["test", "rules", "alerts.test.yml"]));
    let scene = Scene::new();
    for text in [well(&scene), ill(&scene)] {
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = command.spawn().unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
