//! Every form of certificate and key files, and what becomes of it: the table of `docs/certificates.md`. What was loaded
//! and what was reported is all that a file holds, in damaged files too.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use egret::config::values::{Anchors, Identity as IdentitySpec, Trust as TrustSpec};
use egret::credentials::contents::{self, Contents};
use egret::credentials::identity::Identity;
use egret::credentials::trust::Trust;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::authority::{Ca, Leaf, Wish, openssl, write_key};
use crate::support::origins::name;

/// A root `root.pem`, and `me.pem` with `me.key` below it.
struct Files {
    folder: TempDir,
    root: String,
    leaf: Leaf,
}

impl Files {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let ca = Ca::new("clients");
        let leaf = ca.leaf(&Wish { cn: "me", ..Wish::default() });
        fs::write(folder.path().join("root.pem"), &ca.pem).unwrap();
        fs::write(folder.path().join("me.pem"), &leaf.pem).unwrap();
        write_key(&folder.path().join("me.key"), leaf.key.serialize_pem().as_bytes());
        Self { folder, root: ca.pem, leaf }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        openssl(self.folder.path(), &[arguments, &["-out", "made"]].concat());
        fs::read(self.at("made")).unwrap()
    }

    fn outcome(&self, part: Use, bytes: &[u8]) -> String {
        let file = self.at("given");
        write_key(&file, bytes);
        let outcome = match part {
            Use::Roots => {
                let anchors = Anchors::Roots { system: false, paths: vec![file] };
                let trust = Trust::load(&name("t"), &TrustSpec { anchors, ..TrustSpec::default() });
                trust.map(|it| it.remarks().join("; ")).map_err(|error| (error.reason(), error.to_string()))
            }
            Use::Chain => self.identity(&file, &self.at("me.key"), None),
            Use::Key => self.identity(&self.at("me.pem"), &file, None),
            Use::Password => self.identity(&self.at("me.pem"), &self.locked(), Some(&file)),
        };
        let folder = format!("{}/", self.folder.path().display());
        match outcome {
            Ok(remarks) if remarks.is_empty() => "read".to_owned(),
            Ok(remarks) => format!("read; reported: {}", remarks.replace(&folder, "")),
            Err((reason, text)) => format!("refused, `{reason}`: {}", text.replace(&folder, "")),
        }
    }

    /// The key, locked with the password `grün`.
    fn locked(&self) -> PathBuf {
        fs::write(self.at("word"), "grün\n").unwrap();
        let locked = self.openssl(&["pkcs8", "-topk8", "-in", "me.key", "-passout", "file:word"]);
        write_key(&self.at("locked.key"), &locked);
        self.at("locked.key")
    }

    fn identity(
        &self,
        certificate: &Path,
        key: &Path,
        password: Option<&Path>,
    ) -> Result<String, (&'static str, String)> {
        let spec = IdentitySpec {
            certificate: certificate.into(),
            private_key: Some(key.into()),
            password_file: password.map(Into::into),
            allow_loose_key_permissions: false,
        };
        let identity = Identity::load(&spec);
        identity.map(|it| it.remarks().join("; ")).map_err(|error| (error.reason(), error.to_string()))
    }
}

#[derive(Clone, Copy, Debug)]
enum Use {
    Roots,
    Chain,
    Key,
    Password,
}

/// What the file is for, its form, its bytes, and a part of what becomes of it.
type Row = (Use, &'static str, fn(&Files) -> Vec<u8>, &'static str);

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes).collect()
}

fn key_of(files: &Files, algorithm: &[&str]) -> Vec<u8> {
    files.openssl(&[&["genpkey"][..], algorithm].concat())
}

fn relabelled(files: &Files, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(files.openssl(&["pkey", "-in", "me.key"])).unwrap();
    text.replace(from, to).into()
}

