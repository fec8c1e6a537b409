//! egret's own certificate and key when they cannot be used: the file is named, with what is wrong and since
//! when, at start and at reload. With `--strict` nothing else starts, and a reload keeps all that runs; without it,
//! see `parts`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::reload::{Scene, seen};
use crate::support::egret::{Egret, Settings, egret, listener};
use crate::support::free_port;
use crate::support::pki::{Leaf, Pair, Pki, replace};
use crate::support::process::run;

/// A way in which the files of an identity can be wrong.
struct Spoiled {
    class: &'static str,
    /// Makes them so.
    spoil: fn(&Pki, &Pair),
    /// The file that is to blame.
    file: fn(&Pair) -> &Path,
    /// What is said of it.
    says: fn(&Pair) -> String,
}

const WAYS: &[Spoiled] = &[
    Spoiled {
        class: "identity_key_mismatch",
        spoil: |pki, pair| replace(&pair.key, &fs::read_to_string(pki.client("other").key).unwrap(), 0o600),
        file: |pair| &pair.certificate,
        says: |pair| format!("holds another certificate than that of the private key in {}", pair.key.display()),
    },
    Spoiled {
        class: "identity_expired",
        spoil: |pki, pair| {
            let stem = pair.certificate.file_stem().unwrap().to_str().unwrap();
            pki.issue(stem, &Leaf { common_name: "app", names: &[], valid: (-30, -EXPIRED_FOR_DAYS) });
        },
        file: |pair| &pair.certificate,
        says: |_| format!("holds a certificate (\"CN=app\") that expired on {}", days_ago(EXPIRED_FOR_DAYS)),
    },
    Spoiled {
        class: "identity_unreadable",
        spoil: |_, pair| fs::remove_file(&pair.key).unwrap(),
        file: |pair| &pair.key,
        says: |_| "cannot be read: No such file or directory".to_owned(),
    },
    Spoiled {
        class: "identity_unreadable",
        spoil: |_, pair| {
            fs::remove_file(&pair.certificate).unwrap();
            fs::create_dir(&pair.certificate).unwrap();
        },
        file: |pair| &pair.certificate,
        says: |_| "cannot be read: it is a folder".to_owned(),
    },
    Spoiled {
        class: "identity_password",
        spoil: |_, pair| encrypt(&pair.key),
        file: |pair| &pair.key,
        says: |_| "is encrypted: name the file with its password as `password_file`".to_owned(),
    },
];

const EXPIRED_FOR_DAYS: i64 = 3;

fn days_ago(days: i64) -> String {
    (OffsetDateTime::now_utc() - Duration::days(days)).date().to_string()
}

fn encrypt(key: &Path) {
    let mut command = Command::new("openssl");
    command.args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:secret", "-in"]).arg(key);
    let sealed = run(&mut command);
    assert!(sealed.contains("ENCRYPTED"), "{sealed}");
    replace(key, &sealed, 0o600);
}

/// A client's certificate with its key, as they should be.
fn whole(pki: &Pki, stem: &str) -> Pair {
    pki.issue(stem, &Leaf { common_name: "app", names: &[], valid: (-30, 90) })
}

fn strict() -> Settings {
    Settings { arguments: vec!["--strict".to_owned()], ..Settings::default() }
}

fn write(folder: &TempDir, sections: &str) -> PathBuf {
    let config = folder.path().join("egret.toml");
    fs::write(&config, sections).unwrap();
    config
}

#[test]
fn start_and_check_name_the_file_and_what_is_wrong_with_it() {
    let scene = Scene::new("TLSv1.3");
    let folder = TempDir::new().unwrap();
    for Spoiled { class, spoil, file, says } in WAYS {
        let pair = whole(&scene.pki, class);
        let config = write(&folder, &scene.sections(&pair));
        let (code, said) = egret(&["check", config.to_str().unwrap()]);
        assert_eq!(code, 0, "{class}, still whole: {said}");

        spoil(&scene.pki, &pair);
        let expected = format!("{} {}", file(&pair).display(), says(&pair));
        for command in [&["run", "--strict"][..], &["check"]] {
            let (code, said) = egret(&[command, &[config.to_str().unwrap()]].concat());
            let command = command.join(" ");
            assert_eq!(code, 2, "egret {command} with {class}: {said}");
            assert!(said.contains(&expected), "egret {command} does not say\n{expected}\nbut\n{said}");
            assert!(said.contains(class), "egret {command} does not say {class} but\n{said}");
        }
        let _ = fs::remove_dir(&pair.certificate);
    }
}

