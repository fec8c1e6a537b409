//! Whatever repair the log or `egret explain` prints works: it is applied to the user's file as it says, and the next
//! client is served.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use crate::support::egret::{Egret, Settings, egret, listener};
use crate::support::openssl::OpensslServer;
use crate::support::pki::{Leaf, Pair, Pki, replace};
use crate::support::process::{attempt, run};
use crate::support::{PATIENCE, free_port};

const HOST: &str = "server.example.com";

/// A server that is refused, or refuses, and what brings that about.
struct Refused {
    class: &'static str,
    /// What tells this row from others of its class.
    what: &'static str,
    server: OpensslServer,
    /// Tables besides the upstream.
    tables: String,
    /// Keys of `upstreams.judged.tls`.
    tls: Vec<(&'static str, String)>,
    /// Files that the repair names and that the server's owner gives.
    files: Vec<(&'static str, PathBuf)>,
    /// The only roots of the system.
    system: PathBuf,
}

/// The two ways in which people write these tables; a repair has to be a change of either.
#[derive(Clone, Copy, Debug)]
enum Style {
    Table,
    Inline,
}

/// Who prints the repair.
#[derive(Clone, Copy, Debug)]
enum Printer {
    Log,
    Explain,
}

impl Refused {
    fn sections(&self, style: Style) -> String {
        let server = self.server.address;
        let line = |(key, value): &(&str, String)| format!("{key} = {value}");
        let lines: Vec<String> = self.tls.iter().map(line).collect();
        let upstream = match style {
            Style::Table => {
                format!("[upstreams.judged]\nservers = [\"{server}\"]\n[upstreams.judged.tls]\n{}\n", lines.join("\n"))
            }
            Style::Inline => {
                format!("[upstreams.judged]\nservers = [\"{server}\"]\ntls = {{ {} }}\n", lines.join(", "))
            }
        };
        format!("{}\n{upstream}{}", self.tables, listener("plain", free_port(), "judged"))
    }

    /// The client is refused for the reason of this row; with the repair applied it is served.
    fn check(&self, style: Style, printer: Printer) -> Result<(), String> {
        let environment = vec![("SSL_CERT_FILE", self.system.clone())];
        let settings = Settings { environment, lacking: true, ..Settings::default() };
        let egret = Egret::start_with(settings, &self.sections(style));
        let folder = egret.config().parent().unwrap().to_path_buf();
        for (name, file) in &self.files {
            fs::copy(file, folder.join(name)).unwrap();
        }
        if is_served(egret.address("plain")) {
            return Err("it is not refused".into());
        }
        let line = egret.wait_for_log(self.class, |line| line["reason"] == self.class);
        let applied = match printer {
            Printer::Log => apply_log(&line, &egret.config()),
            Printer::Explain => self.apply_explained(&egret.config()),
        };
        let repair = applied.map_err(|why| format!("{why}\n{line}"))?;
        let file = fs::read_to_string(egret.config()).unwrap();
        if !egret.reload() {
            return Err(format!("it does not load:\n{repair}\n{file}\n{}", egret.log_text()));
        }
        match is_served(egret.address("plain")) {
            true => Ok(()),
            false => Err(format!("the client is not served with\n{repair}\n{file}\n{}", egret.log_text())),
        }
    }

    fn apply_explained(&self, config: &Path) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
        command.args(["explain", "--json", "--config"]).arg(config).env("SSL_CERT_FILE", &self.system);
        let output = attempt(&mut command);
        let explained: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let repair = explained["reports"][0]["repair"]["egret"].as_str();
        let repair = repair.ok_or_else(|| format!("there is no repair: {explained:#}"))?;
        replace(config, &with_tables_of(&fs::read_to_string(config).unwrap(), repair), 0o644);
        Ok(repair.to_owned())
    }
}

/// Whether a byte comes back for a request. A client that is refused may be reset as early as in its connect.
fn is_served(address: SocketAddr) -> bool {
    let Ok(mut tcp) = TcpStream::connect(address) else { return false };
    tcp.set_read_timeout(Some(PATIENCE)).is_ok()
        && tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
        && matches!(tcp.read(&mut [0; 64]), Ok(1..))
}

/// As the log says: a unified diff is for patch(1), everything else goes to the end of the file.
fn apply_log(line: &Value, config: &Path) -> Result<String, String> {
    let repair = line["repair"].as_str().ok_or("there is no repair")?;
    if !repair.lines().any(|line| line.starts_with("--- ")) {
        let text = fs::read_to_string(config).unwrap();
        replace(config, &format!("{text}\n{repair}\n"), 0o644);
        return Ok(repair.to_owned());
    }
    let diff = config.with_extension("diff");
    fs::write(&diff, repair).unwrap();
    run(Command::new("patch").arg(config).arg(&diff));
    Ok(repair.to_owned())
}

/// As explain says: its tables take the place of those of the same names.
fn with_tables_of(text: &str, repair: &str) -> String {
    let (mut document, repair): (toml::Table, toml::Table) = (text.parse().unwrap(), repair.parse().unwrap());
    for (kind, tables) in repair {
        let into = document.entry(kind).or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
        into.extend(tables.as_table().unwrap().clone());
    }
    toml::to_string(&document).unwrap()
}

/// Where a class has its rows: a name, what it is, its server, the tables and the keys that make it fail.
struct Rows<'a> {
    pki: &'a Pki,
    other: &'a Pki,
    rows: Vec<Refused>,
}

