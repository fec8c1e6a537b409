//! The configurations of the two stories, to the letter: what is found in them, and that what they become runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use egret::tools::import::files::{Disk, Files, ReadError};
use egret::tools::import::{Imported, Options, nginx};

use crate::support::egret::{Egret, Settings};
use crate::support::http::{Answer, curl};
use crate::support::name_server::NameServer;
use crate::support::nginx::{Nginx, certauth, tls};
use crate::support::openssl::OpensslServer;
use crate::support::pki::{Pair, Pki};
use crate::support::{free_port, loopback};

const HOST: &str = "certauth.idrix.fr";
const TRUSTED: &str = "/etc/nginx/certs/upstream-ca.pem";

/// A case of the story, on a machine where the trusted file is this one.
struct Machine<'a> {
    case: &'a str,
    trusted: Option<PathBuf>,
}

impl Files for Machine<'_> {
    fn read(&self, path: &Path) -> Result<String, ReadError> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(self.case);
        Disk::below(&folder).read(&folder.join(path))
    }

    fn certificates(&self, path: &Path) -> Option<String> {
        let trusted = self.trusted.as_ref().filter(|_| path == Path::new(TRUSTED))?;
        std::fs::read_to_string(trusted).ok()
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }
}

impl Machine<'_> {
    fn import(&self, faithful: bool) -> Imported {
        let options = Options { faithful, ..Options::default() };
        nginx::import(self, Path::new("nginx.conf"), &options).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn import(case: &str, faithful: bool) -> Imported {
    Machine { case, trusted: None }.import(faithful)
}

/// Codes and lines of what nginx does that is unsafe.
fn faults(imported: &Imported) -> Vec<(&str, usize)> {
    let report = &imported.report;
    let known = [
        "verify-absent",
        "verify-off",
        "sni-off",
        "sessions-shared",
        "no-name",
        "depth-one",
        "trust-is-the-server",
        "name-of-block",
    ];
    let mut findings: Vec<_> = report.findings.iter().filter(|finding| known.contains(&finding.code.word)).collect();
    findings.sort_by(|one, other| one.place.cmp(&other.place));
    findings.iter().map(|one| (one.code.word, report.sources[one.place.file].position(one.place.start).line)).collect()
}

#[test]
fn faults_of_the_first_story_are_found_one_after_the_other() {
    assert_eq!(
        faults(&import("seed-mtls-first", false)),
        [("verify-absent", 17), ("sni-off", 17), ("verify-absent", 27), ("sni-off", 27), ("sessions-shared", 27)]
    );
    // The name was mended there, the sessions were not.
    assert_eq!(
        faults(&import("seed-mtls-with-sni", false)),
        [("verify-absent", 21), ("verify-absent", 35), ("sessions-shared", 35)]
    );
    assert_eq!(faults(&import("seed-mtls-sessions-off", false)), [("verify-absent", 23), ("verify-absent", 39)]);
    assert_eq!(faults(&import("seed-mtls-fragment", false)), [("verify-absent", 2), ("sni-off", 2)]);
}

#[test]
fn faults_of_the_second_story_are_found_in_the_fix_that_is_none() {
    assert_eq!(faults(&import("seed-502-basic-fix", false)), [("no-name", 2), ("verify-off", 3)]);
    assert_eq!(faults(&import("seed-502-best-practice", false)), []);
}

/// The endpoint of the first story, and egret with a configuration that was imported, on free ports.
struct CertAuth {
    _pki: Pki,
    _nginx: Nginx,
    _names: NameServer,
    egret: Egret,
    listeners: [SocketAddr; 2],
    header: String,
}

impl CertAuth {
    fn start(imported: &Imported) -> Self {
        let pki = Pki::new();
        let (port, names) = (free_port(), NameServer::start(0));
        // Who sends no name meets a server that asks for no certificate.
        let other = tls(&pki.server(&["other.example.com"]), &pki.root(), "TLSv1.2 TLSv1.3");
        let other = format!(
            "server {{ listen 127.0.0.1:{port} ssl default_server; server_name _; {other} location / {{ return 403; }} }}\n"
        );
        let right = certauth(port, "", HOST, "TLSv1.2 TLSv1.3", &pki.server(&[HOST]), &pki);
        let nginx = Nginx::start(&(other + &right), &[port]);
        let listeners = [free_port(), free_port()].map(loopback);
        let client = pki.client("client");
        let config = imported.config.clone().expect("there is something to carry");
        let config = config
            .replace(&format!("{HOST}:443"), &format!("{HOST}:{port}"))
            .replace("/etc/nginx/certs/client.crt", client.certificate.to_str().unwrap())
            .replace("/etc/nginx/certs/client.key", client.key.to_str().unwrap())
            .replace("0.0.0.0:80", "127.0.0.1:80")
            .replace("127.0.0.1:8080", &listeners[0].to_string())
            .replace("127.0.0.1:8081", &listeners[1].to_string());
        let environment = vec![("SSL_CERT_FILE", pki.root())];
        let settings = Settings { environment, ..Settings::default() };
        let egret = Egret::start_with(settings, &format!("[dns]\nservers = [\"{}\"]\n{config}", names.address));
        let header = imported.report.findings.iter().find(|finding| finding.code.word == "http-host");
        let header = header.and_then(|finding| finding.repair.split('"').nth(1)).expect("the Host to be said");
        Self { _pki: pki, _nginx: nginx, _names: names, egret, listeners, header: header.to_owned() }
    }

    /// The line of the story, `curl -vvv localhost:8080/json/`, with the Host that the finding tells to say.
    fn ask(&self, listener: usize) -> Answer {
        let url = format!("{}/json/", self.listeners[listener]);
        curl(&["-vvv", &url, "--header", &self.header])
    }
}

/// 200 with the certificate and 403 without, in any order: what the story wanted to see from the beginning.
#[test]
fn lines_of_the_first_story_get_their_answers_whichever_of_its_configurations_is_imported() {
    for case in ["seed-mtls-first", "seed-mtls-with-sni", "seed-mtls-sessions-off"] {
        let scene = CertAuth::start(&import(case, false));
        for round in 0..6 {
            let [known, unknown] = [scene.ask(0), scene.ask(1)];
            assert_eq!((known.status, unknown.status), (200, 403), "{case}, {round}:\n{}", scene.egret.log_text());
            assert!(known.body.contains(&format!("sni={HOST} ")), "{known:?}");
            assert!(known.body.contains("dn=CN=client "), "{known:?}");
            assert!(unknown.body.contains("dn= "), "{unknown:?}");
        }
    }
}

/// As the story began: 403, since no name was sent.
#[test]
fn faithful_reading_of_the_first_story_fails_as_it_did() {
    let scene = CertAuth::start(&import("seed-mtls-first", true));
    assert_eq!([scene.ask(0).status, scene.ask(1).status], [403, 403], "{}", scene.egret.log_text());
}

/// A self-signed server as in the second story, and egret with a configuration that was imported.
fn second_story(pki: &Pki, pair: &Pair, imported: &Imported) -> (Egret, u16) {
    let server = OpensslServer::start(pki, pair, &[]);
    let listener = loopback(free_port());
    let config = imported.config.clone().expect("there is something to carry");
    let config = config
        .replace("10.0.1.45:8443", &server.address.to_string())
        .replace(TRUSTED, pair.certificate.to_str().unwrap())
        .replace("127.0.0.1:8080", &listener.to_string());
    let egret = Egret::start(&config);
    let status = curl(&[&format!("{listener}/api/")]).status;
    (egret, status)
}

#[test]
fn second_story_is_carried_by_the_practice_it_recommends_and_by_no_other() {
    let pki = Pki::new();
    let name = "internal-service.svc.cluster.local";
    let pair = pki.stock_self_signed("stock", name, &["-addext", &format!("subjectAltName=DNS:{name}")]);
    let machine = |case| Machine { case, trusted: Some(pair.certificate.clone()) };

    // The file was pulled off the wire: it is the server's own certificate, and is believed as such.
    let practice = machine("seed-502-best-practice").import(false);
    assert_eq!(faults(&practice), [("trust-is-the-server", 5)]);
    let (egret, status) = second_story(&pki, &pair, &practice);
    assert_eq!(status, 200, "{}", egret.log_text());

    let (egret, status) = second_story(&pki, &pair, &machine("seed-502-basic-fix").import(false));
    assert_eq!(status, 0, "nobody said whom to believe");
    let line = egret.wait_for_log("the refusal", |line| line["message"] == "origination failed");
    assert_eq!(line["reason"], "certificate_self_signed", "{line}");

    let (egret, status) = second_story(&pki, &pair, &machine("seed-502-basic-fix").import(true));
    assert_eq!(status, 200, "as it was, by an insecure setting with its reason\n{}", egret.log_text());
}
