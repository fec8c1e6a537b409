//! Identities in every form that tools write, and what is said of those that cannot be used.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use egret::config::values::Identity as Spec;
use egret::credentials::certificate::Date;
use egret::credentials::identity::{Error, Identity};
use tempfile::TempDir;

use crate::support::authority::{Ca, Leaf, Wish, openssl, write_key};
use crate::support::costly_keys::{pbkdf2, pkcs12, scrypt};

fn spec(certificate: &Path, private_key: Option<&Path>, password_file: Option<&Path>) -> Spec {
    Spec {
        certificate: certificate.into(),
        private_key: private_key.map(Into::into),
        password_file: password_file.map(Into::into),
        allow_loose_key_permissions: false,
    }
}

fn load(spec: &Spec) -> Result<Identity, Error> {
    Identity::load(spec)
}

/// A certificate `me.crt` by the authority of `ca.crt`, its key `me.key`, and `password`.
struct Files {
    folder: TempDir,
    leaf: Leaf,
}

impl Files {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let ca = Ca::new("clients");
        let leaf = ca.leaf(&Wish { cn: "me", ..Wish::default() });
        leaf.write(folder.path(), "me");
        std::fs::write(folder.path().join("ca.crt"), &ca.pem).unwrap();
        write_key(&folder.path().join("password"), b"secret\nsecond line\n");
        write_key(&folder.path().join("wrong"), b"Secret\n");
        Self { folder, leaf }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs openssl, and takes the permission of others from what it wrote.
    fn openssl(&self, arguments: &[&str], made: &str) {
        openssl(self.folder.path(), arguments);
        std::fs::set_permissions(self.at(made), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn keys_are_read_in_every_form() {
    let files = Files::new();
    files.openssl(&["ec", "-in", "me.key", "-out", "sec1.key"], "sec1.key");
    files.openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", "me.key", "-outform", "DER", "-out", "der.key"], "der.key");
    for key in ["me.key", "sec1.key", "der.key"] {
        let identity = load(&spec(&files.at("me.crt"), Some(&files.at(key)), None)).unwrap();
        assert_eq!(identity.fingerprint().leaf, files.leaf.sha256(), "{key}");
    }
    let combined = format!("{}{}", files.leaf.key.serialize_pem(), files.leaf.pem);
    write_key(&files.at("combined.pem"), combined.as_bytes());
    load(&spec(&files.at("combined.pem"), None, None)).unwrap();

    files.openssl(
        &[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=me", "-keyout", "rsa.key",
            "-out", "rsa.crt",
        ],
        "rsa.key",
    );
    files.openssl(&["rsa", "-traditional", "-in", "rsa.key", "-out", "pkcs1.key"], "pkcs1.key");
    load(&spec(&files.at("rsa.crt"), Some(&files.at("pkcs1.key")), None)).unwrap();
}

#[test]
fn encrypted_keys_are_opened_by_the_password_file() {
    let files = Files::new();
    let ciphers: [&[&str]; 4] =
        [&["-v2", "aes-256-cbc"], &["-v2", "des3"], &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"], &["-scrypt"]];
    for cipher in ciphers {
        let mut arguments = vec!["pkcs8", "-topk8", "-in", "me.key", "-out", "sealed.key", "-passout", "pass:secret"];
        arguments.extend(cipher);
        files.openssl(&arguments, "sealed.key");
        let with = |password: Option<&str>| {
            load(&spec(
                &files.at("me.crt"),
                Some(&files.at("sealed.key")),
                password.map(|name| files.at(name)).as_deref(),
            ))
        };
        with(Some("password")).unwrap_or_else(|error| panic!("{cipher:?}: {error}"));
        assert_eq!(with(Some("wrong")).unwrap_err().reason(), "identity_password");
        let error = with(None).unwrap_err();
        assert!(error.to_string().contains("password_file"), "{error}");
    }
    let old =
        ["pkcs8", "-topk8", "-in", "me.key", "-out", "old.key", "-passout", "pass:secret", "-v1", "PBE-SHA1-3DES"];
    files.openssl(&old, "old.key");
    let error = load(&spec(&files.at("me.crt"), Some(&files.at("old.key")), Some(&files.at("password")))).unwrap_err();
    assert_eq!(error.reason(), "identity_encryption_unsupported", "{error}");
    let older = ["ec", "-aes128", "-in", "me.key", "-out", "older.key", "-passout", "pass:secret"];
    files.openssl(&older, "older.key");
    let error =
        load(&spec(&files.at("me.crt"), Some(&files.at("older.key")), Some(&files.at("password")))).unwrap_err();
    assert_eq!(error.reason(), "identity_encryption_unsupported", "{error}");
    assert!(error.to_string().contains("openssl pkcs8 -topk8"), "{error}");
}

#[test]
fn pkcs12_is_opened_new_and_legacy() {
    let files = Files::new();
    for legacy in [&[][..], &["-legacy"], &["-legacy", "-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-RC2-40"]] {
        let mut arguments = vec![
            "pkcs12",
            "-export",
            "-in",
            "me.crt",
            "-inkey",
            "me.key",
            "-certfile",
            "ca.crt",
            "-out",
            "me.p12",
            "-passout",
            "pass:secret",
        ];
        arguments.extend(legacy);
        files.openssl(&arguments, "me.p12");
        let with = |password: Option<&str>| {
            load(&spec(&files.at("me.p12"), None, password.map(|name| files.at(name)).as_deref()))
        };
        let identity = with(Some("password")).unwrap_or_else(|error| panic!("{legacy:?}: {error}"));
        assert_eq!(identity.certified().cert, files.leaf.chain, "the root is left out");
        let error = with(Some("wrong")).unwrap_err();
        assert_eq!(error.reason(), "identity_password", "{error}");
        assert!(error.to_string().contains("wrong"), "{error}");
        assert_eq!(with(None).unwrap_err().reason(), "identity_password");
    }
}

#[test]
fn a_key_that_costs_too_much_to_derive_is_refused_with_number_bound_and_repair() {
    let files = Files::new();
    let (pkcs8_repair, pkcs12_repair) = ("openssl pkcs8 -topk8", "openssl pkcs12 -export");
    for (der, asked, bound, repair) in [
        (pbkdf2(10_000_001), "10000001 iterations", "10000000", pkcs8_repair),
        (pbkdf2(1 << 31), "2147483648 iterations", "10000000", pkcs8_repair),
        (pbkdf2(1 << 40), "1099511627776 iterations", "10000000", pkcs8_repair),
        (scrypt([1 << 30, 8, 1]), "1099511627776 bytes of memory", "", pkcs8_repair),
        (scrypt([1 << 14, 8, 1 << 20]), "bytes of memory", "", pkcs8_repair),
        (scrypt([1 << 14, 8, 1 << 9]), "8589934592 bytes of work", "1073741824", pkcs8_repair),
        (scrypt([0, 8, 1]), "cost parameter 0", "power of two", pkcs8_repair),
        (pkcs12(&[], 1_000_001), "1000001 iterations", "1000000", pkcs12_repair),
        (pkcs12(&[], 1 << 31), "2147483648 iterations", "1000000", pkcs12_repair),
        (pkcs12(&[pbkdf2(1 << 31)], 2048), "2147483648 iterations", "1000000", pkcs12_repair),
        (pkcs12(&vec![pbkdf2(1_000_000); 11], 1), "11000001 iterations in all", "10000000", pkcs12_repair),
        (pkcs12(&[scrypt([1 << 30, 8, 1])], 1), "1099511627776 bytes of memory", "", pkcs12_repair),
    ] {
        write_key(&files.at("costly"), &der);
        let (costly, password) = (files.at("costly"), files.at("password"));
        let error = match repair == pkcs8_repair {
            true => load(&spec(&files.at("me.crt"), Some(&costly), Some(&password))),
            false => load(&spec(&costly, None, Some(&password))),
        }
        .unwrap_err();
        let text = error.to_string();
        assert_eq!(error.reason(), "identity_key_derivation", "{asked}: {text}");
        for part in [asked, bound, repair, &costly.display().to_string()] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn a_key_that_costs_as_much_as_is_recommended_is_opened() {
    let files = Files::new();
    let strong = ["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-iter", "600000", "-in", "me.key", "-out", "strong.key"];
    files.openssl(&[&strong[..], &["-passout", "pass:secret"]].concat(), "strong.key");
    load(&spec(&files.at("me.crt"), Some(&files.at("strong.key")), Some(&files.at("password")))).unwrap();
    let strong = ["pkcs12", "-export", "-iter", "600000", "-in", "me.crt", "-inkey", "me.key", "-out", "strong.p12"];
    files.openssl(&[&strong[..], &["-passout", "pass:secret"]].concat(), "strong.p12");
    load(&spec(&files.at("strong.p12"), None, Some(&files.at("password")))).unwrap();
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_command_that_helps() {
    let files = Files::new();
    // As root, for whom a group may read: the files get another owner.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(files.at("me.key"), Some(65_532), None).unwrap();
    }
    for mode in [0o640, 0o604, 0o660] {
        std::fs::set_permissions(files.at("me.key"), std::fs::Permissions::from_mode(mode)).unwrap();
        let mut spec = spec(&files.at("me.crt"), Some(&files.at("me.key")), None);
        let error = load(&spec).unwrap_err();
        assert_eq!(error.reason(), "identity_loose_permissions");
        let text = error.to_string();
        assert!(text.contains(&format!("{mode:04o}")) && text.contains("chmod 0600 "), "{text}");
        spec.allow_loose_key_permissions = true;
        load(&spec).unwrap();
    }
}

/// As PostgreSQL takes the keys of its servers: Kubernetes mounts a secret so, with an fsGroup.
#[test]
fn a_group_may_read_a_key_of_root_and_nobody_else_may() {
    if !rustix::process::geteuid().is_root() {
        return; // only root makes such files
    }
    let files = Files::new();
    let spec = spec(&files.at("me.crt"), Some(&files.at("me.key")), None);
    let reason = |mode: u32| {
        std::fs::set_permissions(files.at("me.key"), std::fs::Permissions::from_mode(mode)).unwrap();
        load(&spec).err().map(|error| error.reason())
    };
    for mode in [0o400, 0o440, 0o600, 0o640] {
        assert_eq!(reason(mode), None, "{mode:04o}");
    }
    for mode in [0o444, 0o460, 0o650, 0o644, 0o620, 0o601] {
        assert_eq!(reason(mode), Some("identity_loose_permissions"), "{mode:04o}");
    }
}

#[test]
fn what_cannot_be_used_is_named_with_its_file() {
    let files = Files::new();
    let (certificate, key) = (files.at("me.crt"), files.at("me.key"));
    let ca = Ca::new("clients");
    let day = time::Duration::days(1);
    let (_, early_key) = ca.leaf(&Wish { from: day, ..Wish::default() }).write(files.folder.path(), "early");
    write_key(&files.at("empty"), b"\n");
    write_key(&files.at("half"), &std::fs::read(&key).unwrap()[..80]);
    let cases = [
        (&certificate, &early_key, "identity_key_mismatch", "me.crt"),
        (&certificate, &files.at("missing"), "identity_unreadable", "missing"),
        (&files.at("missing"), &key, "identity_unreadable", "missing"),
        (&certificate, &files.at("empty"), "identity_malformed", "empty"),
        (&files.at("empty"), &key, "identity_malformed", "empty"),
        (&certificate, &files.at("half"), "identity_malformed", "half"),
        (&certificate, &certificate, "identity_loose_permissions", "me.crt"),
        (&key, &key, "identity_malformed", "me.key"),
    ];
    for (certificate, key, reason, file) in cases {
        let error = load(&spec(certificate, Some(key), None)).unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().starts_with(files.at(file).to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_certificate_out_of_its_period_is_loaded_and_its_state_is_known() {
    let files = Files::new();
    let ca = Ca::new("clients");
    let day = time::Duration::days(1);
    let cases = [
        ("expired", -day * 9, -day, Some(("identity_expired", "expired on 20"))),
        ("early", day, day * 9, Some(("identity_not_yet_valid", "is not valid before 20"))),
        ("valid", -day, day, None),
    ];
    for (stem, from, until, expected) in cases {
        let (certificate, key) = ca.leaf(&Wish { from, until, ..Wish::default() }).write(files.folder.path(), stem);
        let told = load(&spec(&certificate, Some(&key), None)).unwrap().check_period(Date::now());
        let told = told.err().map(|error| (error.reason(), error.to_string()));
        assert_eq!(told.as_ref().map(|(reason, _)| *reason), expected.map(|(reason, _)| reason), "{stem}");
        assert!(told.iter().zip(expected).all(|((_, text), (_, part))| text.contains(part)), "{told:?}");
    }
}

#[test]
fn certificates_that_the_chain_does_not_need_do_not_end_the_identity() {
    let files = Files::new();
    let ca = Ca::new("clients");
    let day = time::Duration::days(1);
    let leaf = |from, until| ca.leaf(&Wish { from, until, ..Wish::default() });
    let own = leaf(-day, day * 9);
    let (certificate, key) = own.write(files.folder.path(), "own");
    let end = load(&spec(&certificate, Some(&key), None)).unwrap().not_after();
    // A spare, one that has expired, and one that is to come.
    for (from, until) in [(-day, day), (-day * 9, -day), (day, day * 2)] {
        std::fs::write(&certificate, own.pem.clone() + &leaf(from, until).pem).unwrap();
        let identity = load(&spec(&certificate, Some(&key), None)).unwrap();
        assert_eq!(identity.not_after(), end);
        assert!(identity.check_period(Date::now()).is_ok());
    }
}

#[test]
fn another_chain_is_another_identity() {
    let files = Files::new();
    let alone = load(&spec(&files.at("me.crt"), Some(&files.at("me.key")), None)).unwrap();
    let chain = format!("{}{}", files.leaf.pem, std::fs::read_to_string(files.at("ca.crt")).unwrap());
    std::fs::write(files.at("chain.crt"), chain).unwrap();
    let with_chain = load(&spec(&files.at("chain.crt"), Some(&files.at("me.key")), None)).unwrap();
    assert_eq!(alone.fingerprint().leaf, with_chain.fingerprint().leaf);
    assert_ne!(alone.fingerprint(), with_chain.fingerprint());
}
