//! The crate as `cargo package` makes it: complete, and small enough for a registry. `deploy/crate` compiles and installs it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::process::run;

/// Bytes that crates.io takes.
const LARGEST: u64 = 10 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo(arguments: &[&str], folder: &Path) -> String {
    run(Command::new(env!("CARGO")).args(arguments).current_dir(folder))
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The paths that a source takes in when it is compiled, besides its modules.
fn included(source: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(source).unwrap();
    let after = ["include_str!(\"", "include_bytes!(\"", "include!(\"", "#[path = \""];
    let names = after.iter().flat_map(|start| text.split(start).skip(1)).filter_map(|rest| rest.split('"').next());
    names.map(|name| plain(&source.parent().unwrap().join(name))).collect()
}

/// Without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
        plain
    })
}

#[test]
fn packaged_crate_has_every_file_that_it_is_compiled_from() {
    let target = TempDir::new().unwrap();
    let to = target.path().to_str().unwrap();
    cargo(&["package", "--locked", "--offline", "--no-verify", "--allow-dirty", "--quiet", "--target-dir", to], root());
    let version = env!("CARGO_PKG_VERSION");
    let archive = target.path().join(format!("package/egret-{version}.crate"));
    assert!(fs::metadata(&archive).unwrap().len() <= LARGEST);
    run(Command::new("tar").arg("-C").arg(target.path()).arg("-xzf").arg(&archive));
    let unpacked = target.path().join(format!("egret-{version}"));

    let inside = |path: &Path, above: &Path| path.strip_prefix(above).unwrap().to_owned();
    let packaged: BTreeSet<_> = files(&unpacked).iter().map(|path| inside(path, &unpacked)).collect();
    let mut needed: BTreeSet<_> = files(&root().join("src")).into_iter().collect();
    let more: Vec<_> = needed.iter().flat_map(|source| included(source)).collect();
    assert!(!more.is_empty(), "no included file was found");
    needed.extend(more);
    for name in ["Cargo.lock", "README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "config/egret.toml"] {
        needed.insert(root().join(name));
    }
    let missing: Vec<_> =
        needed.iter().map(|path| inside(path, root())).filter(|path| !packaged.contains(path)).collect();
    assert!(missing.is_empty(), "cargo package leaves out {missing:?}");
    for folder in [".ci", "target"] {
        assert!(!packaged.iter().any(|path| path.starts_with(folder)), "{folder} is in the package");
    }

    // It is a workspace of its own, with its lock file and each of its targets.
    let metadata = cargo(&["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"], &unpacked);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    for target in metadata["packages"][0]["targets"].as_array().unwrap() {
        let source = target["src_path"].as_str().unwrap();
        assert!(Path::new(source).starts_with(&unpacked) && Path::new(source).is_file(), "{source}");
    }
}
