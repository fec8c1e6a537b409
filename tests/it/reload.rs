//! A reload changes what it should, all at once or not at all.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::egret::{Egret, Settings, listener, roots};
use crate::support::nginx::{Nginx, certauth};
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::{Leaf, Pair, Pki, replace};
use crate::support::{eventually, free_port, http, loopback, plain};

const HOST: &str = "certauth.example.com";

/// nginx, and the sections of an upstream to it with the identity of `pair`.
pub(crate) struct Scene {
    pub(crate) pki: Pki,
    _nginx: Nginx,
    port: u16,
}

impl Scene {
    pub(crate) fn new(protocols: &str) -> Self {
        let pki = Pki::new();
        let port = free_port();
        let _nginx = Nginx::start(&certauth(port, "", HOST, protocols, &pki.server(&[HOST]), &pki), &[port]);
        Self { pki, _nginx, port }
    }

    fn upstream(&self, name: &str, identity: &str) -> String {
        let tls = format!("tls = {{ identity = \"{identity}\", trust = \"internal\", server_name = \"{HOST}\" }}");
        format!("[upstreams.{name}]\nservers = [\"127.0.0.1:{}\"]\n{tls}\n", self.port)
    }

    /// One upstream and one listener, both called `app`, with this identity.
    pub(crate) fn sections(&self, pair: &Pair) -> String {
        roots("internal", &self.pki.root())
            + &pair.identity("app")
            + &self.upstream("app", "app")
            + &listener("app", free_port(), "app")
    }
}

