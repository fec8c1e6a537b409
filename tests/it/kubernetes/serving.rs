//! The rendered pods serve: streams to a real server that judges the client certificate, probes, rotation, order and end.

use std::fs;
use std::path::Path;
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::pod::{ADDRESS, Pod, Stored};
use super::tools::{objects, root};
use crate::support::nginx::certauth;
use crate::support::pki::{Pair, Pki};
use crate::support::process::{Process, attempt};
use crate::support::{PATIENCE, eventually};

const HOST: &str = "api.example.com";

fn rendered(base: &str) -> Vec<Value> {
    let path = root().join("deploy/kubernetes/bases").join(base).join("resources.yaml");
    objects(&fs::read_to_string(path).unwrap())
}

/// What cert-manager and trust-manager would have stored.
fn stored(pki: &Pki, client: &Pair) -> Stored {
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let entry = |name: &str, files: &[(&str, &Path)]| {
        let files = files.iter().map(|(key, path)| ((*key).to_owned(), read(path)));
        (name.to_owned(), files.collect())
    };
    Stored::from([
        entry("egret-client", &[("tls.crt", &client.certificate), ("tls.key", &client.key)]),
        entry("internal-roots", &[("ca.crt", &pki.root())]),
    ])
}

/// An nginx on the port of the rendered upstream, in the pod's network, which answers 200 to a client with a certificate.
struct Server {
    _process: Process,
    _folder: TempDir,
}

impl Server {
    fn start(pod: &Pod, pki: &Pki) -> Self {
        let folder = TempDir::new().unwrap();
        let block = certauth(443, "", HOST, "TLSv1.3", &pki.server(&[HOST]), pki);
        let text = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{ }}\nhttp {{ access_log off; \
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; \
             scgi_temp_path scgi; {block} }}\n"
        );
        let config = folder.path().join("nginx.conf");
        fs::write(&config, text).unwrap();
        let mut command = pod.namespace.guarded("/usr/sbin/nginx");
        command.arg("-p").arg(folder.path()).arg("-e").arg(folder.path().join("error.log")).arg("-c").arg(&config);
        let process = Process::spawn("nginx", command, &folder.path().join("output.log"));
        Self { _process: process, _folder: folder }
    }
}

/// A request through egret, by a process of the pod's network: status and body.
fn ask(pod: &Pod, address: &str) -> Option<(u16, String)> {
    let url = format!("http://{address}/");
    let mut command = pod.namespace.guarded("curl");
    answer(&attempt(command.args(["-sS", "--max-time", "10", "-w", "\n%{http_code}", &url])))
}

fn answer(output: &Output) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n')?;
    output.status.success().then(|| (status.parse().unwrap(), body.to_owned()))
}

#[test]
fn gateway_presents_its_certificate_and_a_new_secret_is_live_without_a_restart() {
    for (base, kind) in [("gateway", "Deployment"), ("node", "DaemonSet")] {
        let pki = Pki::new();
        let mut pod = Pod::new(&rendered(base), kind, stored(&pki, &pki.client("first")));
        let _server = Server::start(&pod, &pki);
        let mut egret = pod.start("egret");
        eventually("the probe of readiness to pass", || pod.probe("egret", "readinessProbe").0.then_some(()));
        assert!(pod.probe("egret", "livenessProbe").0, "{}", egret.output());

        let clients = format!("{ADDRESS}:8080");
        let (status, seen) = eventually("an answer of the server", || ask(&pod, &clients));
        assert!(status == 200 && seen.contains("dn=CN=first verify=SUCCESS"), "{base}: {status} {seen}");

        // cert-manager has renewed: the kubelet swaps the whole volume.
        pod.mount(stored(&pki, &pki.client("second")));
        eventually("the new certificate to be presented", || {
            ask(&pod, &clients).filter(|(status, seen)| *status == 200 && seen.contains("dn=CN=second")).map(drop)
        });

        // A client outside of the networks that the configuration names.
        let outside =
            attempt(pod.namespace.guarded("curl").args(["-sS", "--max-time", "10", "http://127.0.0.1:8080/"]));
        assert!(!outside.status.success(), "{base}: {outside:?}");

        egret.signal(Signal::TERM);
        let status = egret.wait(PATIENCE).expect("it ends");
        assert_eq!(status.code(), Some(0), "{base}: {}", egret.output());
        assert!(!pod.probe("egret", "readinessProbe").0, "nothing answers for a pod that has ended");
    }
}

#[test]
fn sidecar_lets_the_application_start_only_once_the_server_has_accepted_the_certificate() {
    for (base, kind) in [("sidecar", "Deployment"), ("job", "Job")] {
        let pki = Pki::new();
        let pod = Pod::new(&rendered(base), kind, stored(&pki, &pki.client("app")));
        // Native: the kubelet starts it first, waits for its probe of startup, and ends it last.
        let [sidecar] = &pod.spec()["initContainers"].as_array().unwrap()[..] else { panic!("{}", pod.spec()) };
        assert_eq!(sidecar["restartPolicy"], "Always");

        let mut egret = pod.start("egret");
        eventually("egret to listen", || {
            let (passes, said) = pod.probe("egret", "startupProbe");
            assert!(!passes, "there is no server yet: {said}");
            said.contains("connect_refused").then_some(())
        });
        let _server = Server::start(&pod, &pki);
        eventually("the probe of startup to pass", || pod.probe("egret", "startupProbe").0.then_some(()));
        assert!(pod.probe("egret", "readinessProbe").0 && pod.probe("egret", "livenessProbe").0);

        // The first try of the application, with the environment that it is given.
        let script = "curl -sS --max-time 10 -w '\\n%{http_code}' \"$API_URL/\"";
        let output = pod.beside("application", &["sh", "-c", script]);
        let (status, seen) = answer(&output).unwrap_or_else(|| panic!("{output:?}"));
        assert!(status == 200 && seen.contains("dn=CN=app verify=SUCCESS"), "{base}: {status} {seen}");

        // Nobody outside of the pod can use the identity.
        assert!(ask(&pod, &format!("{ADDRESS}:8080")).is_none(), "the sidecar listens on the pod's address");

        egret.signal(Signal::TERM);
        let status = egret.wait(PATIENCE).expect("it ends after the application");
        assert_eq!(status.code(), Some(0), "{base}: {}", egret.output());
    }
}

#[test]
fn a_pod_without_its_secret_or_with_a_key_of_another_certificate_is_never_ready() {
    let pki = Pki::new();
    let mut mixed = pki.client("app");
    mixed.key = pki.client("other").key;
    let pod = Pod::new(&rendered("gateway"), "Deployment", stored(&pki, &mixed));
    let mut egret = pod.start("egret");
    let status = egret.wait(PATIENCE).expect("it ends, and the kubelet tries again");
    assert_eq!(status.code(), Some(2), "{}", egret.output());
    assert!(egret.output().contains("identity_key_mismatch"), "{}", egret.output());
}
