//! `egret exec`: a program beside the proxy, with egret as process 1 of a PID namespace where that matters.

mod signals;
mod support;
mod terminal;
mod wait;

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::egret::binary;
use crate::support::process::attempt;
use crate::support::{eventually, plain};
use support::{Place, Stage};

/// Each is run as process 1, and as a process among others.
const PLACES: [Place; 3] = [Place::Init, Place::Outside, Place::Ignoring];

#[test]
fn the_exit_code_is_that_of_the_program() {
    let stage = Stage::new();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
        ("kill -HUP $$", 129),
        ("exec sh -c 'exit 3'", 3),
    ] {
        for place in PLACES {
            let mut exec = stage.exec(place, &[], &["sh", "-c", script]);
            assert_eq!(exec.wait(), Some(code), "{script} {place:?}\n{}", exec.output());
        }
    }
}

#[test]
fn a_program_that_cannot_be_started_has_the_exit_code_of_shells() {
    let stage = Stage::new();
    let plain_file = stage.file("no-program", "echo never\n");
    let broken = stage.file("broken", "\u{7f}ELF");
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (program, code, reason) in [
        ("/nowhere/at-all", 127, "program_not_found"),
        ("no-such-program-in-the-path", 127, "program_not_found"),
        ("/", 126, "program_not_executable"),
        (plain_file.to_str().unwrap(), 126, "program_not_executable"),
        (broken.to_str().unwrap(), 126, "program_not_executable"),
    ] {
        let mut exec = stage.exec(Place::Outside, &[], &[program]);
        assert_eq!(exec.wait(), Some(code), "{program}\n{}", exec.output());
        exec.has_line(|line| line["reason"] == reason);
    }
}

#[test]
fn failures_of_egret_have_a_code_of_their_own_and_no_program_is_started() {
    let stage = Stage::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = stage.config();
    let config = config.to_str().unwrap();
    let taken_text = fs::read_to_string(config).unwrap().replace("127.0.0.1:0", &address);
    let taken_config = stage.file("taken.toml", &taken_text);
    let taken_config = taken_config.to_str().unwrap();
    let cases: [(&str, &[&str]); 9] = [
        ("unknown reference", &["--config", config, "--env", "A={listener.nobody}"]),
        ("reference to a path of TCP", &["--config", config, "--env", "A={listener.app.path}"]),
        ("unknown upstream", &["--config", config, "--wait-upstreams=app,nobody"]),
        ("no configuration", &["--config", "/nowhere.toml"]),
        ("bad arguments", &["--listen", "127.0.0.1:0", "--to", "no-port"]),
        ("an address that is taken", &["--listen", &address, "--to", "a.example.com:443"]),
        ("an address that is taken, with an admin address", &["--config", taken_config]),
        ("a brace", &["--config", config, "--env", "A={"]),
        ("no such flag", &["--config", config, "--no-such-flag"]),
    ];
    for (what, arguments) in cases {
        let mark = stage.folder().join("started");
        let mut command = std::process::Command::new(binary());
        command.arg("exec").args(arguments).arg("--").arg("touch").arg(&mark);
        let output = attempt(&mut command);
        assert_eq!(output.status.code(), Some(125), "{what}: {output:?}");
        assert!(!mark.exists(), "{what}");
    }
}

