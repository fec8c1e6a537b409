//! A file that cannot be used harms its users only: at start they are unavailable, at a reload the part stays as it was.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::egret::{Egret, Settings, binary, egret, listener, roots};
use crate::support::http::curl;
use crate::support::nginx::{Nginx, certauth};
use crate::support::pki::{Leaf, Pair, Pki, replace};
use crate::support::plain;
use crate::support::process::{guarded, run};
use crate::support::{eventually, free_port};

const HOST: &str = "certauth.example.com";

/// A kind of file that a part depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Identity,
    Password,
    Trust,
    Crl,
    Folder,
}

const KINDS: [Kind; 5] = [Kind::Identity, Kind::Password, Kind::Trust, Kind::Crl, Kind::Folder];

/// How a file can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Missing,
    Damaged,
    Unreadable,
    HalfReplaced,
    Expired,
    /// A pipe that nobody writes to.
    Pipe,
    /// A link to a file without an end.
    Endless,
}

impl Kind {
    fn word(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// The kind of part that depends on the file.
    fn part(self) -> &'static str {
        match self {
            Self::Identity | Self::Password => "identity",
            Self::Trust | Self::Crl | Self::Folder => "trust",
        }
    }
}

/// A part of some kind with its file, and the upstreams that use it.
struct Subject {
    kind: Kind,
    name: String,
    users: Vec<String>,
    file: PathBuf,
    whole: Vec<u8>,
    sections: String,
    identity: String,
    trust: String,
}

impl Subject {
    fn new(pki: &Pki, folder: &Path, kind: Kind, users: usize) -> Self {
        let name = format!("{}{users}", kind.word());
        let at = |suffix: &str| folder.join(format!("{name}{suffix}"));
        let pair = pki.client(&name);
        let root = fs::read(pki.root()).unwrap();
        let (mut identity, mut trust) = ("bystander".to_owned(), "bystander".to_owned());
        let (file, sections) = match kind {
            Kind::Identity => (pair.certificate.clone(), pair.identity(&name)),
            Kind::Password => {
                fs::write(at(".password"), "secret\n").unwrap();
                replace(&at(".password"), "secret\n", 0o600);
                encrypt(&pair.key);
                (at(".password"), pair.identity(&name) + &format!("password_file = {:?}\n", at(".password")))
            }
            Kind::Trust => {
                fs::write(at(".pem"), &root).unwrap();
                (at(".pem"), roots(&name, &at(".pem")))
            }
            Kind::Crl => {
                fs::copy(pki.crl(&[]), at(".crl")).unwrap();
                (at(".crl"), roots(&name, &pki.both()) + &format!("crls = [{:?}]\n", at(".crl")))
            }
            Kind::Folder => {
                fs::create_dir(at(".d")).unwrap();
                fs::write(at(".d").join("root.pem"), &root).unwrap();
                (at(".d").join("root.pem"), roots(&name, &at(".d")))
            }
        };
        match kind.part() {
            "identity" => identity.clone_from(&name),
            _ => trust.clone_from(&name),
        }
        let whole = fs::read(&file).unwrap();
        let users = (0..users).map(|user| format!("{name}-{user}")).collect();
        Self { kind, name, users, file, whole, sections, identity, trust }
    }

    fn sections(&self, server: u16) -> String {
        let users = self.users.iter().map(|user| upstream(user, &self.identity, &self.trust, server));
        self.sections.clone() + &users.collect::<String>()
    }