impl Rows<'_> {
    fn add(&mut self, class: &'static str, what: &'static str, pair: &Pair, arguments: &[&str]) -> &mut Refused {
        self.rows.push(Refused {
            class,
            what,
            server: OpensslServer::start(self.pki, pair, arguments),
            tables: format!("[trust.internal]\nroots = [{:?}]\n", self.pki.root()),
            tls: vec![("trust", "\"internal\"".into()), ("server_name", format!("{HOST:?}"))],
            files: Vec::new(),
            system: self.other.root(),
        });
        self.rows.last_mut().unwrap()
    }

    fn names(&mut self) {
        const CLASS: &str = "certificate_name_mismatch";
        let issue = |stem: &str, common_name: &str, names: &[&str]| {
            self.pki.issue(stem, &Leaf { common_name, names, valid: (-1, 30) })
        };
        let dns = issue("dns", "x", &["right.example.com", "*.example.net"]);
        let (ip, common) = (issue("ip", "x", &["127.0.0.1"]), issue("common", "project:instance", &[]));
        let nameless = self.pki.stock_self_signed("nameless", "x", &["-subj", "/O=appliance"]);
        let uri = ["-addext", "subjectAltName=URI:spiffe://example.com/db"];
        let uri = self.pki.stock_self_signed("uri", "x", &uri);
        self.add(CLASS, "another name", &dns, &[]);
        self.add(CLASS, "an address", &ip, &[]);
        self.add(CLASS, "a common name alone", &common, &[]);
        let root = |pair: &Pair| format!("[trust.internal]\nroots = [{:?}]\n", pair.certificate);
        self.add(CLASS, "no name", &nameless, &[]).tables = root(&nameless);
        self.add(CLASS, "a URI", &uri, &[]).tables = root(&uri);
        let by_system = self.add(CLASS, "a URI, and the roots of the system", &uri, &[]);
        by_system.tables = String::new();
        by_system.system = uri.certificate.clone();
        by_system.tls.remove(0);
        for (what, pair, expected) in [
            ("names of the trust", &dns, "dns:other.example.com"),
            ("names of the trust, and an address", &ip, "dns:other.example.com"),
            ("names of the trust, and none", &common, "cn:other"),
        ] {
            self.add(CLASS, what, pair, &[]).tables += &format!("names = [{expected:?}]\n");
        }
        let pins = "pins_only = true\nnames = [\"dns:other.example.com\"]\n";
        let pin = pin(&nameless);
        self.add(CLASS, "a pinned key without a name", &nameless, &[]).tables =
            format!("[trust.internal]\npins = [\"{pin}\"]\n{pins}");
    }

    fn issuers(&mut self) {
        const CLASS: &str = "certificate_unknown_issuer";
        let (pki, other) = (self.pki, self.other);
        let right = pki.server(&[HOST]);
        let common = pki.issue("common-name", &Leaf { common_name: "db", names: &[], valid: (-1, 30) });
        let tables = format!("[trust.internal]\nroots = [{:?}]\n", other.root());
        let files = vec![("judged-ca.pem", pki.intermediate())];
        let mut add = |what, pair: &Pair, tables: String| {
            let row = self.add(CLASS, what, pair, &[]);
            (row.tables, row.files) = (tables, files.clone());
        };
        add("another root", &right, tables.clone());
        add("a trust of the upstream's name", &right, tables.replace("internal", "judged"));
        add("a trust with names", &common, format!("{tables}names = [\"cn:db\"]\n"));
        let row = self.rows.iter_mut().find(|row| row.what == "a trust of the upstream's name").unwrap();
        row.tls[0].1 = "\"judged\"".into();
        let row = self.add(CLASS, "the roots of the system", &right, &[]);
        (row.tables, row.files) = (String::new(), vec![("judged-ca.pem", pki.intermediate())]);
        row.tls.remove(0);
    }

    fn single_certificates(&mut self) {
        let pki = self.pki;
        let own = pki.stock_self_signed("own", HOST, &["-addext", &format!("subjectAltName=DNS:{HOST}")]);
        let (plain, old) = (pki.stock_self_signed("plain", HOST, &[]), pki.version_one("old", HOST));
        let right = pki.server(&[HOST]);
        self.add("certificate_self_signed", "with a name", &own, &[]);
        self.add("certificate_self_signed", "with a common name", &plain, &[]);
        self.add("certificate_self_signed", "X.509 v1", &old, &[]);
        let exact = format!("[trust.internal]\ncertificate = {:?}\n", plain.certificate);
        self.add("certificate_not_the_exact_one", "another", &own, &[]).tables.clone_from(&exact);
        self.add("certificate_not_the_exact_one", "of an authority", &right, &[]).tables = exact;
        let (pin, pins_only) = (pin(&plain), "pins_only = true\n");
        self.add("certificate_pin_mismatch", "beside roots", &right, &[]).tables += &format!("pins = [\"{pin}\"]\n");
        self.add("certificate_pin_mismatch", "alone", &own, &[]).tables =
            format!("[trust.internal]\npins = [\"{pin}\"]\n{pins_only}");
    }

    fn handshakes(&mut self) {
        let (pki, other) = (self.pki, self.other);
        let right = pki.server(&[HOST]);
        let root = pki.root().display().to_string();
        let wants = ["-Verify", "3", "-verify_return_error", "-CAfile", &root];
        let client = pki.client("app");
        let files = vec![("judged.crt", client.certificate), ("judged.key", client.key)];
        let stranger = other.client("app");
        let identity =
            format!("[identities.mine]\ncertificate = {:?}\nprivate_key = {:?}\n", stranger.certificate, stranger.key);
        for (version, flag) in [("TLS 1.2", "-tls1_2"), ("TLS 1.3", "-tls1_3")] {
            let arguments = [&wants[..], &[flag]].concat();
            self.add("client_certificate_required", version, &right, &arguments).files.clone_from(&files);
            let row = self.add("client_certificate_rejected", version, &right, &arguments);
            row.files.clone_from(&files);
            row.tables += &identity;
            row.tls.push(("identity", "\"mine\"".into()));
        }
        let mut add = |class, what, arguments: &[&str], key, value: &str| {
            self.add(class, what, &right, arguments).tls.push((key, value.to_owned()));
        };
        add("version_mismatch", "too high", &["-tls1_2"], "min_version", "\"1.3\"");
        add("version_mismatch", "too low", &["-tls1_3"], "max_version", "\"1.2\"");
        add("alpn_refused", "none chosen", &[], "alpn", "[\"postgresql\"]");
        add("alpn_refused", "another", &["-alpn", "http/1.1"], "alpn", "[\"h2\", \"postgresql\"]");
        add("no_common_parameters", "groups of TLS 1.3", &["-groups", "P-256"], "key_exchange", "[\"x25519\"]");
        add(
            "no_common_parameters",
            "groups of TLS 1.2",
            &["-tls1_2", "-groups", "P-384"],
            "key_exchange",
            "[\"x25519\"]",
        );
    }
}

