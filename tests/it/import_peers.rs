//! Configurations of the kinds that nginx and stunnel test themselves with: run by their own program first and then,
//! imported with `--faithful` and nothing else, by egret. Every client gets the same answer.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::egret::{Egret, Settings};
use crate::support::pki::{Leaf, Pair, Pki};
use crate::support::process::{Process, attempt, guarded, run};
use crate::support::{PATIENCE, free_port, loopback};

/// The program whose configuration is imported.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Program {
    Nginx,
    Stunnel,
}

/// A configuration, the ports that its clients use, and the answer at each of them; empty: no answer.
struct Kind {
    what: &'static str,
    program: Program,
    text: String,
    answers: Vec<(u16, Vec<String>)>,
}

/// Certificates under the names that the configurations use, and servers that report what they saw.
struct Scene {
    folder: TempDir,
    _backend: Process,
    /// TLS, any client certificate or none; answers name and certificate.
    any: u16,
    /// The same with a certificate for a common name alone.
    common_name: u16,
    /// The same with a certificate that is on the revocation list.
    revoked: u16,
    /// The same with a self-signed certificate, which has a common name alone.
    own: u16,
    /// The same on `::1`.
    v6: u16,
    /// Answers the version.
    versions: u16,
    /// Answers whether the session was continued.
    sessions: u16,
}

impl Scene {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let (pki, stranger) = (Pki::new(), Pki::new());
        let put = |name: &str, from: &Path| {
            fs::copy(from, folder.path().join(name)).unwrap();
        };
        let pair = |name: &str, pair: &Pair| {
            put(&format!("{name}.crt"), &pair.certificate);
            put(&format!("{name}.key"), &pair.key);
        };
        pair("right", &pki.server(&["right.example.com", "*.wild.example.com"]));
        pair("common", &pki.issue("common", &Leaf { common_name: "common.example.com", names: &[], valid: (-1, 30) }));
        pair("own", &pki.stock_self_signed("own", "own.example.com", &[]));
        let revoked = pki.server(&["right.example.com"]);
        pair("revoked", &revoked);
        put("list.crl", &pki.crl(&[&revoked]));
        pair("one", &pki.client("one"));
        pair("two", &pki.client("two"));
        pair("three", &pki.client("three"));
        let sealed = folder.path().join("sealed.key");
        let mut seal = Command::new("openssl");
        seal.args(["pkcs8", "-topk8", "-passout", "pass:wisdom", "-in"]).arg(folder.path().join("three.key"));
        run(seal.arg("-out").arg(sealed));
        fs::write(folder.path().join("password"), "wisdom\n").unwrap();
        put("root.pem", &pki.both());
        put("other.pem", &stranger.root());
        let [any, common_name, own, revoked, v6, versions, sessions] = std::array::from_fn(|_| free_port());
        let site = |listen: &str, name: &str, more: &str| {
            format!(
                "server {{ listen {listen} ssl; ssl_certificate {name}.crt; ssl_certificate_key {name}.key; {more} }}\n"
            )
        };
        let seen = "ssl_verify_client optional_no_ca; return '$name|$ssl_client_s_dn';";
        let servers = [
            site(&format!("127.0.0.1:{any}"), "right", seen),
            site(&format!("127.0.0.1:{common_name}"), "common", seen),
            site(&format!("127.0.0.1:{own}"), "own", seen),
            site(&format!("127.0.0.1:{revoked}"), "revoked", seen),
            site(&format!("[::1]:{v6}"), "right", seen),
            site(&format!("127.0.0.1:{versions}"), "right", "return $ssl_protocol;"),
            site(&format!("127.0.0.1:{sessions}"), "right", "ssl_session_cache builtin; return $ssl_session_reused;"),
        ];
        // stunnel sends an address as the server name, which RFC 6066 forbids and egret never does.
        let common = "ssl_protocols TLSv1.2 TLSv1.3; map $ssl_server_name $name { default $ssl_server_name; 127.0.0.1 ''; ::1 ''; }";
        let text = format!("{}stream {{ {common} {} }}\n", nginx_head("backend"), servers.concat());
        let mut backend = nginx(folder.path(), "backend", &text);
        [any, common_name, own, revoked, versions, sessions]
            .iter()
            .for_each(|port| backend.wait_for_port(loopback(*port)));
        Self { folder, _backend: backend, any, common_name, own, revoked, v6, versions, sessions }
    }

    /// The program with this configuration answers as expected, and egret with what became of it.
    fn check(&self, kind: &Kind) -> Result<(), String> {
        let folder = self.folder.path();
        let theirs = {
            let mut process = match kind.program {
                Program::Nginx => nginx(folder, "proxy", &kind.text),
                Program::Stunnel => stunnel(folder, &kind.text),
            };
            kind.answers.iter().for_each(|(port, _)| process.wait_for_port(loopback(*port)));
            kind.ask(|port| port)
        };
        if let Some(wrong) = kind.wrong(&theirs) {
            return Err(format!("{:?} itself: {wrong}", kind.program));
        }
        let program = if kind.program == Program::Nginx { "nginx" } else { "stunnel" };
        let mut import = Command::new(env!("CARGO_BIN_EXE_egret"));
        import.current_dir(folder).args(["import", program, "proxy.conf", "--faithful", "--strict"]);
        let output = attempt(&mut import);
        let (mut made, shown) = (text(&output.stdout), text(&output.stderr));
        if output.status.code() != Some(0) {
            return Err(format!("exit {:?}\n{shown}\n{made}", output.status.code()));
        }
        let moved: Vec<(u16, u16)> = kind.answers.iter().map(|(port, _)| (*port, free_port())).collect();
        for (from, to) in &moved {
            made = made.replace(&format!("listen = \"127.0.0.1:{from}\""), &format!("listen = \"127.0.0.1:{to}\""));
        }
        let egret = Egret::start_with(Settings { lacking: true, ..Settings::default() }, &made);
        let ours = kind.ask(|port| moved.iter().find(|(from, _)| *from == port).expect("every port has moved").1);
        match kind.wrong(&ours) {
            Some(wrong) => Err(format!("egret: {wrong}\n{shown}\n{made}\n{}", egret.log_text())),
            None => Ok(()),
        }
    }
}

