//! The counts that a release is compiled with: only the profile `dist`, only the compiler that made them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::process::{attempt, run, stub};

const HOST: &str = "x86_64-unknown-linux-gnu";

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// A compiler and a cargo that only say what they were asked.
struct Stubs(TempDir);

impl Stubs {
    fn of_compiler(version: &str) -> Self {
        let folder = TempDir::new().unwrap();
        stub(&folder.path().join("rustc"), &format!("echo '{version}'; [ \"$*\" = --version ] || echo 'host: {HOST}'"));
        stub(&folder.path().join("cargo"), r#"echo "flags $CARGO_ENCODED_RUSTFLAGS""#);
        Self(folder)
    }

    fn build(&self, words: &[&str]) -> Built {
        let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap());
        let mut build = Command::new(deploy("build"));
        build.args(words).env("PATH", path).env("CARGO_TARGET_DIR", self.0.path());
        for variable in ["RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_ENCODED_RUSTFLAGS"] {
            build.env_remove(variable);
        }
        let Output { status, stdout, stderr } = attempt(&mut build);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let compiled = |words: &[&str]| {
            let wrapper = self.0.path().join("rustc-without-paths");
            run(Command::new(wrapper).arg("echo").args(words))
        };
        Built {
            flags: String::from_utf8(stdout).unwrap(),
            warned: String::from_utf8(stderr).unwrap(),
            crates: compiled(&["--crate-name", "a", "--target", HOST]),
            build_scripts: compiled(&["--crate-name", "build_script_build"]),
        }
    }
}

struct Built {
    flags: String,
    warned: String,
    crates: String,
    build_scripts: String,
}

fn recorded_compiler() -> String {
    let text = fs::read_to_string(deploy("profile/compiler")).unwrap();
    text.trim_end().strip_suffix(HOST).expect("the host follows the version").trim_end().to_owned()
}

#[test]
fn a_release_is_compiled_with_the_counts_of_its_own_compiler_and_of_no_other() {
    let compiler = recorded_compiler();
    for (version, profile, guided, warned) in [
        (&*compiler, "dist", true, false),
        ("rustc 1.0.0 (an older one)", "dist", false, true),
        (&*compiler, "image-test", false, false),
        (&*compiler, "release", false, false),
    ] {
        let built = Stubs::of_compiler(version).build(&["--binary-only", profile]);
        let used = format!("-Cprofile-use={}", deploy("profile/egret.profdata").display());
        assert_eq!(built.crates.contains(&used), guided, "{version}, {profile}: {}", built.crates);
        assert_eq!(built.flags.contains("counts="), guided, "{version}, {profile}: {}", built.flags);
        assert_eq!(built.warned.contains("without deploy/profile"), warned, "{version}, {profile}: {}", built.warned);
        assert!(!built.build_scripts.contains("profile-use"), "{}", built.build_scripts);
        assert!(!built.flags.contains("profile"), "no path among what cargo sums up: {}", built.flags);
    }
}

#[test]
fn a_binary_that_counts_is_made_on_request_and_without_older_counts() {
    let folder = TempDir::new().unwrap();
    let stubs = Stubs::of_compiler(&recorded_compiler());
    let built = stubs.build(&["--recording", folder.path().to_str().unwrap()]);
    assert!(built.crates.contains(&format!("-Cprofile-generate={}", folder.path().display())), "{}", built.crates);
    assert!(!built.crates.contains("profile-use") && !built.build_scripts.contains("profile"), "{}", built.crates);
}

/// The format of LLVM begins with these bytes; an empty file, or one that git has changed, is none.
#[test]
fn the_counts_are_whole() {
    let counts = fs::read(deploy("profile/egret.profdata")).unwrap();
    assert_eq!(&counts[..8], b"\xfflprofi\x81");
    assert!(counts.len() > 100_000, "{} bytes", counts.len());
}
