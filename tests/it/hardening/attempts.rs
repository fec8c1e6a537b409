//! Attempts that egret makes from inside: refused with hardening, done without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libc::c_long;
use serde_json::Value;
use tempfile::TempDir;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, Settings, binary, listener};
use crate::support::process::{Process, attempt, guarded};
use crate::support::{eventually, free_port, http, plain};

use super::settings;
use super::support::{field, of_threads};

fn attempts(hardening: &str, attempts: &[String]) -> Settings {
    Settings { environment: vec![("EGRET_TEST_ATTEMPTS", attempts.join(" ").into())], ..settings(hardening) }
}

/// The result of an attempt, by the log.
fn result_in(log: &str, attempt: &str) -> Option<String> {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.find(|line| line["message"] == "attempt" && line["attempt"] == attempt)?;
    Some(line["result"].as_str().unwrap().to_owned())
}

fn result(egret: &Egret, attempt: &str) -> String {
    eventually(attempt, || result_in(&egret.log_text(), attempt))
}

/// EPERM, EACCES, ENOSYS.
fn is_refused(result: &str) -> bool {
    ["(os error 1)", "(os error 13)", "(os error 38)"].iter().any(|end| result.ends_with(end))
}

fn unix(path: &Path) -> String {
    format!("[[listeners]]\nlisten = \"unix:{}\"\nupstream = \"echo\"\n", path.display())
}

/// Landlock may be missing on the machine of the test.
fn has_landlock() -> bool {
    // LANDLOCK_CREATE_RULESET_VERSION
    let query = "import ctypes; exit(ctypes.CDLL(None).syscall(444, None, 0, 1) < 4)";
    attempt(Command::new("python3").args(["-c", query])).status.success()
}

#[test]
fn files_are_neither_written_nor_made_nor_removed_nor_executed() {
    if !has_landlock() {
        return;
    }
    let scene = Scene::new("");
    for hardening in ["on", "off"] {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["written", "removed"] {
            fs::write(path(name), "some").unwrap();
        }
        fs::create_dir(path("sockets")).unwrap();
        let refused = [
            format!("write:{}", path("written")),
            format!("create:{}", path("created")),
            format!("folder:{}", path("folder")),
            format!("link:{}", path("link")),
            format!("socket:{}", path("made.sock")),
            format!("remove:{}", path("removed")),
            "execute:/bin/true".to_owned(),
        ];
        let allowed = [
            format!("read:{}", path("written")),
            format!("socket:{}", path("sockets/made.sock")),
            format!("remove:{}", path("sockets/made.sock")),
        ];
        let sections = scene.upstream.clone() + &unix(&folder.path().join("sockets/app.sock"));
        let egret = Egret::start_with(attempts(hardening, &[&refused[..], &allowed].concat()), &sections);
        for attempt in &refused {
            let result = result(&egret, attempt);
            assert_eq!(is_refused(&result), hardening == "on", "{attempt} with {hardening}: {result}");
        }
        for attempt in &allowed {
            assert_eq!(result(&egret, attempt), "done", "{attempt} with {hardening}");
        }
        assert_eq!(folder.path().join("removed").exists(), hardening == "on");
    }
}

#[test]
fn forbidden_system_calls_fail_and_the_log_names_them() {
    let scene = Scene::new("");
    // Without hardening they fail for another reason, or do nothing: their arguments are none.
    let forbidden: [(&str, c_long, &str); 9] = [
        ("execve", libc::SYS_execve, "0"),
        ("ptrace", libc::SYS_ptrace, "16902,0"),
        ("process_vm_readv", libc::SYS_process_vm_readv, "0"),
        ("unshare", libc::SYS_unshare, "0"),
        ("setns", libc::SYS_setns, "-1"),
        ("add_key", libc::SYS_add_key, "0"),
        ("kcmp", libc::SYS_kcmp, "0,0"),
        ("setuid", libc::SYS_setuid, "-1"),
        ("personality", libc::SYS_personality, "4294967295"),
    ];
    let absent: [(c_long, &str); 1] = [(libc::SYS_clone3, "0,0")];
    let calls: Vec<String> = forbidden.iter().map(|(_, number, rest)| format!("call:{number},{rest}")).collect();
    let absent: Vec<String> = absent.iter().map(|(number, rest)| format!("call:{number},{rest}")).collect();
    for hardening in ["on", "off"] {
        let sections = scene.upstream.clone() + &listener("echo", 0, "echo");
        let egret = Egret::start_with(attempts(hardening, &[&calls[..], &absent].concat()), &sections);
        for call in calls.iter().chain(&absent) {
            let result = result(&egret, call);
            assert_eq!(is_refused(&result), hardening == "on", "{call} with {hardening}: {result}");
        }
        let named = |name: &str| {
            let is_it = |line: &Value| {
                line["call"] == name && line["message"].as_str().is_some_and(|text| text.starts_with("forbidden"))
            };
            egret.log().iter().any(is_it)
        };
        for (name, ..) in forbidden.iter().filter(|_| hardening == "on") {
            eventually(&format!("a line about {name}"), || named(name).then_some(()));
        }
        assert_eq!(named("execve"), hardening == "on");
        assert!(echoes(&mut plain::connect(egret.address("echo"))), "streams go on");
    }
}

