//! Several admin addresses of a real process: roles, tokens, and what an order to drain answers.

use std::fs;
use std::path::Path;

use crate::lifecycle::Scene;
use crate::support::egret::{Egret, Settings, egret, listener};
use crate::support::pki::replace;
use crate::support::{PATIENCE, eventually, free_port, http};

const OLD: &str = "first-token-of-a-test";
const NEW: &str = "second-token-of-a-test";

struct Stage {
    scene: Scene,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { scene: Scene::new(""), folder: tempfile::tempdir().unwrap() };
        fs::write(stage.token(), format!("{OLD}\n")).unwrap();
        stage
    }

    fn token(&self) -> std::path::PathBuf {
        self.folder.path().join("token")
    }

    fn socket(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration of a test is in `[admin]` form: it is written as a list here.
    fn config(&self, watch: bool) -> String {
        let admin =
            |name: &str, more: &str| format!("[[admin]]\nlisten = \"unix:{}\"\n{more}\n", self.socket(name).display());
        format!(
            "drain_timeout = \"1s\"\n[log]\nformat = \"json\"\n[reload]\nwatch = {watch}\n{}{}{}{}",
            admin("read.sock", "role = \"read\""),
            admin("control.sock", &format!("role = \"control\"\ntoken_file = {:?}", self.token())),
            self.scene.upstream,
            listener("echo", free_port(), "echo"),
        )
    }

    fn start(&self) -> Egret {
        Egret::start_as_written(Settings::default(), &self.config(true), &self.socket("read.sock"))
    }
}

fn ask(socket: &Path, method: &str, path: &str, token: Option<&str>) -> u16 {
    let url = format!("http://localhost{path}");
    let shown = token.map(|token| format!("Authorization: Bearer {token}"));
    let mut arguments = vec!["--unix-socket", socket.to_str().unwrap(), "--request", method, &url];
    arguments.extend(shown.iter().flat_map(|shown| ["--header", shown.as_str()]));
    http::curl(&arguments).status
}

#[test]
fn each_address_has_its_role_and_its_token() {
    let stage = Stage::new();
    let mut egret = stage.start();
    let (read, control) = (stage.socket("read.sock"), stage.socket("control.sock"));
    for (socket, method, path, token, status) in [
        (&read, "GET", "/metrics", None, 200),
        (&read, "GET", "/status", None, 200),
        (&read, "GET", "/config", None, 403),
        (&read, "POST", "/drain", None, 403),
        (&read, "POST", "/quit", Some(OLD), 403),
        (&control, "GET", "/readyz", None, 200),
        (&control, "GET", "/metrics", None, 401),
        (&control, "POST", "/drain", Some(NEW), 401),
        (&control, "GET", "/config", Some(OLD), 200),
        (&control, "POST", "/reload", Some(OLD), 200),
    ] {
        assert_eq!(ask(socket, method, path, token), status, "{method} {path} {token:?}");
    }
    assert_eq!(ask(&control, "POST", "/quit", Some(OLD)), 202);
    assert_eq!(egret.wait(PATIENCE), Some(0), "{}", egret.log_text());
    assert!(!egret.log_text().contains(OLD) && !egret.log_text().contains(NEW), "{}", egret.log_text());
}

#[test]
fn a_token_is_read_again_when_its_file_changes_and_is_nowhere_shown() {
    let stage = Stage::new();
    let egret = stage.start();
    let control = stage.socket("control.sock");
    assert_eq!(ask(&control, "GET", "/config", Some(OLD)), 200);
    replace(&stage.token(), &format!("{NEW}\n"), 0o600);
    eventually("the new token", || (ask(&control, "GET", "/config", Some(NEW)) == 200).then_some(()));
    assert_eq!(ask(&control, "GET", "/config", Some(OLD)), 401);
    // Without a token in the file the reload is refused, and the running token stays.
    replace(&stage.token(), "\n", 0o600);
    egret.wait_for_log("a refused reload", |line| line["reason"] == "admin_token_unusable");
    assert_eq!(ask(&control, "GET", "/config", Some(NEW)), 200);
    for path in ["/config", "/status", "/outline"] {
        let url = format!("http://localhost{path}");
        let header = format!("Authorization: Bearer {NEW}");
        let socket = control.to_str().unwrap();
        let answer = http::curl(&["--unix-socket", socket, "--header", &header, &url]);
        assert!(answer.status == 200 && !answer.body.contains(NEW), "{path}: {answer:?}");
    }
    assert!(!egret.log_text().contains(OLD) && !egret.log_text().contains(NEW), "{}", egret.log_text());
}

#[test]
fn a_start_without_its_token_fails() {
    let stage = Stage::new();
    let path = stage.folder.path().join("egret.toml");
    fs::write(&path, stage.config(false)).unwrap();
    fs::remove_file(stage.token()).unwrap();
    for command in ["run", "check"] {
        let (code, text) = egret(&[command, path.to_str().unwrap()]);
        assert_eq!(code, 2, "{command}: {text}");
        assert!(text.contains("token"), "{command}: {text}");
    }
}

#[test]
fn health_shows_the_token() {
    let stage = Stage::new();
    let _egret = stage.start();
    let admin = format!("unix:{}", stage.socket("control.sock").display());
    let token = stage.token();
    let (code, text) = egret(&["health", "--admin", &admin, "--upstreams"]);
    assert_eq!((code, text.as_str()), (1, "a bearer token is needed\n"));
    let ready = || egret(&["health", "--admin", &admin, "--upstreams", "--token-file", token.to_str().unwrap()]).0;
    eventually("the upstreams to be proven", || (ready() == 0).then_some(()));
}

/// The process ends right after it: the answer is sent all the same, each time.
#[test]
fn an_order_to_drain_is_always_answered() {
    let scene = Scene::new("");
    let sections = scene.upstream + &listener("echo", free_port(), "echo");
    for path in ["/drain", "/quit"].into_iter().cycle().take(30) {
        let mut egret = Egret::start(&sections);
        let answer = egret.admin("POST", path);
        assert_eq!((answer.exit, answer.status), (0, 202), "{path}\n{}", egret.log_text());
        assert_eq!(egret.wait(PATIENCE), Some(0), "{}", egret.log_text());
    }
}
