//! `egret diff`: what a reload would touch, told before it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use time::Duration;

use crate::support::authority::{Ca, Wish};
use crate::support::egret::{Egret, listener};
use crate::support::fleet::{Fleet, Held};
use crate::support::{eventually, free_port};

const BASE: &str = "[identities.app]\ncertificate = 'app.crt'\nprivate_key = 'app.key'\n\
    [trust.house]\nroots = ['root.pem']\n\
    [upstreams.db]\nservers = ['db.example.com:5432']\ntls = { identity = 'app', trust = 'house' }\n\
    [upstreams.plain]\nservers = ['web.example.com:443']\ntls = { trust = 'house' }\n\
    [[listeners]]\nname = 'db'\nlisten = '127.0.0.1:5432'\nupstream = 'db'\n\
    [[listeners]]\nname = 'web'\nlisten = '127.0.0.1:8080'\nupstream = 'plain'\n";

/// A folder with `old.toml`, its certificates, and `new.toml`.
fn folder(new: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new("House Root");
    fs::write(folder.path().join("root.pem"), &ca.pem).unwrap();
    for name in ["app", "next"] {
        ca.leaf(&Wish { until: Duration::days(300), ..Wish::default() }).write(folder.path(), name);
    }
    fs::write(folder.path().join("old.toml"), BASE).unwrap();
    fs::write(folder.path().join("new.toml"), new).unwrap();
    folder
}

fn diff(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_egret")).current_dir(folder).arg("diff").args(arguments).output().unwrap()
}