/// `(... &)` makes a grandchild whose parent ends at once.
#[test]
fn orphans_are_reaped() {
    let stage = Stage::new();
    let script = "
        me=$PPID
        (sh -c 'sleep 0.2; echo adopted by $(cut -d\" \" -f4 /proc/$$/stat) of $0' $me &)
        i=0; while [ $i -lt 1000 ]; do (true &); i=$((i+1)); done
        while :; do
            left=0
            for status in $(cat /proc/$me/task/*/children); do
                [ -e /proc/$status/stat ] && [ \"$(cut -d' ' -f3 /proc/$status/stat 2>/dev/null)\" = Z ] && left=$((left+1))
            done
            [ $left = 0 ] && break; sleep 0.05
        done
        sleep 0.5
        echo zombies $left
    ";
    for place in PLACES {
        let mut exec = stage.exec(place, &[], &["sh", "-c", script]);
        assert_eq!(exec.wait(), Some(0), "{place:?}\n{}", exec.output());
        let output = exec.output();
        assert!(output.contains("zombies 0"), "{place:?}\n{output}");
        let adopted =
            output.lines().find_map(|line| line.strip_prefix("adopted by ")).expect("an orphan that was asked");
        let (parent, egret) = adopted.split_once(" of ").unwrap();
        assert_eq!(parent, egret, "{place:?}: the orphan is not egret's");
    }
}

#[test]
fn sigterm_ends_the_program_and_the_streams_within_the_drain() {
    let stage = Stage::new();
    for place in PLACES {
        let mut exec = stage.exec(place, &[], &["sleep", "1000"]);
        let mut stream = plain::connect(exec.address("app"));
        assert!(crate::lifecycle::echoes(&mut stream));
        exec.has_line(|line| line["message"] == "program started");
        exec.signal(Signal::TERM);
        // The stream is held: the drain of a second has to end it.
        assert_eq!(exec.wait(), Some(143), "{place:?}\n{}", exec.output());
        exec.has_line(|line| line["ended"] == "drained");
    }
}

#[test]
fn streams_go_on_while_the_program_stops() {
    let stage = Stage::new();
    let script = "trap 'echo asked; read line <\"$0\"; exit 5' TERM; echo set; while :; do sleep 0.05; done";
    let fifo = stage.fifo();
    let mut exec = stage.exec(Place::Init, &[], &["sh", "-c", script, &fifo]);
    exec.wait_for("set");
    exec.signal(Signal::TERM);
    exec.wait_for("asked");
    // A program may need a new connection to end well.
    let mut stream = plain::connect(exec.address("app"));
    assert!(crate::lifecycle::echoes(&mut stream), "{}", exec.output());
    drop(stream);
    fs::write(&fifo, "go on\n").unwrap();
    assert_eq!(exec.wait(), Some(5), "{}", exec.output());
}

#[test]
fn a_drain_by_the_admin_endpoint_stops_the_program_first() {
    let stage = Stage::new();
    let mut exec = stage.exec(Place::Outside, &[], &["sleep", "1000"]);
    exec.has_line(|line| line["message"] == "program started");
    assert_eq!(exec.admin("POST", "/drain").status, 202);
    assert_eq!(exec.wait(), Some(143), "{}", exec.output());
}

#[cfg(debug_assertions)]
#[test]
fn if_egret_cannot_go_on_the_program_is_stopped() {
    let stage = Stage::new();
    for (task, script) in
        [("main", "exec sleep 1000"), ("main", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")]
    {
        let mut exec =
            stage.exec_with(Place::Outside, &[], &["sh", "-c", script], &[("EGRET_TEST_PANICS", &format!("{task}=1"))]);
        assert_eq!(exec.wait(), Some(125), "{script}\n{}", exec.output());
        exec.has_line(|line| line["message"] == "program ended");
    }
}

#[test]
fn the_program_gets_its_environment_and_the_limits_that_egret_got() {
    let stage = Stage::new();
    let script = "echo url $URL brace $BRACE; echo notify [$NOTIFY_SOCKET$WATCHDOG_USEC]; echo files $(ulimit -Sn)";
    let limited = "ulimit -Sn 300; exec \"$0\" \"$@\"";
    let config = stage.config();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", limited]).arg(binary()).args(["exec", "--config"]).arg(&config);
    command.args(["--env", "URL=app://{listener.app.host}:{listener.app.port}/x", "--env", "BRACE={{}}"]);
    command.args(["--", "sh", "-c", script]).env("WATCHDOG_USEC", "60000000").env("URL", "old");
    let output = attempt(&mut command);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let listening = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let address = listening.into_iter().find(|line| line["message"] == "listening").expect(&log)["address"].clone();
    let wanted = format!("url app://{}/x brace {{}}", address.as_str().unwrap());
    assert!(told.contains(&wanted), "{told}\n{wanted}");
    assert!(told.contains("notify []"), "{told}");
    assert!(told.contains("files 300"), "{told}");
}

#[test]
fn a_second_stop_ends_the_drain_that_follows_the_program() {
    let stage = Stage::with_drain("10m");
    let fifo = stage.fifo();
    let mut exec = stage.exec(Place::Outside, &[], &["sh", "-c", "read line <\"$0\"; exit 3", &fifo]);
    let mut stream = plain::connect(exec.address("app"));
    assert!(crate::lifecycle::echoes(&mut stream));
    fs::write(&fifo, "end\n").unwrap();
    exec.has_line(|line| line["message"] == "draining");
    exec.signal(Signal::TERM);
    assert_eq!(exec.wait_for_exit(Duration::from_millis(300)), None, "it drains");
    let code = eventually("the end", || {
        exec.signal(Signal::TERM);
        exec.wait_for_exit(Duration::from_millis(100))
    });
    assert_eq!(code, 3, "{}", exec.output());
}
