//! systemd's own judgement of units; no systemd has to run.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::process::attempt;

/// What systemd may say of the unit, and why that is fine.
const ACCEPTED: &[&str] = &[
    // systemd older than 253 says so and keeps the line before, `Type=notify`: the unit tells.
    "Failed to parse service type, ignoring: notify-reload",
];

/// What systemd says of these units (name and text) together, without what is accepted. A drop-in has the folder in its name.
pub(crate) fn remarks(units: &[(String, String)]) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()));
    for (name, text) in units {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        if !name.contains('/') {
            command.arg(path);
        }
    }
    let output = attempt(&mut command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    // Of other units of this machine it may say what it likes.
    let own = said.lines().filter(|line| line.contains("egret"));
    let remarks: Vec<_> = own.filter(|line| !ACCEPTED.iter().any(|text| line.ends_with(text))).collect();
    assert!(output.status.success() || !remarks.is_empty(), "systemd-analyze verify: {}\n{said}", output.status);
    remarks.into_iter().map(str::to_owned).collect()
}

/// Whether systemd rates the sandbox of this text, as `egret.service`, at most 1.7 of 10: 0 is no exposure at all.
pub(crate) fn is_sandboxed(text: &str) -> bool {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("egret.service");
    fs::write(&path, text).unwrap();
    let mut command = Command::new("systemd-analyze");
    let output = attempt(command.args(["security", "--offline=true", "--no-pager", "--threshold=17"]).arg(&path));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Overall exposure level for egret.service"), "{output:?}");
    output.status.success()
}