/// Each change as "sign kind name", with the parts that differ.
fn changes(new: &str) -> Vec<String> {
    let folder = folder(new);
    let output = diff(folder.path(), &["old.toml", "new.toml", "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let list: Vec<String> = list.as_array().unwrap().iter().map(told).collect();
    assert_eq!(output.status.code(), Some(i32::from(!list.is_empty())));
    list
}

fn told(change: &Value) -> String {
    let text = |key: &str| change[key].as_str().unwrap().to_owned();
    let parts: Vec<_> = change["parts"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(!text("effect").is_empty());
    format!("{} {} {} {}", text("fate"), text("kind"), text("name"), parts.join(",")).trim_end().to_owned()
}

#[test]
fn the_same_is_nothing() {
    assert_eq!(changes(BASE), [""; 0]);
    assert_eq!(changes(&format!("# a comment\n{BASE}")), [""; 0]);
}

#[test]
fn a_rotated_identity_touches_its_origins_only() {
    assert_eq!(
        changes(&BASE.replace("'app.crt'", "'next.crt'").replace("'app.key'", "'next.key'")),
        ["changed identity app content", "changed origin db: db.example.com identity"]
    );
}

#[test]
fn time_limits_leave_tickets_alone() {
    let new = BASE.replace("tls = { identity", "idle_timeout = '5m'\ntls = { identity");
    assert_eq!(changes(&new), ["changed upstream db idle_timeout"]);
}

#[test]
fn whom_to_believe_touches_every_origin_that_believes_it() {
    let new = BASE.replace("roots = ['root.pem']", "roots = ['root.pem']\nnames = ['dns:a.example.com']");
    assert_eq!(
        changes(&new),
        [
            "changed trust house content",
            "changed origin db: db.example.com trust",
            "changed origin plain: web.example.com trust"
        ]
    );
}

#[test]
fn listeners_come_go_and_move() {
    let new = BASE.replace("127.0.0.1:8080", "127.0.0.1:8081").replace("name = 'db'", "name = 'sql'");
    assert_eq!(changes(&new), ["removed listener db", "added listener sql", "changed listener web listen"]);
    let new = BASE.replace("listen = '127.0.0.1:8080'", "listen = '127.0.0.1:8080'\nmax_connections = 7");
    assert_eq!(changes(&new), ["changed listener web max_connections"]);
    let folder = folder(&new);
    let text = String::from_utf8(diff(folder.path(), &["old.toml", "new.toml"]).stdout).unwrap();
    assert!(text.contains("~ listener web (max_connections)\n    keeps its socket"), "{text}");
}

#[test]
fn shelves_of_warm_connections_are_told() {
    let pool =
        |most: u32| BASE.replace("tls = { identity", &format!("pool = {{ max_idle = {most} }}\ntls = {{ identity"));
    assert_eq!(changes(&pool(4)), ["added shelf db"]);
    let folder = folder(&pool(2).replace("'app.crt'", "'next.crt'").replace("'app.key'", "'next.key'"));
    fs::write(folder.path().join("old.toml"), pool(4)).unwrap();
    let text = String::from_utf8(diff(folder.path(), &["old.toml", "new.toml"]).stdout).unwrap();
    for line in [
        "~ origin db: db.example.com (identity)\n    its tickets and warm connections (at most 4) are dropped at once",
        "~ shelf db (max_idle)\n    what is warm (at most 4) and of an unchanged origin is kept, up to 2 and to an age of 30.0 s",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn ways_that_have_no_origin_and_weights_are_told() {
    let passing = BASE.replace("tls = { trust = 'house' }", "passthrough = true");
    assert_eq!(changes(&passing), ["removed origin plain: web.example.com", "changed upstream plain passthrough"]);
    let more = BASE.replace("['db.example.com:5432']", "[{ address = 'db.example.com:5432', weight = 3 }]");
    assert_eq!(changes(&more), ["changed upstream db servers"]);
}

#[test]
fn what_cannot_be_compared_is_told() {
    let folder = folder("[upstreams");
    for arguments in [&["old.toml", "new.toml"][..], &["old.toml", "--admin", "127.0.0.1:1"], &["old.toml"]] {
        let output = diff(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn the_running_process_is_compared_with_a_file() {
    let folder = folder(BASE);
    let sections = "[upstreams.a]\nservers = ['127.0.0.1:9']\ntls = { server_name = 'a.example.com', trust = 'house' }\n\
                    [[listeners]]\nname = 'a'\nlisten = '127.0.0.1:0'\nupstream = 'a'\n";
    let trust = format!("[trust.house]\nroots = [{:?}]\n", folder.path().join("root.pem"));
    let egret = Egret::start(&format!("{trust}{sections}"));
    let file = egret.config();
    let admin = format!("unix:{}", file.with_file_name("admin.sock").display());
    let file = file.to_str().unwrap();
    let output = diff(folder.path(), &["--admin", &admin, file]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing would change\n", "{output:?}");
    let text = fs::read_to_string(file).unwrap().replace("a.example.com", "b.example.com");
    fs::write(folder.path().join("new.toml"), text).unwrap();
    let output = diff(folder.path(), &["--admin", &admin, "new.toml"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("- origin a: a.example.com") && text.contains("+ origin a: b.example.com"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lives_in_the_running_process_is_counted() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(1).await;
    let lines = format!("servers = ['{}']\npool = {{ min_idle = 2, max_idle = 2 }}\n", nodes[0].address);
    let sections = fleet.upstream(&lines) + &listener("in", free_port(), "fleet");
    let egret = tokio::task::block_in_place(|| Egret::start(&sections));
    let (_stream, _) = Held::open(egret.address("in")).await.unwrap();
    let file = egret.config();
    let admin = format!("unix:{}", file.with_file_name("admin.sock").display());
    let new = fs::read_to_string(&file).unwrap().replace("max_idle = 2", "max_idle = 3");
    let new = new.replace("[upstreams.fleet]", "pins_only = true\n[upstreams.fleet]").replace("roots = [", "pins = [");
    let new = new.lines().map(|line| if line.starts_with("pins = [") { PIN } else { line }).collect::<Vec<_>>();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("new.toml"), new.join("\n")).unwrap();
    let told = || String::from_utf8(diff(folder.path(), &["--admin", &admin, "new.toml"]).stdout).unwrap();
    let told = tokio::task::block_in_place(|| {
        let is_filled = |told: &String| told.contains(" and 2 warm connections are dropped at once");
        eventually("the pool to be full", || Some(told()).filter(is_filled))
    });
    for part in ["and 2 warm connections", "what is warm (2 of at most 2)", "its streams in flight (1) go on"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!told.contains("its 0 tickets"), "{told}");
}

const PIN: &str = "pins = ['sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=', \
                   'sha256/LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=']";
