//! Signals that egret gets are for the program.

use super::support::{Place, Stage};

/// Prints each signal that it gets, and ends with egret (PR_SET_PDEATHSIG).
const LISTENER: &str = "
import ctypes, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
def got(number, frame):
    print('got', number, flush=True)
for number in map(int, sys.argv[1:]):
    signal.signal(number, got)
print('set', flush=True)
while True:
    signal.pause()
";

/// All that Linux has and egret forwards: see docs/entrypoint.md.
fn forwarded() -> Vec<i32> {
    let named = [1, 2, 3, 10, 12, 14, 15, 16, 18, 20, 23, 24, 25, 26, 27, 28, 29, 30];
    named.into_iter().chain(34..=64).collect()
}

#[test]
fn every_signal_that_can_be_caught_reaches_the_program() {
    let stage = Stage::new();
    let numbers = forwarded();
    let words: Vec<String> = numbers.iter().map(i32::to_string).collect();
    let mut program = vec!["python3", "-c", LISTENER];
    program.extend(words.iter().map(String::as_str));
    for place in super::PLACES {
        let mut exec = stage.exec(place, &[], &program);
        exec.wait_for("set\n");
        for number in &numbers {
            exec.signal_number(*number);
            exec.wait_for(&format!("got {number}\n"));
        }
        exec.signal_number(1);
        let output = exec.output();
        assert_eq!(output.matches("got 15\n").count(), 1, "{output}");
        assert!(exec.wait_for_exit(std::time::Duration::ZERO).is_none(), "egret itself goes on");
    }
}

#[test]
fn sigterm_becomes_the_stop_signal() {
    let stage = Stage::new();
    for (stop, number) in [("QUIT", 3), ("SIGUSR1", 10), ("RTMIN+3", 37)] {
        let mut exec =
            stage.exec(Place::Init, &["--stop-signal", stop], &["python3", "-c", LISTENER, "15", &number.to_string()]);
        exec.wait_for("set\n");
        exec.signal_number(15);
        exec.wait_for(&format!("got {number}\n"));
        assert!(!exec.output().contains("got 15"), "{}", exec.output());
    }
    let mut killed = stage.exec(Place::Init, &["--stop-signal", "KILL"], &["python3", "-c", LISTENER, "15"]);
    killed.wait_for("set\n");
    killed.signal_number(15);
    assert_eq!(killed.wait(), Some(137), "{}", killed.output());
}