/// What nginx saw of a connection through this listener.
pub(crate) fn seen(address: SocketAddr) -> String {
    let answer = http::get(address);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

fn rotate(pki: &Pki, stem: &str, common_name: &str) -> Pair {
    pki.issue(stem, &Leaf { common_name, names: &[], valid: (-1, 90) })
}

fn unchanged_resume_and_rotated_do_not(protocols: &str) {
    let scene = Scene::new(protocols);
    let stays = scene.pki.client("stays");
    let rotated = rotate(&scene.pki, "rotated", "before");
    let sections = roots("internal", &scene.pki.root())
        + &stays.identity("stays")
        + &rotated.identity("rotated")
        + &scene.upstream("stays", "stays")
        + &scene.upstream("rotated", "rotated")
        + &listener("stays", free_port(), "stays")
        + &listener("rotated", free_port(), "rotated");
    let egret = Egret::start(&sections);
    let [stays, rotated] = ["stays", "rotated"].map(|name| egret.address(name));
    for address in [stays, rotated] {
        seen(address);
        assert!(seen(address).contains("reused=r "), "the second connection resumes\n{}", egret.log_text());
    }

    rotate(&scene.pki, "rotated", "after");
    assert!(egret.reload(), "{}", egret.log_text());

    let first = seen(rotated);
    assert!(first.contains("dn=CN=after ") && first.contains("reused=. "), "{first}");
    let second = seen(rotated);
    assert!(second.contains("dn=CN=after ") && second.contains("reused=r "), "{second}");
    let first = seen(stays);
    assert!(first.contains("dn=CN=stays ") && first.contains("reused=r "), "{first}\n{}", egret.log_text());
}

#[test]
fn unchanged_origins_resume_after_a_reload_and_rotated_ones_do_not() {
    unchanged_resume_and_rotated_do_not("TLSv1.2");
    unchanged_resume_and_rotated_do_not("TLSv1.3");
}

#[test]
fn broken_reload_keeps_the_generation_and_says_so() {
    let scene = Scene::new("TLSv1.3");
    let pair = scene.pki.client("app");
    let sections = scene.sections(&pair);
    let egret = Egret::start(&sections);
    let generation = egret.generation();
    let taken = TcpListener::bind(loopback(0)).unwrap();

    for broken in [
        format!("{sections}\nno_such_key = 1\n"),
        "this is no TOML".to_owned(),
        sections.clone() + &listener("taken", taken.local_addr().unwrap().port(), "app"),
    ] {
        let before = egret.log_text().len();
        egret.rewrite(&broken);
        assert!(!egret.reload(), "accepted:\n{broken}");
        assert_eq!(egret.generation(), generation);
        let said = egret.log_text()[before..].to_lowercase();
        assert!(said.contains(&format!("kept generation {generation}")), "does not say that it is kept:\n{said}");
        assert!(seen(egret.address("app")).contains("dn=CN=app "));
    }
    let rejected = egret.metrics().sum("egret_reloads_total", &[("result", "rejected")]);
    assert_eq!(rejected, 3.0);

    egret.rewrite(&sections);
    assert_ne!(egret.admin("POST", "/reload").status, 404);
    eventually("the whole configuration to be taken", || (egret.generation() > generation).then_some(()));
}

#[test]
fn failed_reload_is_an_error_to_whoever_posted_it() {
    let scene = Scene::new("TLSv1.3");
    let sections = scene.sections(&scene.pki.client("app"));
    let egret = Egret::start(&sections);
    let answer = egret.admin("POST", "/reload");
    assert!((200..300).contains(&answer.status), "{answer:?}");
    egret.rewrite("this is no TOML");
    let answer = egret.admin("POST", "/reload");
    assert!(answer.status >= 400, "{answer:?}");
    assert!(!answer.body.is_empty(), "the answer says why");
}

/// Certificate and key are two files: whoever replaces them replaces one first.
#[test]
fn half_replaced_pair_is_not_loaded_and_the_whole_one_is() {
    let scene = Scene::new("TLSv1.3");
    let pair = rotate(&scene.pki, "app", "before");
    let settings = Settings { watch: true, ..Settings::default() };
    let egret = Egret::start_with(settings, &scene.sections(&pair));
    let address = egret.address("app");
    assert!(seen(address).contains("dn=CN=before "));

    let next = rotate(&scene.pki, "next", "after");
    replace(&pair.certificate, &fs::read_to_string(&next.certificate).unwrap(), 0o644);
    let kept = [("kind", "identity"), ("name", "app"), ("state", "kept")];
    eventually("the half to be noticed", || (egret.metrics().sum("egret_part_state", &kept) == 1.0).then_some(()));
    assert!(seen(address).contains("dn=CN=before "), "{}", egret.log_text());

    replace(&pair.key, &fs::read_to_string(&next.key).unwrap(), 0o600);
    eventually("the new identity", || seen(address).contains("dn=CN=after ").then_some(()));
}

/// Kubernetes mounts a secret as links into a folder that is itself a link, and swaps that one.
#[test]
fn swap_of_the_data_link_is_picked_up() {
    let scene = Scene::new("TLSv1.3");
    let mount = scene.pki.folder().join("mount");
    fs::create_dir(&mount).unwrap();
    let publish = |version: &str, common_name: &str| {
        let pair = rotate(&scene.pki, version, common_name);
        let folder = mount.join(version);
        fs::create_dir(&folder).unwrap();
        fs::rename(&pair.certificate, folder.join("tls.crt")).unwrap();
        fs::rename(&pair.key, folder.join("tls.key")).unwrap();
        symlink(version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    publish("..v1", "before");
    let file = |name: &str| {
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
        mount.join(name)
    };
    let mut pair = scene.pki.client("template");
    pair.certificate = file("tls.crt");
    pair.key = file("tls.key");
    let settings = Settings { watch: true, ..Settings::default() };
    let egret = Egret::start_with(settings, &scene.sections(&pair));
    let address = egret.address("app");
    assert!(seen(address).contains("dn=CN=before "));
    for (version, name) in [("..v2", "second"), ("..v3", "third")] {
        publish(version, name);
        eventually(name, || seen(address).contains(&format!("dn=CN={name} ")).then_some(()));
    }
}

/// Also by the watcher: listeners come and go, and streams of one that went live on.
#[test]
fn listeners_are_added_and_removed_without_touching_streams() {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let upstream = format!(
        "{}[upstreams.echo]\nservers = [\"{}\"]\ntls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\n",
        roots("internal", &pki.root()),
        peer.address
    );
    let kept = listener("kept", free_port(), "echo");
    let settings = Settings { watch: true, ..Settings::default() };
    let egret = Egret::start_with(settings, &(upstream.clone() + &kept + &listener("old", free_port(), "echo")));
    let old = egret.address("old");
    let mut streams = [plain::connect(egret.address("kept")), plain::connect(old)];
    streams.iter_mut().for_each(echoes);

    egret.rewrite(&(upstream + &kept + &listener("new", free_port(), "echo")));
    echoes(&mut plain::connect(egret.address("new")));
    eventually("the old listener to be gone", || TcpStream::connect(old).is_err().then_some(()));
    streams.iter_mut().for_each(echoes);
}

fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"still here").unwrap();
    let mut back = [0; 10];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still here");
}

#[test]
fn reload_that_switches_verification_off_says_so() {
    let scene = Scene::new("TLSv1.3");
    let sections = scene.sections(&scene.pki.client("app"));
    let egret = Egret::start(&sections);
    let insecure = "tls = { verify = \"none\", insecure_reason = \"a test\", ";
    egret.rewrite(&sections.replace("tls = { ", insecure));
    assert!(egret.reload(), "{}", egret.log_text());
    egret.wait_for_log("advice", |line| line["level"] == "WARN" && line["code"] == "verify-none");
}