impl Kind {
    fn ask(&self, port: impl Fn(u16) -> u16) -> Vec<Vec<String>> {
        let one = |(from, answers): &(u16, Vec<String>)| {
            let address = loopback(port(*from));
            // Whoever waited for nginx's port has made a session; nobody waited for egret's.
            answer(address);
            answers.iter().map(|_| answer(address)).collect()
        };
        self.answers.iter().map(one).collect()
    }

    fn wrong(&self, heard: &[Vec<String>]) -> Option<String> {
        let pairs = self.answers.iter().zip(heard);
        let differ = pairs.filter(|((_, expected), heard)| expected != *heard);
        let wrong: Vec<String> =
            differ.map(|((port, expected), heard)| format!("{port}: {heard:?}, not {expected:?}")).collect();
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }
}

/// What the server says first, and then ends; empty if the client is refused.
fn answer(address: SocketAddr) -> String {
    let Ok(mut tcp) = TcpStream::connect(address) else { return String::new() };
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    let _ = tcp.write_all(b"\n");
    let _ = tcp.read_to_end(&mut heard);
    text(&heard).trim().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn nginx_head(name: &str) -> String {
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\npid {name}.pid;\n\
         error_log {name}.log info;\nevents {{ }}\n"
    )
}

fn nginx(folder: &Path, name: &str, text: &str) -> Process {
    let config = folder.join(format!("{name}.conf"));
    fs::write(&config, text).unwrap();
    let mut command = guarded("/usr/sbin/nginx");
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("start.log")).arg("-c").arg(&config);
    Process::spawn("nginx", command, &folder.join("nginx.out"))
}

fn stunnel(folder: &Path, text: &str) -> Process {
    let config = folder.join("proxy.conf");
    fs::write(&config, text).unwrap();
    let mut command = guarded("/usr/bin/stunnel4");
    command.current_dir(folder).arg(&config);
    Process::spawn("stunnel", command, &folder.join("stunnel.out"))
}

