//! A log in JSON: every line of stderr is an object, from the first byte to the last.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::{Program, run};
use crate::lifecycle::Scene;

fn objects(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")));
    let objects: Vec<Value> = lines.collect();
    assert!(objects.iter().all(|object| object["level"].is_string() && object["message"].is_string()), "{text}");
    objects
}

#[test]
fn a_start_that_fails_says_so_in_json() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let tunnel =
        "[upstreams.a]\nservers = [\"a.example.com:443\"]\n[[listeners]]\nlisten = \"127.0.0.1:0\"\nupstream = \"a\"\n";
    let wrong_key = file("key.toml", &("nonsense = 1\n".to_owned() + tunnel));
    let wrong_syntax = file("syntax.toml", "[upstreams\n");
    let by_file = file("file.toml", &("nonsense = 1\n[log]\nformat = \"json\"\n".to_owned() + tunnel));
    let missing = folder.path().join("missing.toml").display().to_string();
    let no_roots = file(
        "roots.toml",
        &tunnel.replace("[[listeners]]", "tls = { trust = \"t\" }\n[trust.t]\nroots = [\"none.pem\"]\n[[listeners]]"),
    );
    let good = file("good.toml", tunnel);
    let loose = file("loose.keys", "");
    let json = ["--log", "json"];
    let starts: [(&str, Vec<&str>, i32); 8] = [
        ("an unknown key", [&[wrong_key.as_str()], &json[..]].concat(), 2),
        ("broken syntax", [&[wrong_syntax.as_str()], &json[..]].concat(), 2),
        ("no file", [&[missing.as_str()], &json[..]].concat(), 2),
        ("the file asks for JSON", vec![by_file.as_str()], 2),
        ("roots that are missing", [&[no_roots.as_str(), "--strict"], &json[..]].concat(), 2),
        ("an argument that is unknown", vec![&good, "--nonsense", "--log=json"], 2),
        ("an argument without its value", vec!["--log", "json", &good, "--key-log"], 2),
        ("a key log that others may read", [&[good.as_str(), "--key-log", &loose], &json[..]].concat(), 1),
    ];
    for (what, arguments, code) in starts {
        let (exit, text) = run(&arguments);
        assert_eq!(exit, Some(code), "{what}: {text}");
        assert!(objects(&text).iter().any(|object| object["level"] == "ERROR"), "{what}: {text}");
    }
}

#[test]
fn a_problem_has_its_place_and_its_repair() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("egret.toml");
    fs::write(&file, "drain_timeout = \"soon\"\n").unwrap();
    let (_, text) = run(&[file.to_str().unwrap(), "--log", "json"]);
    let problem = objects(&text).into_iter().find(|object| object["line"] == 1).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(problem["reason"], "configuration_invalid");
    assert_eq!(problem["file"], file.to_str().unwrap());
    assert!(problem["column"].is_u64() && problem["repair"].is_string(), "{problem}");
}

#[test]
fn advice_a_rejected_reload_and_the_end_are_json() {
    let scene = Scene::new("");
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let unused = format!("[trust.unused]\nroots = [{:?}]\n", scene.pki.root());
    let stderr = fs::File::create(&log).unwrap();
    let mut egret = Program::start_with(&scene, &unused, &["--log", "json"], stderr, |_| {});
    egret.works("json");
    fs::write(egret.config(), "nonsense = 1").unwrap();
    assert_eq!(egret.admin("POST", "/reload").status, 422);
    assert_eq!(egret.stop(), Some(0));
    let lines = objects(&fs::read_to_string(&log).unwrap());
    assert!(lines.iter().any(|line| line["code"].is_string() && line["repair"].is_string()), "no advice: {lines:?}");
    assert!(lines.iter().any(|line| line["message"].as_str().unwrap().starts_with("kept generation")), "{lines:?}");
    let connection = lines.iter().find(|line| line["message"] == "connection").unwrap();
    for (field, scale) in [("seconds", 1e6), ("ready_ms", 1e3), ("first_byte_ms", 1e3)] {
        let microseconds = connection[field].as_f64().unwrap() * scale;
        assert!((microseconds - microseconds.round()).abs() < 1e-3, "{field}: {connection}");
    }
}
