//! Manual pages and completions: made from the declaration of the arguments, and complete.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::egret::binary;
use crate::support::process::{attempt, run};

/// The commands that `egret help` lists.
fn commands() -> Vec<String> {
    let help = run(Command::new(binary()).arg("--help"));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    // What a description is continued by is indented further.
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    names.filter_map(|rest| rest.split_whitespace().next().map(str::to_owned)).collect()
}

/// The long options in the help of a command.
fn options(command: &str) -> Vec<String> {
    let help = run(Command::new(binary()).args([command, "--help"]));
    let lines = help.lines().filter(|line| line.starts_with("  -") || line.starts_with("      --"));
    lines
        .filter_map(|line| line.split([' ', ',', '=', '[']).find(|word| word.starts_with("--")).map(str::to_owned))
        .collect()
}

#[test]
fn every_command_has_a_manual_page_with_every_option() {
    let folder = TempDir::new().unwrap();
    run(Command::new(binary()).arg("man").arg(folder.path()));
    let page =
        |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(page("egret.1").contains(".TH"));
    for command in commands().iter().filter(|command| *command != "help") {
        let text = page(&format!("egret-{command}.1")).replace("\\-", "-");
        for option in options(command) {
            assert!(text.contains(&option), "the page of {command} lacks {option}");
        }
    }
    let nested = page("egret-trust-fetch.1");
    assert!(nested.contains("egret"), "{nested}");
}

#[test]
fn a_completion_script_knows_every_command_and_is_taken_by_its_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(Command::new(binary()).args(["completions", shell]));
        let missing: Vec<_> = commands().into_iter().filter(|command| !script.contains(command)).collect();
        assert!(missing.is_empty(), "{shell} lacks {missing:?}");
    }
    let script = run(Command::new(binary()).args(["completions", "bash"]));
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success());
    let unknown = attempt(Command::new(binary()).args(["completions", "tcl"]));
    assert_eq!(unknown.status.code(), Some(2));
}