    fn spoil(&self, fault: Fault, pki: &Pki) {
        let mode = if self.kind == Kind::Password { 0o600 } else { 0o644 };
        let text = String::from_utf8(self.whole.clone()).unwrap();
        match (fault, self.kind) {
            (Fault::Expired, _) => self.expire(pki),
            (Fault::Pipe, _) => {
                fs::remove_file(&self.file).unwrap();
                run(Command::new("mkfifo").args(["--mode", "0600"]).arg(&self.file));
            }
            (Fault::Endless, _) => {
                fs::remove_file(&self.file).unwrap();
                std::os::unix::fs::symlink("/dev/zero", &self.file).unwrap();
            }
            (Fault::Missing, Kind::Folder) => fs::remove_dir_all(self.file.parent().unwrap()).unwrap(),
            (Fault::Missing, _) => fs::remove_file(&self.file).unwrap(),
            // Whoever runs the tests may be root, whom no mode keeps out.
            (Fault::Unreadable, _) => {
                fs::remove_file(&self.file).unwrap();
                fs::create_dir(&self.file).unwrap();
            }
            (Fault::Damaged, Kind::Password) => replace(&self.file, "another\n", mode),
            (Fault::Damaged, _) => replace(&self.file, &text.replace('M', "?"), mode),
            (Fault::HalfReplaced, Kind::Identity) => {
                replace(&self.file, &fs::read_to_string(pki.client("other").certificate).unwrap(), mode);
            }
            (Fault::HalfReplaced, Kind::Password) => replace(&self.file, "\n", mode),
            (Fault::HalfReplaced, _) => replace(&self.file, &text[..text.len() / 2], mode),
        }
    }

    /// Puts files in the place of the right ones that are right in all but their period.
    fn expire(&self, pki: &Pki) {
        let copy = |from: PathBuf| replace(&self.file, &fs::read_to_string(from).unwrap(), 0o644);
        match self.kind {
            Kind::Identity | Kind::Password => {
                let leaf = Leaf { common_name: &self.name, names: &[], valid: (-30, -1) };
                let pair = pki.issue(&self.name, &leaf);
                if self.kind == Kind::Password {
                    encrypt(&pair.key);
                }
            }
            Kind::Trust | Kind::Folder => copy(pki.expired_root()),
            Kind::Crl => copy(pki.crl_until(&[], time::Duration::hours(-1))),
        }
    }

    /// The class of the refusal of servers by an expired trust; `None`: egret goes on, and the server judges.
    fn refusal(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Identity | Kind::Password => None,
            Kind::Trust | Kind::Folder => Some("certificate_root_out_of_date"),
            Kind::Crl => Some("crl_expired"),
        }
    }

    fn mend(&self) {
        let _ = fs::remove_dir(&self.file);
        fs::create_dir_all(self.file.parent().unwrap()).unwrap();
        let mode = if self.kind == Kind::Password { 0o600 } else { 0o644 };
        replace(&self.file, std::str::from_utf8(&self.whole).unwrap(), mode);
    }

    /// The state that egret shows of it.
    fn state(&self, egret: &Egret) -> String {
        state(egret, self.kind.part(), &self.name)
    }
}

fn state(egret: &Egret, kind: &str, name: &str) -> String {
    let status: Value = serde_json::from_str(&egret.admin("GET", "/status").body).unwrap();
    let parts = status["parts"].as_array().unwrap();
    let part = parts.iter().find(|part| part["kind"] == kind && part["name"] == name).unwrap();
    let word = part["state"].as_str().unwrap();
    let labels = [("kind", kind), ("name", name), ("state", word)];
    assert_eq!(egret.metrics().sum("egret_part_state", &labels), 1.0, "{part}");
    assert_eq!(part["fault"].is_null(), word == "live", "{part}");
    word.to_owned()
}

fn encrypt(key: &Path) {
    let mut command = Command::new("openssl");
    command.args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:secret", "-in"]).arg(key);
    let sealed = run(&mut command);
    replace(key, &sealed, 0o600);
}

fn upstream(name: &str, identity: &str, trust: &str, server: u16) -> String {
    let tls = format!("tls = {{ identity = {identity:?}, trust = {trust:?}, server_name = {HOST:?} }}");
    format!("[upstreams.{name}]\nservers = [\"127.0.0.1:{server}\"]\n{tls}\n") + &listener(name, free_port(), name)
}