const ROWS: &[Row] = &[
    (Use::Roots, "PEM", |it| it.root.clone().into(), "read"),
    (
        Use::Roots,
        "UTF-8 byte order mark, CR LF",
        |it| format!("\u{feff}{}", it.root.replace('\n', "\r\n")).into(),
        "read",
    ),
    (Use::Roots, "CR at the ends of lines", |it| it.root.replace('\n', "\r").into(), "read"),
    (Use::Roots, "UTF-16, little end first", |it| utf16(&it.root, u16::to_le_bytes), "read"),
    (Use::Roots, "UTF-16, big end first", |it| utf16(&it.root, u16::to_be_bytes), "read"),
    (Use::Roots, "END and BEGIN glued together", |it| [it.root.trim_end(), &it.root].concat().into(), "read"),
    (Use::Roots, "all on one line", |it| it.root.replace('\n', " ").into(), "read"),
    (
        Use::Roots,
        "comments, bag attributes and text around",
        |it| format!("# root\nBag Attributes\n  a: b\n\n{}end\n", it.root).into(),
        "read",
    ),
    (Use::Roots, "tabs and blanks around lines", |it| it.root.replace('\n', " \t\n\t").into(), "read"),
    (
        Use::Roots,
        "`TRUSTED CERTIFICATE`",
        |it| it.openssl(&["x509", "-in", "root.pem", "-addtrust", "serverAuth", "-trustout"]),
        "read; reported: given: line 1: OpenSSL's trust settings",
    ),
    (Use::Roots, "`X509 CERTIFICATE`", |it| it.root.replace(" CERT", " X509 CERT").into(), "read"),
    (Use::Roots, "PKCS#7, PEM", |it| it.openssl(&["crl2pkcs7", "-nocrl", "-certfile", "root.pem"]), "read"),
    (
        Use::Roots,
        "PKCS#7, DER",
        |it| it.openssl(&["crl2pkcs7", "-nocrl", "-certfile", "root.pem", "-outform", "DER"]),
        "read",
    ),
    (Use::Roots, "DER", |it| it.openssl(&["x509", "-in", "root.pem", "-outform", "DER"]), "read"),
    (
        Use::Roots,
        "DER with a newline at its end",
        |it| [&it.openssl(&["x509", "-in", "root.pem", "-outform", "DER"])[..], b"\r\n"].concat(),
        "read",
    ),
    (
        Use::Roots,
        "DER with other octets at its end",
        |it| [&it.openssl(&["x509", "-in", "root.pem", "-outform", "DER"])[..], b"abc"].concat(),
        "refused, `trust_malformed`: given has 3 octets behind",
    ),
    (
        Use::Roots,
        "a label that is not known beside a root",
        |it| format!("{}-----BEGIN THING-----\nAAAA\n-----END THING-----\n", it.root).into(),
        "`THING` is not used",
    ),
    (
        Use::Roots,
        "a damaged certificate beside a root",
        |it| format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", it.root).into(),
        "the root is left out",
    ),
    (
        Use::Roots,
        "a BEGIN line that lost a dash",
        |it| it.root.replacen('-', "", 1).into(),
        "refused, `trust_malformed`: given is damaged PEM: line 1",
    ),
    (
        Use::Roots,
        "an END line without BEGIN",
        |it| it.root.split_once('\n').unwrap().1.into(),
        "this END line has no BEGIN",
    ),
    (
        Use::Roots,
        "the base64 alone",
        |it| it.root.lines().filter(|line| !line.starts_with('-')).collect::<String>().into(),
        "is base64 without its BEGIN",
    ),
    (Use::Roots, "cut off in the middle", |it| it.root[..it.root.len() / 2].into(), "has no END line"),
    (Use::Chain, "PEM", |it| it.leaf.pem.clone().into(), "read"),
    (
        Use::Chain,
        "UTF-8 byte order mark, CR LF",
        |it| format!("\u{feff}{}", it.leaf.pem.replace('\n', "\r\n")).into(),
        "read",
    ),
    (
        Use::Chain,
        "`TRUSTED CERTIFICATE`",
        |it| it.openssl(&["x509", "-in", "me.pem", "-addtrust", "clientAuth", "-trustout"]),
        "read; reported",
    ),
    (Use::Chain, "PKCS#7, PEM", |it| it.openssl(&["crl2pkcs7", "-nocrl", "-certfile", "me.pem"]), "read"),
    (
        Use::Chain,
        "Diffie-Hellman parameters beside the chain",
        |it| format!("{}-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n", it.leaf.pem).into(),
        "`DH PARAMETERS` is not used",
    ),
    (
        Use::Chain,
        "a damaged certificate in the chain",
        |it| format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", it.leaf.pem).into(),
        "a certificate that cannot be read",
    ),
    (Use::Key, "PKCS#8", |it| it.openssl(&["pkey", "-in", "me.key"]), "read"),
    (Use::Key, "SEC1", |it| it.openssl(&["ec", "-in", "me.key"]), "read"),
    (Use::Key, "PKCS#8 labelled `RSA PRIVATE KEY`", |it| relabelled(it, "PRIVATE KEY", "RSA PRIVATE KEY"), "read"),
    (Use::Key, "PKCS#8 labelled `EC PRIVATE KEY`", |it| relabelled(it, "PRIVATE KEY", "EC PRIVATE KEY"), "read"),
    (
        Use::Key,
        "PKCS#8 labelled `ENCRYPTED PRIVATE KEY`",
        |it| relabelled(it, "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        "read",
    ),
    (
        Use::Key,
        "SEC1 labelled `PRIVATE KEY`",
        |it| String::from_utf8(it.openssl(&["ec", "-in", "me.key"])).unwrap().replace("EC PRIVATE", "PRIVATE").into(),
        "read",
    ),
    (
        Use::Key,
        "`EC PARAMETERS` before the key",
        |it| {
            [
                &b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"[..],
                &it.openssl(&["ec", "-in", "me.key"]),
            ]
            .concat()
        },
        "read",
    ),
    (
        Use::Key,
        "DER with a newline at its end",
        |it| [&it.openssl(&["pkey", "-in", "me.key", "-outform", "DER"])[..], b"\n"].concat(),
        "read",
    ),
    (
        Use::Key,
        "explicit curve parameters, of another certificate",
        |it| {
            key_of(
                it,
                &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"],
            )
        },
        "identity_key_mismatch",
    ),
    (
        Use::Key,
        "secp256k1",
        |it| key_of(it, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"]),
        "EC key on secp256k1",
    ),
    (
        Use::Key,
        "RSA-PSS",
        |it| key_of(it, &["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"]),
        "an RSA-PSS key",
    ),
    (Use::Key, "Ed448", |it| key_of(it, &["-algorithm", "ED448"]), "an Ed448 key"),
    (Use::Key, "Ed25519 of another certificate", |it| key_of(it, &["-algorithm", "ED25519"]), "identity_key_mismatch"),
    (
        Use::Key,
        "P-521 of another certificate",
        |it| key_of(it, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        "identity_key_mismatch",
    ),
    (
        Use::Key,
        "encrypted, in OpenSSL's old format",
        |it| it.openssl(&["ec", "-aes128", "-in", "me.key", "-passout", "pass:x"]),
        "identity_encryption_unsupported",
    ),
    (
        Use::Key,
        "encrypted PKCS#8, no password file",
        |it| it.openssl(&["pkcs8", "-topk8", "-in", "me.key", "-passout", "pass:x"]),
        "identity_password",
    ),
    (
        Use::Key,
        "`OPENSSH PRIVATE KEY`",
        |_| b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n".to_vec(),
        "OpenSSH's own format",
    ),
    (
        Use::Key,
        "`DSA PRIVATE KEY`",
        |_| b"-----BEGIN DSA PRIVATE KEY-----\nMAMCAQA=\n-----END DSA PRIVATE KEY-----\n".to_vec(),
        "a DSA key",
    ),
    (Use::Password, "UTF-8, one line", |_| "grün\n".into(), "read"),
    (Use::Password, "without a newline", |_| "grün".into(), "read"),
    (Use::Password, "UTF-8 byte order mark, CR LF", |_| "\u{feff}grün\r\n".into(), "read"),
    (Use::Password, "CR at the end", |_| "grün\r".into(), "read"),
    (Use::Password, "UTF-16, little end first", |_| utf16("grün\r\n", u16::to_le_bytes), "read"),
    (Use::Password, "UTF-16, big end first", |_| utf16("grün\n", u16::to_be_bytes), "read"),
    (Use::Password, "more lines after it", |_| "grün\nof the client\n".into(), "read"),
    (Use::Password, "a blank at the end of the line, which is part of it", |_| "grün \n".into(), "identity_password"),
    (
        Use::Password,
        "an odd number of octets after the mark of UTF-16",
        |_| b"\xff\xfeg".to_vec(),
        "identity_malformed",
    ),
    (Use::Password, "nothing but newlines", |_| "\r\n\n".into(), "identity_malformed"),
];

#[test]
fn every_form_of_file_is_read_or_refused_by_its_name() {
    let files = Files::new();
    let mut table = String::new();
    for (part, form, bytes, expected) in ROWS {
        let outcome = files.outcome(*part, &bytes(&files));
        let fits = if *expected == "read" { outcome == "read" } else { outcome.contains(expected) };
        assert!(fits, "{part:?}, {form}: {outcome}");
        let part = match part {
            Use::Roots => "roots",
            Use::Chain => "certificate of an identity",
            Use::Key => "private key",
            Use::Password => "password",
        };
        writeln!(table, "| {part} | {form} | {outcome} |").unwrap();
    }
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/certificates.md");
    let text = fs::read_to_string(&page).unwrap();
    let (head, old) = text.split_once("| --- | --- | --- |\n").expect("the page has a table");
    if std::env::var_os("EGRET_BLESS").is_some() {
        fs::write(&page, format!("{head}| --- | --- | --- |\n{table}")).unwrap();
    } else {
        assert_eq!(old, table, "run the test with EGRET_BLESS=1 to write the table anew");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A damaged text is refused, or no fewer parts come out than it has BEGIN lines.
    #[test]
    fn no_part_of_a_damaged_file_is_lost_in_silence(at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..4) {
        let mut text = SAMPLE.to_vec();
        let at = at.index(text.len());
        match how {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            2 => drop(text.remove(at)),
            _ => text.truncate(at),
        }
        let begun = text.windows(8).filter(|window| *window == b"--BEGIN ").count();
        if let Ok(Contents::Parts(parts)) = contents::read(&text) {
            prop_assert!(parts.len() >= begun, "{} of {begun}: {}", parts.len(), String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn no_der_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), prefix in 0..3usize) {
        let start: [&[u8]; 3] = [b"", b"0\x82\x01\x00", b"0\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"];
        let _ = contents::read(&[start[prefix], &bytes].concat());
    }
}

const SAMPLE: &[u8] = b"-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n-----BEGIN X509 CRL-----\nMAMCAQA=\n-----END X509 CRL-----\n-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