/// `stream` of nginx with these servers, and the ports of them: `PORT` in a server, `PORT0` and so on before them.
fn of_nginx(what: &'static str, common: &str, servers: Vec<(String, Vec<&'static str>)>) -> Kind {
    let ports: Vec<u16> = servers.iter().map(|_| free_port()).collect();
    let numbered =
        |text: String, (number, port): (usize, &u16)| text.replace(&format!("PORT{number}"), &port.to_string());
    let common = ports.iter().enumerate().fold(common.to_owned(), numbered);
    let mut text = format!("{}stream {{\nproxy_ssl on;\n{common}\n", nginx_head("proxy"));
    let mut answers = Vec::new();
    for ((settings, expected), port) in servers.into_iter().zip(ports) {
        text += &format!("server {{ listen 127.0.0.1:{port};\n{settings} }}\n");
        answers.push((port, expected.iter().map(|answer| answer.replace("PORT", &port.to_string())).collect()));
    }
    text += "}\n";
    Kind { what, program: Program::Nginx, text, answers }
}

/// One service of stunnel, to the server at this address.
fn of_stunnel(what: &'static str, connect: &str, settings: &str, expected: &[&'static str]) -> Kind {
    let port = free_port();
    let text = format!(
        "foreground = yes\ndebug = info\nsyslog = no\npid =\n[client]\nclient = yes\naccept = 127.0.0.1:{port}\n\
         connect = {connect}\n{settings}\n"
    );
    Kind {
        what,
        program: Program::Stunnel,
        text,
        answers: vec![(port, expected.iter().map(ToString::to_string).collect())],
    }
}

fn all_are_right(scene: &Scene, kinds: &[Kind]) {
    let wrong: Vec<String> = kinds
        .iter()
        .filter_map(|kind| scene.check(kind).err().map(|why| format!("{}: {why}\n{}", kind.what, kind.text)))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n\n{}", wrong.len(), kinds.len(), wrong.join("\n\n"));
}

const REFUSED: &str = "";

