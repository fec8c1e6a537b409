//! Lines for the journal of systemd begin with their priority.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::egret::binary;

/// What egret writes to a file that is the journal's stream, or another one, when it cannot start.
fn written(format: &str, is_journal: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stream");
    let stream = File::create(&path).unwrap();
    let metadata = stream.metadata().unwrap();
    let inode = if is_journal { metadata.ino() } else { metadata.ino() + 1 };
    let mut command = Command::new(binary());
    command.args(["run", "--listen", "192.0.2.1:1", "--allow", "192.0.2.0/24", "--to", "server.example.com:443"]);
    command.args(["--log", format]).env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()));
    let status = command.stderr(stream).status().unwrap();
    assert_eq!(status.code(), Some(1), "an address that is not of this machine");
    fs::read_to_string(&path).unwrap()
}

#[test]
fn each_line_has_the_priority_of_its_level() {
    for format in ["text", "json"] {
        let text = written(format, true);
        let line =
            |with: &str| text.lines().find(|line| line.contains(with)).unwrap_or_else(|| panic!("{with}: {text}"));
        assert!(line("memory budget").starts_with("<6>"), "{text}");
        assert!(line("bind_failed").starts_with("<3>"), "{text}");
        let rest = &line("bind_failed")[3..];
        assert!(rest.starts_with(if format == "json" { "{" } else { "2" }), "{text}");
    }
}

#[test]
fn a_stream_that_is_not_the_journals_gets_lines_as_they_are() {
    for format in ["text", "json"] {
        let text = written(format, false);
        assert!(text.contains("bind_failed") && !text.lines().any(|line| line.starts_with('<')), "{text}");
    }
}