/// The pin of a key, as `egret trust show` prints it.
fn pin(pair: &Pair) -> String {
    let (_, shown) = egret(&["trust", "show", &pair.certificate.display().to_string()]);
    let found = shown.split_whitespace().find(|word| word.starts_with("sha256/"));
    found.unwrap_or_else(|| panic!("no pin: {shown}")).trim_end_matches(',').to_owned()
}

/// Every class of refusal that has a repair, in at least two variations, by log and by explain, in both ways of writing.
#[test]
fn every_repair_that_is_printed_lets_the_next_client_be_served() {
    let (pki, other) = (Pki::new(), Pki::new());
    let mut rows = Rows { pki: &pki, other: &other, rows: Vec::new() };
    rows.names();
    rows.issuers();
    rows.single_certificates();
    rows.handshakes();
    let checks: Vec<(&Refused, Style, Printer)> = rows
        .rows
        .iter()
        .flat_map(|row| [Style::Table, Style::Inline].map(|style| (row, style)))
        .flat_map(|(row, style)| [Printer::Log, Printer::Explain].map(|printer| (row, style, printer)))
        .collect();
    let (next, wrong) = (Mutex::new(checks.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((row, style, printer)) = next.lock().unwrap().next() else { return };
                    if let Err(why) = row.check(*style, *printer) {
                        let what = format!("{} ({}), {style:?}, {printer:?}: {why}", row.class, row.what);
                        wrong.lock().unwrap().push(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n\n{}", wrong.len(), checks.len(), wrong.join("\n\n"));
}