#[test]
fn all_files_that_cannot_be_used_are_told_at_once() {
    let scene = Scene::new("TLSv1.3");
    let folder = TempDir::new().unwrap();
    let mut sections = scene.sections(&whole(&scene.pki, "good"));
    let mut expected = Vec::new();
    for (n, Spoiled { spoil, file, says, .. }) in WAYS.iter().enumerate() {
        let pair = whole(&scene.pki, &format!("spoiled-{n}"));
        spoil(&scene.pki, &pair);
        sections = pair.identity(&format!("spoiled-{n}")) + &sections;
        expected.push(format!("identity spoiled-{n}: {} {}", file(&pair).display(), says(&pair)));
    }
    let config = write(&folder, &sections);
    for command in [&["run", "--strict"][..], &["check"]] {
        let (code, said) = egret(&[command, &[config.to_str().unwrap()]].concat());
        let command = command.join(" ");
        assert_eq!(code, 2, "egret {command}: {said}");
        for expected in &expected {
            assert!(said.contains(expected), "egret {command} does not say\n{expected}\nbut\n{said}");
        }
    }
}

#[test]
fn reload_keeps_the_generation_and_names_the_file_until_it_is_whole_again() {
    let scene = Scene::new("TLSv1.3");
    let pair = whole(&scene.pki, "app");
    let egret = Egret::start_with(strict(), &scene.sections(&pair));
    let address = egret.address("app");
    for (n, Spoiled { class, spoil, file, says }) in WAYS.iter().enumerate() {
        let generation = egret.generation();
        spoil(&scene.pki, &pair);
        let expected = format!("identity app: {} {}", file(&pair).display(), says(&pair));
        assert!(!egret.reload(), "{class}: accepted");
        assert_eq!(egret.generation(), generation);
        let kept = format!("kept generation {generation}");
        let told = |line: &Value| line["message"] == kept.as_str() && line["reason"] == *class;
        let line = egret.wait_for_log(&format!("{kept}, {class}"), told);
        assert!(line["detail"].as_str().is_some_and(|detail| detail.starts_with(&expected)), "{line}");
        let answer = egret.admin("POST", "/reload");
        assert!(answer.status >= 400 && answer.body.contains(&expected), "{answer:?}");
        assert!(seen(address).contains("dn=CN=app verify=SUCCESS"), "{class}\n{}", egret.log_text());

        let _ = fs::remove_dir(&pair.certificate);
        whole(&scene.pki, "app");
        assert!(egret.reload(), "{class}, mended: {}", egret.log_text());
        assert!(egret.generation() > generation);
        assert!(seen(address).contains("dn=CN=app verify=SUCCESS"), "{class}\n{}", egret.log_text());
        let rejected = egret.metrics().sum("egret_reloads_total", &[("result", "rejected")]);
        assert_eq!(rejected, 2.0 * (n + 1) as f64);
    }
}

#[test]
fn a_new_identity_that_cannot_be_used_leaves_those_that_run() {
    let scene = Scene::new("TLSv1.3");
    let sections = scene.sections(&whole(&scene.pki, "app"));
    let egret = Egret::start_with(strict(), &sections);
    let address = egret.address("app");
    let generation = egret.generation();
    for (n, Spoiled { class, spoil, .. }) in WAYS.iter().enumerate() {
        let pair = whole(&scene.pki, &format!("new-{n}"));
        spoil(&scene.pki, &pair);
        let added = listener(&format!("new-{n}"), free_port(), "app");
        egret.rewrite(&(pair.identity("new") + &sections + &added));
        assert!(!egret.reload(), "{class}: accepted");
        assert_eq!(egret.generation(), generation);
        assert!(seen(address).contains("dn=CN=app verify=SUCCESS"), "{class}\n{}", egret.log_text());
        let opened = |line: &Value| line["message"] == "listening" && line["listener"] == format!("new-{n}").as_str();
        assert!(!egret.log().iter().any(opened), "half of a rejected configuration runs\n{}", egret.log_text());
    }
}