/// What the server said of the client; empty if nothing came back.
fn seen(address: SocketAddr) -> String {
    let mut stream = plain::connect(address);
    let mut answer = Vec::new();
    // A stream that cannot be served is reset, which may be while the request is written.
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: certauth.example.com\r\nConnection: close\r\n\r\n");
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// nginx, a bystander, and of every kind a part without users, with one, and with two.
struct Scene {
    pki: Pki,
    _folder: TempDir,
    _nginx: Nginx,
    server: u16,
    bystander: Pair,
    subjects: Vec<Subject>,
}

impl Scene {
    fn new() -> Self {
        let (pki, folder, server) = (Pki::new(), TempDir::new().unwrap(), free_port());
        let nginx = certauth(server, "", HOST, "TLSv1.3", &pki.server(&[HOST]), &pki);
        let cells = KINDS.iter().flat_map(|kind| (0..3).map(move |users| (*kind, users)));
        let subjects = cells.map(|(kind, users)| Subject::new(&pki, folder.path(), kind, users)).collect();
        let bystander = pki.client("bystander");
        Self { _nginx: Nginx::start(&nginx, &[server]), pki, _folder: folder, server, bystander, subjects }
    }

    fn sections(&self) -> String {
        let subjects = self.subjects.iter().map(|subject| subject.sections(self.server));
        self.bystander.identity("bystander")
            + &roots("bystander", &self.pki.root())
            + &upstream("bystander", "bystander", "bystander", self.server)
            + &subjects.collect::<String>()
    }

    fn bystander_is_served(&self, egret: &Egret) {
        assert!(seen(egret.address("bystander")).contains("dn=CN=bystander verify=SUCCESS"), "{}", egret.log_text());
        for kind in ["identity", "trust"] {
            assert_eq!(state(egret, kind, "bystander"), "live");
        }
    }

    /// Every user of every part is served under its own identity.
    fn all_are_served(&self, egret: &Egret, state: &str) {
        self.bystander_is_served(egret);
        for subject in &self.subjects {
            assert_eq!(subject.state(egret), state, "{}\n{}", subject.name, egret.log_text());
            for user in &subject.users {
                let expected = format!("dn=CN={} verify=SUCCESS", subject.identity);
                let seen = seen(egret.address(user));
                assert!(seen.contains(&expected), "{user}: {seen}\n{}", egret.log_text());
            }
        }
        assert_eq!(egret.admin("GET", "/readyz").status, 200);
    }

    /// Nothing is unavailable. Servers see the expired certificate; whom an expired trust speaks for is refused by class.
    fn users_meet_what_is_expired(&self, egret: &Egret) {
        self.bystander_is_served(egret);
        for subject in &self.subjects {
            assert_eq!(subject.state(egret), "live", "{}\n{}", subject.name, egret.log_text());
            for user in &subject.users {
                let seen = seen(egret.address(user));
                match subject.refusal() {
                    Some(class) => {
                        assert_eq!(seen, "", "{user}");
                        egret.wait_for_log(user, |line| line["reason"] == *class && line["upstream"] == *user);
                    }
                    None => assert!(!seen.is_empty() && !seen.contains("SUCCESS"), "{user}: {seen}"),
                }
            }
            if subject.refusal().is_none() {
                let of_it = |line: &Value| line["reason"] == "identity_expired" && line["name"] == *subject.name;
                egret.wait_for_log(&subject.name, of_it);
            }
        }
        assert_eq!(egret.admin("GET", "/readyz").status, 200);
    }

    /// No user of a part gets anywhere, and each says why.
    fn users_are_unavailable(&self, egret: &Egret) {
        self.bystander_is_served(egret);
        for subject in &self.subjects {
            assert_eq!(subject.state(egret), "unavailable", "{}", subject.name);
            let class = format!("{}_unavailable", subject.kind.part());
            for user in &subject.users {
                assert_eq!(seen(egret.address(user)), "", "{user}");
                let labels = [("upstream", user.as_str()), ("reason", class.as_str())];
                assert_eq!(egret.metrics().sum("egret_origination_failures_total", &labels), 1.0, "{user}");
                let line = egret.wait_for_log(user, |line| line["reason"] == *class && line["upstream"] == *user);
                assert!(line["detail"].as_str().unwrap().contains(&subject.name), "{line}");
            }
        }
        assert_eq!(egret.admin("GET", "/readyz").status, 503);
    }
}

fn only_the_users_are_affected(fault: Fault) {
    let scene = Scene::new();
    let spoil = || scene.subjects.iter().for_each(|subject| subject.spoil(fault, &scene.pki));
    spoil();
    let egret = Egret::start_with(Settings { lacking: true, ..Settings::default() }, &scene.sections());
    scene.users_are_unavailable(&egret);

    scene.subjects.iter().for_each(Subject::mend);
    assert!(egret.reload(), "{}", egret.log_text());
    scene.all_are_served(&egret, "live");

    spoil();
    assert!(egret.reload(), "{}", egret.log_text());
    scene.all_are_served(&egret, "kept");
    let answer = egret.admin("POST", "/reload");
    assert_eq!(answer.status, 200);
    for subject in &scene.subjects {
        let told = |line: &str| line.starts_with("kept since ") && line.contains(&format!(" {}: ", subject.name));
        assert!(answer.body.lines().any(told), "{}: {answer:?}", subject.name);
    }
}

#[test]
fn missing_files_harm_only_their_users() {
    only_the_users_are_affected(Fault::Missing);
}

#[test]
fn damaged_files_harm_only_their_users() {
    only_the_users_are_affected(Fault::Damaged);
}

#[test]
fn unreadable_files_harm_only_their_users() {
    only_the_users_are_affected(Fault::Unreadable);
}

#[test]
fn half_replaced_files_harm_only_their_users() {
    only_the_users_are_affected(Fault::HalfReplaced);
}

#[test]
fn pipes_harm_only_their_users() {
    only_the_users_are_affected(Fault::Pipe);
}

#[test]
fn files_without_an_end_harm_only_their_users() {
    only_the_users_are_affected(Fault::Endless);
}

#[test]
fn expired_files_harm_only_their_users() {
    let scene = Scene::new();
    let egret = Egret::start(&scene.sections());
    scene.all_are_served(&egret, "live");
    scene.subjects.iter().for_each(|subject| subject.spoil(Fault::Expired, &scene.pki));
    assert!(egret.reload(), "{}", egret.log_text());
    scene.users_meet_what_is_expired(&egret);
    drop(egret);
    scene.users_meet_what_is_expired(&Egret::start(&scene.sections()));
}

/// Run to its end with a variable `HIDDEN`: exit code, and all that was said.
fn run_hiding(value: &str, config: &Path, arguments: &[&str]) -> (i32, String) {
    let output = guarded(binary()).arg("run").args(arguments).arg(config).env("HIDDEN", value).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
}

#[test]
fn a_process_that_could_serve_nobody_does_not_start() {
    let scene = Scene::new();
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    for subject in scene.subjects.iter().filter(|subject| !subject.users.is_empty()) {
        let bystander = scene.bystander.identity("bystander") + &roots("bystander", &scene.pki.root());
        let unused = format!("[upstreams.unused]\nservers = [\"127.0.0.1:{}\"]\n", scene.server);
        fs::write(&config, bystander + &subject.sections(scene.server) + &unused).unwrap();
        for fault in [Fault::Missing, Fault::Damaged, Fault::Unreadable] {
            subject.spoil(fault, &scene.pki);
            let (code, said) = run_hiding("", &config, &[]);
            assert_eq!(code, 2, "{} {fault:?}: {said}", subject.name);
            let part = format!("{} {}: ", subject.kind.part(), subject.name);
            assert_eq!(said.matches(&part).count(), 1, "{said}");
            assert!(said.contains("nothing_served"), "{said}");
            subject.mend();
        }
    }
}

#[test]
fn a_reload_that_could_serve_nobody_keeps_the_running_generation() {
    let scene = Scene::new();
    let subject = |name: &str| scene.subjects.iter().find(|subject| subject.name == name).unwrap();
    let bystander = scene.bystander.identity("bystander") + &roots("bystander", &scene.pki.root());
    let sections = |name| bystander.clone() + &subject(name).sections(scene.server);
    let egret = Egret::start(&sections("identity1"));
    for other in ["trust1", "identity2", "folder2"] {
        subject(other).spoil(Fault::Missing, &scene.pki);
        egret.rewrite(&sections(other));
        assert!(!egret.reload(), "{}", egret.log_text());
        egret.wait_for_log("the kept generation", |line| {
            line["reason"].as_str().is_some_and(|it| it.contains("_unreadable"))
        });
        assert!(seen(egret.address("identity1-0")).contains("dn=CN=identity1 verify=SUCCESS"), "{other}");
    }
    assert_eq!(egret.generation(), 1.0);
}

/// A secret at the place of a path or an address, which is wrong only once files and sockets are touched.
const VALUES_AT: [(&str, &str); 6] = [
    (
        "password_file",
        "[identities.x]\ncertificate = 'CERTIFICATE'\nprivate_key = 'KEY'\npassword_file = '${HIDDEN}'\n",
    ),
    ("private_key", "[identities.x]\ncertificate = 'CERTIFICATE'\nprivate_key = '${HIDDEN}'\n"),
    ("certificate", "[identities.x]\ncertificate = 'folder/${HIDDEN}.p12'\n"),
    ("roots", "[trust.x]\nroots = ['${HIDDEN}']\n"),
    ("crls", "[trust.x]\nroots = ['ROOT']\ncrls = ['/folder/${HIDDEN}']\n"),
    ("trusted certificate", "[trust.x]\ncertificate = '${HIDDEN}'\n"),
];

#[test]
fn no_message_of_run_shows_the_value_of_a_variable() {
    let scene = Scene::new();
    let locked = scene.pki.client("locked");
    encrypt(&locked.key);
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    let own = scene.bystander.identity("bystander") + &roots("bystander", &scene.pki.root());
    let user = |wrong: &str| {
        let (identity, trust) = if wrong.contains("identities") { ("x", "bystander") } else { ("bystander", "x") };
        upstream("user", identity, trust, scene.server)
    };
    for (place, wrong) in VALUES_AT {
        let wrong = wrong.replace("CERTIFICATE", locked.certificate.to_str().unwrap());
        let wrong =
            wrong.replace("KEY", locked.key.to_str().unwrap()).replace("ROOT", scene.pki.root().to_str().unwrap());
        for value in ["sekret-4711", "Zx9", &"very-long-".repeat(9)] {
            let hides = |said: &str| {
                assert!(!said.contains(value) && said.contains("${HIDDEN}"), "{place}: {said}");
            };
            fs::write(&config, own.clone() + &wrong + &user(&wrong)).unwrap();
            for arguments in [&[][..], &["--strict"], &["--log", "json"]] {
                let (code, said) = run_hiding(value, &config, arguments);
                assert_eq!(code, 2, "{place}: {said}");
                hides(&said);
            }
            let environment = vec![("HIDDEN", PathBuf::from(value))];
            let settings = Settings { lacking: true, environment, ..Settings::default() };
            let bystander = upstream("bystander", "bystander", "bystander", scene.server);
            let sections = own.clone() + &bystander + &wrong + &user(&wrong);
            let egret = Egret::start_with(settings, &sections);
            assert_eq!(seen(egret.address("user")), "");
            hides(&egret.admin("POST", "/reload").body);
            hides(&egret.admin("GET", "/status").body);
            let class = |line: &Value| line["reason"].as_str().is_some_and(|it| it.ends_with("_unavailable"));
            egret.wait_for_log("the stream", class);
            hides(&egret.log_text());
        }
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_named_without_the_value_of_a_variable() {
    let scene = Scene::new();
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    let listen = |address: &str| format!("[[listeners]]\nlisten = '{address}'\nupstream = 'bystander'\n");
    let sections = scene.sections();
    for (value, address) in
        [("sekret-4711", "unix:/nowhere/${HIDDEN}/socket"), ("Zx9", "unix:${HIDDEN}/x"), ("192.0.2.77", "${HIDDEN}:81")]
    {
        // A listener of a public address says who may come.
        let wrong = listen(address) + if address.ends_with(":81") { "allow = ['198.51.100.0/24']\n" } else { "" };
        fs::write(&config, sections.clone() + &wrong).unwrap();
        let (code, said) = run_hiding(value, &config, &[]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("cannot listen on") && !said.contains(value), "{said}");
        let environment = vec![("HIDDEN", PathBuf::from(value))];
        let egret = Egret::start_with(Settings { environment, ..Settings::default() }, &sections);
        egret.rewrite(&(sections.clone() + &wrong));
        assert!(!egret.reload());
        let log = egret.log_text();
        assert!(log.contains("cannot listen on") && !log.contains(value), "{log}");
    }
}

#[test]
fn a_part_that_nobody_uses_leaves_the_process_ready() {
    let scene = Scene::new();
    let unused = scene.subjects.iter().filter(|subject| subject.users.is_empty());
    unused.for_each(|subject| subject.spoil(Fault::Missing, &scene.pki));
    let egret = Egret::start(&scene.sections());
    scene.bystander_is_served(&egret);
}

/// The watcher loads the file that was missing, and nobody has to ask for it.
#[test]
fn a_file_that_comes_later_makes_its_upstreams_available() {
    let scene = Scene::new();
    scene.subjects.iter().for_each(|subject| subject.spoil(Fault::Missing, &scene.pki));
    let egret = Egret::start_with(Settings { lacking: true, watch: true, ..Settings::default() }, &scene.sections());
    scene.users_are_unavailable(&egret);
    scene.subjects.iter().for_each(Subject::mend);
    eventually("all upstreams to be available", || (egret.admin("GET", "/readyz").status == 200).then_some(()));
    eventually("all parts to be live", || {
        scene.subjects.iter().all(|subject| subject.state(&egret) == "live").then_some(())
    });
    scene.all_are_served(&egret, "live");
}

#[test]
fn strict_starts_with_all_files_or_not_at_all() {
    let scene = Scene::new();
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    fs::write(&config, scene.sections()).unwrap();
    for subject in &scene.subjects {
        subject.spoil(Fault::Damaged, &scene.pki);
        let (code, said) = egret(&["run", "--strict", config.to_str().unwrap()]);
        assert_eq!(code, 2, "{}: {said}", subject.name);
        assert!(said.contains(&format!("{} {}: ", subject.kind.part(), subject.name)), "{said}");
        subject.mend();
    }
}

#[test]
fn diff_says_which_parts_a_reload_would_keep() {
    let scene = Scene::new();
    let egret = Egret::start(&scene.sections());
    let socket = format!("unix:{}", egret.config().with_file_name("admin.sock").display());
    scene.subjects.iter().for_each(|subject| subject.spoil(Fault::Damaged, &scene.pki));
    let (code, said) =
        crate::support::egret::egret(&["diff", "--json", "--admin", &socket, egret.config().to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    let changes: Vec<Value> = serde_json::from_str(&said).unwrap();
    let told = |change: &Value| format!("{} {} {}", change["fate"], change["kind"], change["name"]).replace('"', "");
    let mut told: Vec<_> = changes.iter().map(told).collect();
    let kept = |subject: &Subject| format!("kept {} {}", subject.kind.part(), subject.name);
    let mut expected: Vec<_> = scene.subjects.iter().map(kept).collect();
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn the_page_for_people_shows_parts_that_are_kept_or_unavailable() {
    let scene = Scene::new();
    let spoil = |name: &str| {
        let subject = scene.subjects.iter().find(|subject| subject.name == name).unwrap();
        subject.spoil(Fault::Missing, &scene.pki);
    };
    spoil("identity1");
    let egret = Egret::start_with(Settings { lacking: true, ..Settings::default() }, &scene.sections());
    spoil("trust1");
    spoil("crl2");
    assert!(egret.reload(), "{}", egret.log_text());
    let socket = egret.config().with_file_name("admin.sock");
    let arguments =
        ["--unix-socket", socket.to_str().unwrap(), "--header", "Accept: text/html", "http://localhost/status"];
    let page = curl(&arguments).body;
    for (name, state, file) in [
        ("identity1", "unavailable", "identity1.crt"),
        ("trust1", "kept", "trust1.pem"),
        ("crl2", "kept", "crl2.crl"),
        ("folder1", "live", ""),
    ] {
        let row = format!("<td><code>{name}</code></td><td><code>{state}</code></td>");
        assert!(page.contains(&row) && page.contains(file), "{name}: {page}");
    }
}