#[test]
fn what_nginx_tests_itself_with_is_carried_as_it_is() {
    let scene = Scene::start();
    let to = |port: u16, more: &str| format!("proxy_pass 127.0.0.1:{port}; {more}");
    let any = |more: &str| to(scene.any, more);
    let own = |name: &str| any(&format!("proxy_ssl_certificate {name}.crt; proxy_ssl_certificate_key {name}.key;"));
    let (one, two, three) = ("|CN=one", "|CN=two", "|CN=three");
    let verify = |port: u16, name: &str, root: &str| {
        to(
            port,
            &format!(
                "proxy_ssl_verify on; proxy_ssl_name {name}; proxy_ssl_trusted_certificate {root}; proxy_ssl_verify_depth 3;"
            ),
        )
    };
    let nobody = "|";
    // With sessions, nginx presents a certificate of one server in another.
    let map = "proxy_ssl_session_reuse off; map $server_port $who { PORT0 one; PORT1 two; default ''; }
        proxy_ssl_certificate $who.crt; proxy_ssl_certificate_key $who.key;";
    all_are_right(
        &scene,
        &[
            of_nginx(
                "sessions",
                "",
                vec![
                    (to(scene.sessions, "proxy_ssl_session_reuse off;"), vec![".", "."]),
                    (to(scene.sessions, "proxy_ssl_session_reuse on;"), vec!["r", "r"]),
                ],
            ),
            of_nginx(
                "names",
                &format!("proxy_ssl_session_reuse off; upstream block {{ server 127.0.0.1:{}; }}", scene.any),
                vec![
                    ("proxy_pass block; proxy_ssl_server_name off;".into(), vec![nobody]),
                    ("proxy_pass block; proxy_ssl_server_name on;".into(), vec!["block|"]),
                    (any("proxy_ssl_server_name on; proxy_ssl_name other.example.com;"), vec!["other.example.com|"]),
                    (
                        any("proxy_ssl_server_name on; proxy_ssl_name other.example.com:123;"),
                        vec!["other.example.com|"],
                    ),
                    (any("proxy_ssl_server_name on;"), vec![nobody]),
                    (
                        any("proxy_ssl_server_name on; proxy_ssl_name x${server_port}x.example.com;"),
                        vec!["xPORTx.example.com|"],
                    ),
                ],
            ),
            of_nginx(
                "certificates",
                "proxy_ssl_session_reuse off;",
                vec![
                    (own("one"), vec![one]),
                    (own("two"), vec![two]),
                    (
                        any(
                            "proxy_ssl_certificate three.crt; proxy_ssl_certificate_key sealed.key; proxy_ssl_password_file password;",
                        ),
                        vec![three],
                    ),
                    (any(""), vec![nobody]),
                ],
            ),
            of_nginx(
                "certificates by a map",
                map,
                vec![
                    (any(""), vec![one]),
                    (any(""), vec![two]),
                    (any("proxy_ssl_certificate $who; proxy_ssl_certificate_key $who;"), vec![nobody]),
                ],
            ),
            of_nginx(
                "commands to OpenSSL",
                "",
                vec![
                    (
                        any("proxy_ssl_certificate one.crt; proxy_ssl_certificate_key one.key;
                      proxy_ssl_conf_command Certificate two.crt; proxy_ssl_conf_command PrivateKey two.key;"),
                        vec![two],
                    ),
                    (
                        to(
                            scene.versions,
                            "proxy_ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_conf_command MaxProtocol TLSv1.2;",
                        ),
                        vec!["TLSv1.2"],
                    ),
                    (to(scene.versions, "proxy_ssl_protocols TLSv1.2;"), vec!["TLSv1.2"]),
                ],
            ),
            of_nginx(
                "verification",
                "proxy_ssl_session_reuse off;",
                vec![
                    (verify(scene.any, "right.example.com", "root.pem"), vec![nobody]),
                    (verify(scene.any, "a.wild.example.com", "root.pem"), vec![nobody]),
                    (verify(scene.any, "wrong.example.com", "root.pem"), vec![REFUSED]),
                    (verify(scene.any, "right.example.com", "other.pem"), vec![REFUSED]),
                    (verify(scene.common_name, "common.example.com", "root.pem"), vec![nobody]),
                    (verify(scene.common_name, "wrong.example.com", "root.pem"), vec![REFUSED]),
                    (verify(scene.own, "own.example.com", "own.crt"), vec![nobody]),
                    (verify(scene.own, "wrong.example.com", "own.crt"), vec![REFUSED]),
                ],
            ),
            of_nginx(
                "a zone",
                &format!("upstream block {{ zone shared 64k; server 127.0.0.1:{}; }}", scene.any),
                vec![("proxy_pass block;".into(), vec![nobody])],
            ),
        ],
    );
}

#[test]
fn what_stunnel_tests_itself_with_is_carried_as_it_is() {
    let scene = Scene::start();
    let at = |port: u16| format!("127.0.0.1:{port}");
    let any = at(scene.any);
    let (nobody, root) = ("|", "CAfile = root.pem");
    let service = |what, settings: &str, expected: &[&'static str]| of_stunnel(what, &any, settings, expected);
    let dead = at(free_port());
    all_are_right(
        &scene,
        &[
            service("no certificate", "", &[nobody]),
            service("a certificate", "cert = one.crt\nkey = one.key", &["|CN=one"]),
            service("a name", "sni = other.example.com\ncert = one.crt\nkey = one.key", &["other.example.com|CN=one"]),
            of_stunnel("IPv6", &format!("::1:{}", scene.v6), "", &[nobody]),
            service("failover in turns", &format!("connect = {dead}\nfailover = rr"), &[nobody, nobody]),
            service("failover by priority", &format!("connect = {dead}\nfailover = prio"), &[nobody]),
            of_stunnel("a version", &at(scene.versions), "sslVersion = TLSv1.2", &["TLSv1.2"]),
            of_stunnel("an upper bound", &at(scene.versions), "sslVersionMax = TLSv1.2", &["TLSv1.2"]),
            of_stunnel("sessions", &at(scene.sessions), "sessionResume = no", &[".", "."]),
            service("names resolved late", "delay = yes\nretry = no", &[nobody]),
            service("chain", &format!("verifyChain = yes\n{root}"), &[nobody]),
            service("chain of another", "verifyChain = yes\nCAfile = other.pem", &[REFUSED]),
            service("chain and name", &format!("verifyChain = yes\n{root}\ncheckHost = right.example.com"), &[nobody]),
            service(
                "chain and a wrong name",
                &format!("verifyChain = yes\n{root}\ncheckHost = x.example.com"),
                &[REFUSED],
            ),
            of_stunnel(
                "chain, not revoked",
                &any,
                &format!("verifyChain = yes\n{root}\nCRLfile = list.crl"),
                &[nobody],
            ),
            of_stunnel(
                "chain, revoked",
                &at(scene.revoked),
                &format!("verifyChain = yes\n{root}\nCRLfile = list.crl"),
                &[REFUSED],
            ),
        ],
    );
}
