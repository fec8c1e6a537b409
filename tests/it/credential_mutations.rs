//! Files of certificates and keys with bytes changed at random: no panic, and what was loaded and what was reported is all
//! that the file holds. `tests/mutate` makes the run long, and holds it to a time and to a memory.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use egret::config::values::{Anchors, Identity as IdentitySpec, Trust as TrustSpec};
use egret::credentials::identity::Identity;
use egret::credentials::trust::Trust;
use tempfile::TempDir;

use crate::support::authority::{Ca, Wish, openssl, write_key};
use crate::support::origins::name;

/// Files of one form, and what is loaded from one of them: how many certificates, keys and remarks. `None`: it is refused.
struct Form {
    folder: TempDir,
    seeds: Vec<Vec<u8>>,
    load: fn(&Self) -> Option<usize>,
}

impl Form {
    fn given(&self) -> PathBuf {
        self.folder.path().join("given")
    }

    fn roots(&self) -> Option<usize> {
        let anchors = Anchors::Roots { system: false, paths: vec![self.given()] };
        let trust = Trust::load(&name("t"), &TrustSpec { anchors, ..TrustSpec::default() }).ok()?;
        Some(trust.roots().len() + trust.remarks().len())
    }

    /// Chain and key are in the one file.
    fn identity(&self) -> Option<usize> {
        let identity = Identity::load(&IdentitySpec {
            certificate: self.given(),
            private_key: None,
            password_file: Some(self.folder.path().join("password")),
            allow_loose_key_permissions: false,
        });
        let identity = identity.ok()?;
        Some(identity.certified().cert.len() + 1 + identity.remarks().len())
    }
}

/// A root, an intermediate and a leaf with its key, in a folder of their own.
fn form(seeds: impl FnOnce(&TempDir, [&str; 3]) -> Vec<Vec<u8>>, load: fn(&Form) -> Option<usize>) -> Form {
    let folder = TempDir::new().unwrap();
    let root = Ca::new("root");
    let middle = root.intermediate("middle");
    let leaf = middle.leaf(&Wish { cn: "me", ..Wish::default() });
    leaf.write(folder.path(), "me");
    write_key(&folder.path().join("password"), b"secret\n");
    fs::write(folder.path().join("others.pem"), format!("{}{}{}", middle.pem, root.pem, Ca::new("stranger").pem))
        .unwrap();
    let seeds = seeds(&folder, [&root.pem, &middle.pem, &(leaf.pem.clone() + &leaf.key.serialize_pem())]);
    Form { folder, seeds, load }
}

/// Copies, cuts and changes some of the bytes.
fn mutated(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len().max(1)).min(bytes.len());
        let end = (at + random.usize(..40)).min(bytes.len());
        match random.u8(..5) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            2 => bytes.truncate(end),
            3 => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..other.len());
                drop(bytes.splice(at..at, other[from..].to_vec()));
            }
            _ if at < bytes.len() => bytes[at] = random.u8(..),
            _ => {}
        }
    }
    bytes
}

/// Different parts of a text, by its BEGIN lines.
fn parts_of_pem(bytes: &[u8]) -> usize {
    let lenient = GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    let text = String::from_utf8_lossy(bytes);
    let sections = text.split("-----BEGIN ").skip(1).map(|section| {
        let body: String = section.split("-----").nth(1).unwrap_or_default().split_whitespace().collect();
        lenient.decode(&body).unwrap_or_else(|_| body.into_bytes())
    });
    sections.collect::<HashSet<_>>().len()
}

/// Runs the mutations of a form; `parts` counts what a file holds at least.
fn run(form: &Form, parts: fn(&[u8]) -> usize) {
    let long = env::var("EGRET_MUTATIONS").ok().and_then(|text| text.parse::<usize>().ok());
    let mut random = fastrand::Rng::with_seed(13);
    let (mut loaded, mut slowest) = (0, Duration::ZERO);
    for seed in &form.seeds {
        write_key(&form.given(), seed);
        let found = (form.load)(form).expect("the seeds are right");
        assert!(found >= parts(seed), "{found} of {}", parts(seed));
    }
    for _ in 0..long.unwrap_or(200) {
        let bytes = mutated(&form.seeds, &mut random);
        write_key(&form.given(), &bytes);
        let begin = Instant::now();
        let found = (form.load)(form);
        slowest = slowest.max(begin.elapsed());
        let Some(found) = found else { continue };
        loaded += 1;
        assert!(found >= parts(&bytes), "{found} of {}:\n{}", parts(&bytes), String::from_utf8_lossy(&bytes));
    }
    println!("{loaded} were loaded, the slowest in {slowest:?}");
    if long.is_some() {
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel counts it");
        let kib: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
        assert!(kib < 200 << 10, "{kib} KiB");
    }
}

#[test]
fn mutations_of_pem_lose_nothing_in_silence() {
    let roots = form(
        |_, [root, middle, leaf]| vec![format!("{root}{middle}").into(), format!("{root}{leaf}").into()],
        Form::roots,
    );
    run(&roots, parts_of_pem);
    let identity = form(|_, [_, middle, leaf]| vec![leaf.into(), format!("{leaf}{middle}").into()], Form::identity);
    run(&identity, parts_of_pem);
}

#[test]
fn mutations_of_der_lose_nothing_in_silence() {
    let roots = form(
        |folder, _| {
            let der = |file: &str, more: &[&str]| {
                openssl(folder.path(), &[&["x509", "-in", file, "-outform", "DER", "-out", "made"], more].concat());
                fs::read(folder.path().join("made")).unwrap()
            };
            openssl(
                folder.path(),
                &["crl2pkcs7", "-nocrl", "-certfile", "others.pem", "-outform", "DER", "-out", "p7"],
            );
            vec![der("others.pem", &[]), fs::read(folder.path().join("p7")).unwrap()]
        },
        Form::roots,
    );
    // A certificate at least; what else a damaged structure holds, nobody can say.
    run(&roots, |_| 1);
}

#[test]
fn mutations_of_pkcs12_lose_nothing_in_silence() {
    let archives = form(
        |folder, _| {
            let archive = |more: &[&str]| {
                let export = ["pkcs12", "-export", "-in", "me.crt", "-inkey", "me.key", "-passout", "pass:secret"];
                openssl(folder.path(), &[&export[..], more, &["-out", "made"]].concat());
                fs::read(folder.path().join("made")).unwrap()
            };
            vec![archive(&[]), archive(&["-certfile", "others.pem"])]
        },
        Form::identity,
    );
    run(&archives, |_| 2);
}

/// The chain that is sent, and a remark for each of the others: the root, and a certificate of a stranger.
#[test]
fn certificates_of_an_archive_that_are_not_sent_are_reported() {
    let archive = form(
        |folder, _| {
            let export = ["pkcs12", "-export", "-in", "me.crt", "-inkey", "me.key", "-passout", "pass:secret"];
            openssl(folder.path(), &[&export[..], &["-certfile", "others.pem", "-out", "made"]].concat());
            vec![fs::read(folder.path().join("made")).unwrap()]
        },
        Form::identity,
    );
    write_key(&archive.given(), &archive.seeds[0]);
    let identity = Identity::load(&IdentitySpec {
        certificate: archive.given(),
        private_key: None,
        password_file: Some(archive.folder.path().join("password")),
        allow_loose_key_permissions: false,
    });
    let identity = identity.unwrap();
    let remarks = identity.remarks().join("\n");
    assert_eq!((identity.certified().cert.len(), identity.remarks().len()), (2, 2), "{remarks}");
    assert!(remarks.contains("CN=root") && remarks.contains("CN=stranger"), "{remarks}");
}
