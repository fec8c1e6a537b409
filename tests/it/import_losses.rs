//! `egret import` as a user runs it: losses are errors, `--strict` fails on them, `--faithful` keeps what can be kept, and
//! what a stranger's file names is not read, or not shown.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a configuration to import.
struct Place(TempDir);

/// How an import went.
struct Done {
    code: Option<i32>,
    /// Both outputs.
    shown: String,
    config: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn import(&self, program: &str, text: &str, arguments: &[&str]) -> Done {
        self.file("main.conf", text);
        let _ = fs::remove_file(self.path("made.toml"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
        command.current_dir(self.0.path()).env("SECRET_OF_THE_PROCESS", "pelican-4711");
        let output =
            command.args(["import", program, "main.conf", "-o", "made.toml"]).args(arguments).output().unwrap();
        let shown = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let config = fs::read_to_string(self.path("made.toml")).unwrap_or_default();
        Done { code: output.status.code(), shown, config }
    }

    fn json(&self, program: &str, text: &str) -> Value {
        serde_json::from_str(&self.import(program, text, &["--format", "json"]).shown).unwrap()
    }
}

/// A `stream` server with these settings besides; nothing of it is lost.
fn nginx(settings: &str) -> String {
    format!(
        "stream {{ server {{ listen 127.0.0.1:7001; proxy_pass a.example.com:443; proxy_ssl on; proxy_ssl_server_name on;
         proxy_ssl_verify on; proxy_ssl_verify_depth 3; proxy_ssl_trusted_certificate ca.pem; {settings} }} }}"
    )
}

fn stunnel(settings: &str) -> String {
    format!(
        "[a]\nclient = yes\naccept = 127.0.0.1:7001\nconnect = a.example.com:443\nverifyChain = yes\nCAfile = ca.pem\n\
         checkHost = a.example.com\n{settings}\n"
    )
}

#[test]
fn strict_import_passes_what_loses_nothing() {
    let place = Place::new();
    for (program, text) in [
        ("nginx", nginx("")),
        ("nginx", nginx("proxy_ssl_certificate c.crt; proxy_ssl_certificate_key c.key;")),
        ("nginx", nginx("proxy_ssl_name b.example.com:8443;")),
        ("stunnel", stunnel("cert = c.crt\nkey = c.key")),
        ("stunnel", stunnel("checkHost = b.example.com")),
    ] {
        let done = place.import(program, &text, &["--strict"]);
        assert_eq!(done.code, Some(0), "{text}\n{}", done.shown);
        assert!(!done.shown.contains("error["), "{}", done.shown);
    }
}

#[test]
fn strict_import_fails_on_every_loss_of_function_or_protection() {
    let place = Place::new();
    for (program, code, settings) in [
        ("nginx", "identity-lost", "proxy_ssl_certificate c.crt; proxy_ssl_certificate_key store:vendor:key;"),
        ("nginx", "identity-lost", "proxy_ssl_certificate c.crt; proxy_ssl_certificate_key engine:pkcs11:key;"),
        ("nginx", "identity-lost", "proxy_ssl_certificate data:$pem; proxy_ssl_certificate_key c.key;"),
        ("nginx", "identity-lost", "proxy_ssl_certificate $remote_addr.crt; proxy_ssl_certificate_key c.key;"),
        ("nginx", "trust-lost", "proxy_ssl_conf_command VerifyCAFile other.pem;"),
        ("nginx", "name-lost", "proxy_ssl_name $remote_addr;"),
        ("nginx", "name-lost", "proxy_ssl_name '*.example.com';"),
        ("nginx", "limit-lost", "proxy_download_rate 1m;"),
        ("nginx", "access-lost", "js_access main.allowed;"),
        ("nginx", "unknown-directive", "no_such_directive on;"),
        ("nginx", "proxy-header", "proxy_protocol on;"),
        ("stunnel", "identity-lost", "cert = pkcs11:object=me\nkey = pkcs11:object=me"),
        ("stunnel", "identity-lost", "cert = c.crt\nkey = me\nengineId = pkcs11"),
        ("stunnel", "identity-lost", "PSKsecrets = psk.txt"),
        ("stunnel", "revocation-lost", "OCSPaia = yes"),
        ("stunnel", "revocation-lost", "OCSP = http://ocsp.example.com/"),
        ("stunnel", "revocation-lost", "CRLpath = lists"),
        ("stunnel", "name-lost", "checkEmail = staff@example.com"),
        ("stunnel", "access-lost", "libwrap = yes"),
        ("stunnel", "unknown-directive", "noSuchOption = yes"),
        ("stunnel", "include-missing", "include = more.d"),
    ] {
        let text = if program == "nginx" { nginx(settings) } else { stunnel(settings) };
        let done = place.import(program, &text, &["--strict"]);
        assert_eq!(done.code, Some(3), "{settings}\n{}", done.shown);
        assert!(done.shown.contains(&format!("error[{code}]: ")), "{settings}\n{}", done.shown);
        assert_eq!(place.import(program, &text, &[]).code, Some(0), "{settings}: without --strict it is written");
    }
}

