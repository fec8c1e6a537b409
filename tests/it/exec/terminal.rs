//! The terminal belongs to the program.

use std::process::Command;

use super::support::Stage;
use crate::support::egret::binary;
use crate::support::process::attempt;

/// Runs what `sys.argv` holds on a terminal of its own, as a job of a shell or as the leader of the session. Types `typed`
/// once `ready` is on the screen. Prints the screen and the exit code.
const TERMINAL: &str = r#"
import os, pty, sys, select, signal
signal.alarm(60)
ready, typed, *command = sys.argv[1:]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
screen, sent = b'', False
while True:
    try:
        piece = os.read(fd, 4096)
    except OSError:
        break
    if not piece:
        break
    screen += piece
    if not sent and ready.encode() in screen:
        os.write(fd, typed.encode().decode('unicode_escape').encode())
        sent = True
_, status = os.waitpid(pid, 0)
sys.stdout.write(screen.decode(errors='replace'))
print('code', os.waitstatus_to_exitcode(status))
"#;

fn on_a_terminal(ready: &str, typed: &str, command: &[&str]) -> String {
    let mut python = Command::new("python3");
    python.args(["-c", TERMINAL, ready, typed]).args(command);
    let output = attempt(&mut python);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn exec(stage: &Stage, script: &str) -> String {
    let quoted = script.replace('\'', "'\\''");
    format!("{} exec --config {} -- sh -c '{quoted}'", binary().display(), stage.config().display())
}

const WHO: &str = "echo group $(cut -d' ' -f5,8 /proc/$$/stat)";

fn assert_in_foreground(screen: &str) {
    let line = screen.lines().find_map(|line| line.trim().strip_prefix("group ")).expect(screen);
    let (group, foreground) = line.split_once(' ').expect(screen);
    assert_eq!(group, foreground, "{screen}");
}

#[test]
fn the_program_is_in_the_foreground_and_can_read() {
    let stage = Stage::new();
    let script = format!("{WHO}; echo ready; read line; echo typed $line; exit 4");
    let whole = exec(&stage, &script);
    // As the leader of the session, as a command of a script that goes on to read, as a job of an interactive shell.
    for command in [
        &["sh", "-c", &format!("exec {whole}")][..],
        &["sh", "-c", &format!("{whole}; code=$?; read rest; echo rest $rest; exit $code")],
        &["bash", "--norc", "-ic", &format!("{whole}; exit $?")],
    ] {
        let screen = on_a_terminal("ready", "one\\ntwo\\n", command);
        assert_in_foreground(&screen);
        assert!(screen.contains("typed one"), "{screen}");
        assert!(screen.contains("code 4"), "{screen}");
        if command.iter().any(|word| word.contains("read rest")) {
            assert!(screen.contains("rest two"), "the script does not get the terminal back: {screen}");
        }
    }
}

#[test]
fn keys_of_the_terminal_signal_the_program_once() {
    let stage = Stage::new();
    let script = "trap 'echo caught' INT; echo ready; sleep 1; sleep 0.2; echo end; exit 6";
    let whole = exec(&stage, script);
    let screen = on_a_terminal("ready", "\\x03", &["sh", "-c", &format!("exec {whole}")]);
    assert_eq!(screen.matches("caught").count(), 1, "{screen}");
    assert!(screen.contains("end") && screen.contains("code 6"), "{screen}");
}

#[test]
fn a_job_that_is_stopped_goes_on_when_its_shell_says_so() {
    let stage = Stage::new();
    let script = format!("echo ready; read line; {WHO}; echo typed $line; exit 4");
    let whole = exec(&stage, &script);
    // Ctrl-Z stops egret and the program: the shell goes on, and takes them back into the foreground.
    let shell = format!("set -m; {whole}; echo stopped $?; fg >/dev/null; echo code of the job $?");
    let screen = on_a_terminal("ready", "\\x1aone\\n", &["bash", "--norc", "-c", &shell]);
    assert!(screen.contains("stopped 147") || screen.contains("stopped 148"), "{screen}");
    assert!(screen.contains("typed one") && screen.contains("code of the job 4"), "{screen}");
    assert_in_foreground(&screen);
    // Without a shell there is nobody to continue it.
    let screen = on_a_terminal("ready", "\\x1aone\\n", &["sh", "-c", &format!("exec {whole}")]);
    assert!(screen.contains("typed one") && screen.contains("code 4"), "{screen}");
}

#[test]
fn the_next_program_of_a_pipeline_keeps_the_terminal() {
    let stage = Stage::new();
    let whole = exec(&stage, "echo out");
    let reads = "{ read piped; read line </dev/tty; echo typed $line after $piped; }";
    let screen = on_a_terminal("listening", "one\\n", &["sh", "-c", &format!("{whole} | {reads}")]);
    assert!(screen.contains("typed one after out"), "{screen}");
}