#[test]
fn ports_are_those_of_the_arguments_where_no_file_can_bring_others() {
    if !has_landlock() {
        return;
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!("connect:{}", server.local_addr().unwrap());
    let listen = format!("listen:127.0.0.1:{}", free_port());
    let asked = [connect.clone(), listen.clone()].join(" ");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("egret.toml");
    fs::write(&file, "[log]\nformat = \"json\"\n[upstreams.u]\nservers = [\"127.0.0.1:1\"]\n[[listeners]]\nlisten = \"127.0.0.1:0\"\nupstream = \"u\"\n").unwrap();
    let line = ["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--log", "json"].map(PathBuf::from);
    for (name, arguments, refused) in [("line", &line[..], true), ("file", std::slice::from_ref(&file), false)] {
        let mut command = guarded(binary());
        command.arg("run").args(arguments).env("EGRET_TEST_ATTEMPTS", &asked);
        let process = Process::spawn("egret", command, &folder.path().join(name));
        for attempt in [&connect, &listen] {
            let result = eventually(attempt, || result_in(&process.output(), attempt));
            assert_eq!(is_refused(&result), refused, "{attempt} by {name}: {result}");
        }
    }
}

#[test]
fn reload_with_a_socket_in_a_new_folder_says_that_it_needs_a_restart() {
    if !has_landlock() {
        return;
    }
    let scene = Scene::new("");
    let known = TempDir::new().unwrap();
    let new = TempDir::new().unwrap();
    let first = scene.upstream + &listener("echo", 0, "echo") + &unix(&known.path().join("one.sock"));
    let egret = Egret::start(&first);
    // In the folder of the first one it needs none; nor does a new port.
    let second = first + &unix(&known.path().join("two.sock")) + &listener("other", 0, "echo");
    egret.rewrite(&second);
    assert!(egret.reload(), "{}", egret.log_text());
    assert!(echoes(&mut plain::connect(egret.address("other"))));
    let third = second + &unix(&new.path().join("three.sock"));
    egret.rewrite(&third);
    assert!(!egret.reload());
    egret.wait_for_log("the reason", |line| {
        let detail = line["detail"].as_str().unwrap_or_default();
        line["reason"] == "bind_failed" && detail.contains("three.sock") && detail.contains("restart egret")
    });
    assert!(echoes(&mut plain::connect(egret.address("echo"))));
    drop(egret);
    let restarted = Egret::start(&third);
    assert!(new.path().join("three.sock").exists(), "{}", restarted.log_text());
}

/// Runs a program under a filter for which the calls of Landlock do not exist, as older kernels and some sandboxes have it.
const WITHOUT_LANDLOCK: &str = r"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
lines = [(0x20, 0, 0, 0)]
lines += [line for number in (444, 445, 446) for line in ((0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | 38))]
lines += [(0x06, 0, 0, 0x7fff0000)]
code = b''.join(struct.pack('HBBI', *line) for line in lines)
buffer = ctypes.create_string_buffer(code)
program = struct.pack('HxxxxxxP', len(lines), ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn kernel_without_landlock_gets_the_rest_and_says_so() {
    let folder = TempDir::new().unwrap();
    let admin = folder.path().join("admin.sock");
    let mut command = guarded("python3");
    command.args(["-c", WITHOUT_LANDLOCK]).arg(binary()).args(["run", "--log", "json"]);
    command.args(["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--admin"]);
    command.arg(format!("unix:{}", admin.display()));
    let mut process = Process::spawn("egret", command, &folder.path().join("log"));
    process.wait_for_output("admin listening");
    let status: Value = serde_json::from_str(&http::admin(&admin, "GET", "/status").body).unwrap();
    let hardening = &status["hardening"];
    for missing in ["files", "ports", "scopes"] {
        assert!(hardening["missing"][missing].as_str().is_some_and(|why| why.contains("Landlock")), "{hardening}");
    }
    let in_force: Vec<_> = hardening["in_force"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(in_force, ["no_new_privileges", "not_dumpable", "capabilities", "system_calls"]);
    assert!(process.output().contains("\"missing\":\"files: "), "{}", process.output());
}

#[test]
fn program_of_exec_has_what_egret_was_started_with() {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let fields = ["NoNewPrivs", "Seccomp", "CapEff", "CapPrm", "CapBnd", "SigBlk", "Cpus_allowed"];
    let folder = TempDir::new().unwrap();
    // It uses what egret may not: another program, a file that it writes.
    let script = format!("cat /proc/self/status > {0}/status && grep -c . {0}/status", folder.path().display());
    let mut command = guarded(binary());
    command.args(["exec", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--", "sh", "-c", &script]);
    let output = attempt(&mut command);
    assert!(output.status.success(), "{output:?}");
    let program = fs::read_to_string(folder.path().join("status")).unwrap();
    for name in fields.into_iter().filter(|name| *name != "SigBlk") {
        assert_eq!(field(&program, name), field(&own, name), "{name}");
    }
    assert_eq!(field(&program, "SigBlk"), "0".repeat(16));
}

#[test]
fn egret_beside_a_program_is_restricted_like_any_other() {
    let folder = TempDir::new().unwrap();
    let mut command = guarded(binary());
    command.args(["exec", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--", "sleep", "60"]);
    let mut process = Process::spawn("egret", command, &folder.path().join("log"));
    process.wait_for_output("program started");
    assert_eq!(of_threads(process.pid(), "NoNewPrivs").into_iter().collect::<Vec<_>>(), ["1"]);
    assert_eq!(of_threads(process.pid(), "Seccomp").into_iter().collect::<Vec<_>>(), ["2"]);
    // The program gets signals all the same.
    process.signal(rustix::process::Signal::TERM);
    let ended = process.wait(crate::support::PATIENCE).unwrap();
    assert_eq!(ended.code(), Some(128 + 15), "{}", process.output());
}