/// What belongs to a lost identity is in no configuration, and no directive claims that it is.
#[test]
fn lost_identity_is_carried_by_no_half() {
    let place = Place::new();
    for settings in [
        "proxy_ssl_certificate c.crt; proxy_ssl_certificate_key store:key;",
        "proxy_ssl_certificate store:c; proxy_ssl_certificate_key c.key; proxy_ssl_password_file p;",
        "proxy_ssl_conf_command Certificate c.crt;",
    ] {
        let report = place.json("nginx", &nginx(settings));
        assert!(!report["config"].as_str().unwrap().contains("identit"), "{settings}");
        let certificate = |one: &&Value| {
            let text = one["directive"].as_str().unwrap();
            ["certificate ", "certificate_key", "Certificate", "password"].iter().any(|word| text.contains(word))
                && !text.contains("trusted")
        };
        for directive in report["directives"].as_array().unwrap().iter().filter(certificate) {
            assert_ne!(directive["outcome"], "carried", "{directive}");
        }
    }
}

#[test]
fn faithful_import_keeps_the_end_of_streams_and_the_permissions_of_keys() {
    let place = Place::new();
    for (name, mode) in [("loose.key", 0o644), ("group.key", 0o660), ("strict.key", 0o600)] {
        place.file(name, "not looked at");
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (key, finding, allowed) in [
        ("loose.key", true, true),
        ("group.key", true, true),
        ("strict.key", false, false),
        // It may have any mode where the configuration runs.
        ("elsewhere.key", false, true),
    ] {
        for (program, text) in [
            ("nginx", nginx(&format!("proxy_ssl_certificate c.crt; proxy_ssl_certificate_key {key};"))),
            ("stunnel", stunnel(&format!("cert = c.crt\nkey = {key}"))),
        ] {
            let faithful = place.import(program, &text, &["--faithful"]);
            assert!(faithful.config.contains("eof = \"lenient\"\n"), "{}", faithful.config);
            let written = faithful.config.contains("allow_loose_key_permissions = true\n");
            assert_eq!(written, allowed, "{program} {key}: {}", faithful.config);
            let safe = place.import(program, &text, &[]);
            assert!(!safe.config.contains("lenient") && !safe.config.contains("allow_loose"), "{}", safe.config);
            assert!(safe.shown.contains("warning[eof-strict]: "), "{}", safe.shown);
            assert_eq!(safe.shown.contains("warning[loose-permissions]: "), finding, "{program} {key}: {}", safe.shown);
        }
    }
}

#[test]
fn names_lose_their_port_as_in_nginx() {
    let place = Place::new();
    for (setting, name) in [
        ("proxy_ssl_name b.example.com:123;", "server_name = \"b.example.com\""),
        ("proxy_ssl_name 192.0.2.7:123;", "server_name = \"192.0.2.7\""),
        ("proxy_ssl_name [2001:db8::7]:123;", "server_name = \"2001:db8::7\""),
        ("set $name b.example.com:123; proxy_ssl_name $name;", "server_name = \"b.example.com\""),
    ] {
        let done = place.import("nginx", &nginx(setting), &["--strict"]);
        assert!(done.config.contains(name), "{setting}: {}\n{}", done.config, done.shown);
        assert_eq!(done.code, Some(0), "{}", done.shown);
    }
}

#[test]
fn equal_findings_are_one_with_all_places_and_a_clean_file_says_so_in_one_line() {
    let place = Place::new();
    let servers: String = (0..13)
        .map(|at| {
            format!("server {{\n listen {};\n proxy_pass s{at}.example.com:443;\n proxy_ssl on;\n}}\n", 7001 + at)
        })
        .collect();
    let done = place.import("nginx", &format!("stream {{\n{servers}}}"), &[]);
    assert!(done.shown.lines().count() <= 50, "{}", done.shown);
    assert_eq!(done.shown.matches("[open-to-all]").count(), 1, "{}", done.shown);
    assert!(done.shown.contains("main.conf:3, 8, 13, 18, 23, 28, 33, 38 and 5 more"), "{}", done.shown);
    let clean = place.import("nginx", &nginx("proxy_half_close on;"), &["--faithful"]);
    assert!(clean.shown.lines().count() <= 24, "{}", clean.shown);
    let last = clean.shown.lines().last().unwrap_or_default();
    assert!(last.starts_with("nothing to do: ") && last.contains("0 not carried"), "{}", clean.shown);
}

const SERVER: &str = "stream { server { listen 127.0.0.1:7001; proxy_pass a.example.com:443; proxy_ssl on; } }\n";

/// A folder beside the one of the configuration, with something to hide.
fn strangers() -> (Place, TempDir) {
    let (place, outside) = (Place::new(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret.conf"), "heron-0815 on;\n").unwrap();
    symlink(outside.path().join("secret.conf"), place.path("link.conf")).unwrap();
    symlink(outside.path(), place.path("folder")).unwrap();
    place.file("inside.conf", SERVER);
    place.file("token.conf", "stork-1234\n");
    place.file("password.conf", "stork-1234 bittern-5678;\n");
    place.file("key.conf", "-----BEGIN PRIVATE KEY-----\nc3RvcmstMTIzNA==\n-----END PRIVATE KEY-----\n");
    place.file("binary.conf", "a\0b;");
    place.file("one.conf", "include two.conf;");
    place.file("two.conf", "include one.conf;");
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    (place, outside)
}

fn hides(done: &Done, what: &str) {
    for secret in ["heron-0815", "pelican-4711", "stork-1234", "bittern-5678", "c3RvcmstMTIzNA=="] {
        assert!(!done.shown.contains(secret), "{what}: {secret} is shown:\n{}", done.shown);
    }
}

#[test]
fn includes_outside_of_the_folder_are_findings_and_not_read() {
    let (place, outside) = strangers();
    let secret = outside.path().join("secret.conf");
    for include in [
        secret.to_str().unwrap(),
        "link.conf",
        "folder/secret.conf",
        "folder/*.conf",
        "../*/secret.conf",
        "/proc/self/environ",
        "/dev/stdin",
        "/sys/kernel/notes",
    ] {
        for block in [format!("include {include};\n{SERVER}"), format!("{SERVER}http {{ include {include}; }}")] {
            for arguments in
                [vec!["--strict"], vec!["--strict", "--format", "json"], vec!["--strict", "--root", "/proc"]]
            {
                let done = place.import("nginx", &block, &arguments);
                hides(&done, include);
                let nothing = include.contains("*") && done.code == Some(0);
                assert!(done.code == Some(3) || nothing, "{include} {arguments:?}: {:?} {}", done.code, done.shown);
            }
        }
    }
    let root = outside.path().to_str().unwrap();
    let done = place.import("nginx", &format!("include {root}/secret.conf;\n{SERVER}"), &["--root", root]);
    assert_eq!(done.code, Some(0), "{}", done.shown);
    assert!(!done.shown.contains("include-missing"), "--root has it read: {}", done.shown);
    hides(&done, "an unknown name of an included file");
    let done = place.import("nginx", "include inside.conf;", &[]);
    assert!(done.config.contains("a.example.com:443"), "{}", done.shown);
}

#[test]
fn includes_that_are_no_configuration_end_the_import() {
    let (place, _outside) = strangers();
    for (include, why) in [
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
        ("key.conf", "PEM"),
        ("binary.conf", "not text"),
        ("main.conf", "includes itself"),
        ("./inside/../main.conf", "includes itself"),
        ("one.conf", "includes itself"),
        ("token.conf", "no `;`"),
    ] {
        fs::create_dir_all(place.path("inside")).unwrap();
        let done = place.import("nginx", &format!("{SERVER}\ninclude {include};\n"), &[]);
        assert_eq!(done.code, Some(2), "{include}: {}", done.shown);
        assert!(done.shown.contains(why), "{include}: {}", done.shown);
        assert!(done.config.is_empty(), "{include}: nothing is written");
        hides(&done, include);
    }
}

#[test]
fn text_of_included_files_is_not_shown() {
    let (place, _outside) = strangers();
    for text in [
        format!("{SERVER}\ninclude password.conf;\n"),
        format!("{SERVER}\nhttp {{ include password.conf; }}\n"),
        format!("{SERVER}\nstream {{ map $ssl_preread_server_name $up {{ include password.conf; }} }}\n"),
    ] {
        for arguments in [&[][..], &["--format", "json"], &["--redact"]] {
            let done = place.import("nginx", &text, arguments);
            assert_eq!(done.code, Some(0), "{}", done.shown);
            hides(&done, &text);
        }
    }
}

#[test]
fn files_are_bounded_in_number_depth_and_size() {
    let place = Place::new();
    for depth in 0..20 {
        place.file(&format!("deep/{depth}.conf"), &format!("include deep/{}.conf;", depth + 1));
    }
    for number in 0..1001 {
        place.file(&format!("many/{number}.conf"), "");
    }
    place.file("large.conf", &" ".repeat((16 << 20) + 1));
    let directives = "a b;\n".repeat(100_001);
    for (text, why) in [
        ("include deep/0.conf;", "deeper than 16"),
        ("include many/*.conf;", "more than 1000 files"),
        ("include large.conf;", "larger than 16 MiB"),
        (&directives, "more than 100000 directives"),
    ] {
        let done = place.import("nginx", text, &[]);
        assert_eq!(done.code, Some(2), "{}", done.shown);
        assert!(done.shown.contains(why), "{}", done.shown);
    }
}

/// Settings by `$server_port` and its like are worked out for each `listen`.
#[test]
fn settings_that_depend_on_the_listener_alone_are_carried() {
    let place = Place::new();
    let head = "map $server_port $who { 7001 one; 7002 two; default three; }\nproxy_ssl on;";
    for (settings, identities) in [
        ("listen 127.0.0.1:7001; listen 127.0.0.1:7002;", vec!["one", "two"]),
        ("listen 127.0.0.1:7001-7003;", vec!["one", "two", "three"]),
        ("listen 127.0.0.1:7001; listen [::1]:7002;", vec!["one", "two"]),
    ] {
        let text = format!(
            "stream {{ {head} server {{ {settings} proxy_pass a.example.com:443; proxy_ssl_certificate $who.crt;
             proxy_ssl_certificate_key $who.key; proxy_ssl_name x${{server_port}}x.example.com:1; }} }}"
        );
        let done = place.import("nginx", &text, &["--strict"]);
        assert_eq!(done.code, Some(0), "{settings}\n{}", done.shown);
        for (identity, port) in identities.iter().zip(7001..) {
            assert!(done.config.contains(&format!("certificate = \"{identity}.crt\"")), "{}", done.config);
            assert!(done.config.contains(&format!("server_name = \"x{port}x.example.com\"")), "{}", done.config);
        }
    }
    let on_all =
        "stream { server { listen 7001; proxy_pass a.example.com:443; proxy_ssl on; proxy_ssl_name $server_addr; } }";
    let done = place.import("nginx", on_all, &["--strict"]);
    assert!(done.code == Some(3) && done.shown.contains("error[name-lost]"), "{}", done.shown);
}

#[test]
fn entries_of_a_map_that_are_lost_leave_the_others() {
    let place = Place::new();
    for (entry, word) in [
        ("default $ssl_preread_server_name:443;", "`default`"),
        ("~^(?<x>.+)\\.example\\.net$ $x.example.com:443;", "`$x`"),
        ("~^(one|two)\\.example\\.net$ one.example.com:443;", "(one|two)"),
    ] {
        let text = format!(
            "stream {{ map $ssl_preread_server_name $up {{ a.example.com a.example.com:443; {entry} }}
             server {{ listen 127.0.0.1:7001; ssl_preread on; proxy_pass $up; }} }}"
        );
        let done = place.import("nginx", &text, &["--strict"]);
        assert!(done.config.contains("server_names = [\"a.example.com\"]"), "{entry}: {}\n{}", done.config, done.shown);
        assert!(done.code == Some(3) && done.shown.contains(word), "{entry}: {}", done.shown);
    }
}
