//! Real clients that speak MySQL in plaintext, and a real MariaDB that demands TLS and a client certificate.

mod model;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::support::egret::{Egret, listener, roots};
use crate::support::go::go_mysql;
use crate::support::mariadb::{MariaDb, mariadb, python};
use crate::support::peer::Peer;
use crate::support::pki::{Pair, Pki};
use crate::support::process::{attempt, run};
use crate::support::{eventually, free_port};

const HOST: &str = "db.example.com";

/// A listener `db` before these servers.
fn egret_with(pki: &Pki, client: &Pair, ports: &[u16], more: &str) -> Egret {
    let servers: Vec<_> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    Egret::start(&format!(
        "{}{}[upstreams.db]\nservers = [{}]\nbalance = \"priority\"\nupgrade = \"mysql\"\n{more}\n\
         tls = {{ identity = \"app\", trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
        roots("internal", &pki.root()),
        client.identity("app"),
        servers.join(", "),
        listener("db", free_port(), "db"),
    ))
}

struct Scene {
    pki: Pki,
    server: MariaDb,
    egret: Egret,
}

impl Scene {
    fn start() -> Self {
        Self::start_with(&[], "")
    }

    fn start_with(settings: &[&str], more: &str) -> Self {
        let pki = Pki::new();
        let server = MariaDb::start_with(&pki, &pki.server(&[HOST]), settings);
        let egret = egret_with(&pki, &pki.client("app"), &[server.port], more);
        Self { pki, server, egret }
    }

    fn port(&self) -> u16 {
        self.egret.address("db").port()
    }

    /// The rows of a query through egret.
    fn ask(&self, user: &str, query: &str) -> String {
        run(&mut mariadb(self.port(), user, &["--execute", query])).trim().to_owned()
    }

    /// The same client with TLS of its own and the same certificate, without egret.
    fn direct(&self, user: &str, arguments: &[&str]) -> Command {
        let client = self.pki.client("app");
        let mut command = mariadb(self.server.port, user, &[]);
        command.arg(format!("--ssl-ca={}", self.pki.root().display()));
        command.arg(format!("--ssl-cert={}", client.certificate.display()));
        command.arg(format!("--ssl-key={}", client.key.display()));
        command.args(arguments);
        command
    }

    fn failures(&self) -> f64 {
        self.egret.metrics().sum("egret_origination_failures_total", &[])
    }
}

fn error_of(command: &mut Command) -> String {
    let output = attempt(command);
    assert!(!output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap().trim().to_owned()
}

#[test]
fn clients_log_in_under_every_method_and_use_the_session() {
    let scene = Scene::start();
    let floor = scene.egret.descriptors();
    let seen = "select current_user(), (select variable_value > '' from information_schema.session_status \
                where variable_name = 'ssl_cipher')";
    for user in ["app", "named", "ed"] {
        assert_eq!(scene.ask(user, seen), format!("{user}@%\t1"), "{}", scene.egret.log_text());
    }
    let named = run(&mut mariadb(scene.port(), "app", &["--database=shop", "--execute=select database()"]));
    assert_eq!(named.trim(), "shop");
    let prepared = "prepare s from 'select ? + ?'; set @a = 2, @b = 3; execute s using @a, @b";
    assert_eq!(scene.ask("app", prepared), "5");
    let compressed = run(&mut mariadb(
        scene.port(),
        "app",
        &["--compress", "--execute=select length(repeat('a', 3000000)), repeat('b', 3)"],
    ));
    assert_eq!(compressed.trim(), "3000000\tbbb");
    let rows = scene.pki.folder().join("rows.csv");
    std::fs::write(&rows, "1\tone\n2\ttwo\n").unwrap();
    let load = format!(
        "create table shop.t (a int, b text); load data local infile '{}' into table shop.t; \
         select count(*), max(b) from shop.t",
        rows.display()
    );
    assert_eq!(run(&mut mariadb(scene.port(), "app", &["--local-infile=1", "--execute", &load])).trim(), "2\ttwo");
    assert_eq!(scene.failures(), 0.0, "{}", scene.egret.log_text());
    scene.egret.wait_until_idle(floor);
}

#[test]
fn errors_of_the_server_reach_the_client_in_the_same_words() {
    let scene = Scene::start();
    for (user, arguments) in [
        ("app", &["--password=wrong", "--execute=select 1"][..]),
        ("nobody", &["--execute=select 1"]),
        // The certificate is not the one that this user has to have.
        ("stranger", &["--execute=select 1"]),
        ("app", &["--database=missing", "--execute=select 1"]),
        ("ed", &["--password=wrong", "--execute=select 1"]),
        ("app", &["--execute=select * from shop.missing"]),
    ] {
        let direct = error_of(&mut scene.direct(user, arguments));
        let through = error_of(&mut mariadb(scene.port(), user, arguments));
        assert!(direct.contains("ERROR 1"), "{direct}");
        assert_eq!(through, direct, "{user} {arguments:?}");
    }
    assert_eq!(scene.failures(), 0.0, "the server judged users, not egret:\n{}", scene.egret.log_text());
}

#[test]
fn server_that_refuses_the_certificate_is_reported_as_that() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let server = MariaDb::start(&pki, &pki.server(&[HOST]));
    let egret = egret_with(&pki, &stranger.client("app"), &[server.port], "");
    let error = error_of(&mut mariadb(egret.address("db").port(), "app", &["--execute=select 1"]));
    assert!(error.contains("ERROR"), "{error}");
    let class = "client_certificate_rejected";
    egret.wait_for_log(class, |line| line["reason"] == class || line["ended"] == class);
}

#[test]
fn client_that_demands_tls_is_told_no() {
    let scene = Scene::start();
    let error =
        error_of(&mut mariadb(scene.port(), "app", &["--ssl", "--ssl-verify-server-cert", "--execute=select 1"]));
    assert!(error.contains("SSL"), "{error}");
    let line = scene.egret.wait_for_log("the class", |line| line["reason"] == "downstream_closed");
    assert!(line["repair"].to_string().contains("skip-ssl"), "{line}");
    // One that asks although it was offered none.
    let mut tcp = TcpStream::connect(scene.egret.address("db")).unwrap();
    let mut greeting = [0; 512];
    let length = tcp.read(&mut greeting).unwrap();
    assert!(greeting[..length].windows(7).any(|part| part == b"MariaDB"), "{:?}", &greeting[..length]);
    let flags = 0x0008_8a00_u32.to_le_bytes();
    let request = [&[32, 0, 0, 1][..], &flags, b"\0\0\0\x01\x2d", &[0; 23]].concat();
    tcp.write_all(&request).unwrap();
    scene.egret.wait_for_log("the class", |line| line["reason"] == "downstream_asks_for_tls");
    assert_eq!(scene.failures(), 0.0, "the server is not to blame");
}

#[test]
fn no_name_and_no_password_leave_before_the_server_is_verified() {
    let pki = Pki::new();
    let greeting = [
        &b"\x0a8.4.0-example\0\x07\0\0\0abcdefgh\0\0\x8a\x2d\x02\0\x08\0\x15"[..],
        &[0; 10],
        b"ijklmnopqrst\0mysql_native_password\0",
    ]
    .concat();
    let (seen, heard) = std::sync::mpsc::channel();
    let peer = Peer::start(move |mut tcp| {
        let packet = [&u32::try_from(greeting.len()).unwrap().to_le_bytes()[..3], &[0], &greeting].concat();
        let _ = tcp.write_all(&packet);
        let mut request = [0; 36];
        let _ = tcp.read_exact(&mut request);
        let mut rest = Vec::new();
        let mut record = [0; 5];
        let _ = tcp.read_exact(&mut record);
        rest.extend(record);
        // No TLS: closes.
        let _ = seen.send((request.to_vec(), rest));
    });
    let egret = egret_with(&pki, &pki.client("app"), &[peer.address.port()], "");
    let mut client = mariadb(egret.address("db").port(), "telltale", &["--execute=select 1"]);
    error_of(&mut client);
    let (request, rest) = heard.recv().unwrap();
    assert_eq!(request[..4], [32, 0, 0, 1], "{request:?}");
    assert_eq!(rest[..2], [0x16, 3], "a ClientHello, and nothing else");
    assert!(!request.windows(8).any(|part| part == b"telltale"), "{request:?}");
}

const PYTHON: &str = r#"
import os, pymysql
port = int(os.environ['PORT'])
for user in ['app', 'named', 'ed']:
    db = pymysql.connect(host='127.0.0.1', port=port, user=user, password='secret', local_infile=True)
    with db.cursor() as c:
        c.execute('select current_user()')
        assert c.fetchone() == (user + '@%',)
    db.select_db('shop')
    db.ping()
    db.close()
try:
    pymysql.connect(host='127.0.0.1', port=port, user='app', password='wrong')
    raise SystemExit('let in')
except pymysql.err.OperationalError as e:
    assert e.args[0] == 1045, e
print('done')
"#;

const CONNECTOR: &str = r#"
import os, mysql.connector
port = int(os.environ['PORT'])
for pure in [True, False]:
    for user in ['app', 'named']:
        db = mysql.connector.connect(host='127.0.0.1', port=port, user=user, password='secret', use_pure=pure,
                                     database='shop', ssl_disabled=True)
        c = db.cursor(prepared=True)
        c.execute('select current_user(), ? + 1', (41,))
        assert c.fetchall()[0][1] == 42
        db.close()
    try:
        mysql.connector.connect(host='127.0.0.1', port=port, user='app', password='wrong', use_pure=pure, ssl_disabled=True)
        raise SystemExit('let in')
    except mysql.connector.Error as e:
        assert e.errno == 1045, e
print('done')
"#;

#[test]
fn clients_of_python_log_in() {
    let scene = Scene::start();
    for program in [PYTHON, CONNECTOR] {
        assert!(run(&mut python(scene.port(), program)).contains("done"), "{}", scene.egret.log_text());
    }
    assert_eq!(scene.failures(), 0.0, "{}", scene.egret.log_text());
}

#[test]
fn a_client_in_go_logs_in_and_reads_the_class_of_a_failure() {
    let scene = Scene::start();
    for user in ["app", "named"] {
        let seen = run(&mut go_mysql(scene.port(), user, "secret", &["select current_user()"]));
        assert_eq!(seen.trim(), format!("{user}@%"), "{}", scene.egret.log_text());
    }
    let wrong = error_of(&mut go_mysql(scene.port(), "app", "wrong", &[]));
    assert!(wrong.contains("Error 1045") && wrong.contains("Access denied for user 'app'@"), "{wrong}");
    let stranger = egret_with(&Pki::new(), &scene.pki.client("app"), &[scene.server.port], "");
    let untrusted = error_of(&mut go_mysql(stranger.address("db").port(), "app", "secret", &[]));
    assert!(untrusted.contains("Error 1043: egret: certificate_unknown_issuer"), "{untrusted}");
}

#[test]
fn dump_and_restore_bring_the_same_rows() {
    let scene = Scene::start();
    scene.ask(
        "app",
        "use shop; create table shop.big (id int primary key, body longblob); \
         insert into shop.big select seq, repeat(char(seq % 256), 65536) from seq_1_to_64",
    );
    let sum = "select count(*), sum(crc32(body)) from shop.big";
    let before = scene.ask("app", sum);
    let file = scene.pki.folder().join("dump.sql");
    let connection = ["--no-defaults", "--host=127.0.0.1", "--user=app", "--password=secret"];
    let mut dump = Command::new("mariadb-dump");
    dump.args(connection).args([format!("--port={}", scene.port()), format!("--result-file={}", file.display())]);
    run(dump.args(["--hex-blob", "shop"]));
    assert!(std::fs::metadata(&file).unwrap().len() > 8 << 20);
    scene.ask("app", "drop table shop.big");
    let restore = mariadb(scene.port(), "app", &["shop"]).stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert!(restore.status.success(), "{restore:?}");
    assert_eq!(scene.ask("app", sum), before);
}

#[test]
fn a_query_is_killed_by_its_thread() {
    let scene = Scene::start();
    let mut sleeping = mariadb(scene.port(), "app", &["--execute=select sleep(1000)"]);
    let sleeping = sleeping.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let thread = eventually("the query", || {
        let found =
            scene.server.as_root("select id from information_schema.processlist where info like 'select sleep%'");
        found.trim().parse::<u64>().ok()
    });
    scene.ask("app", &format!("kill query {thread}"));
    let output = sleeping.wait_with_output().unwrap();
    // MariaDB ends the sleep with 1 or the statement with an error.
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.trim() == "1" || text.contains("1317"), "{text}");
}

#[test]
fn hundreds_of_connections_log_in_one_after_the_other_and_at_once() {
    let scene = Scene::start_with(&["--max-connections=500"], "");
    let floor = scene.egret.descriptors();
    let many = r#"
import os, pymysql
from concurrent.futures import ThreadPoolExecutor
port = int(os.environ['PORT'])
def one(n):
    db = pymysql.connect(host='127.0.0.1', port=port, user='app', password='secret', database='shop' if n % 2 else None)
    with db.cursor() as c:
        c.execute('select %s', (n,))
        assert c.fetchone() == (n,)
    db.close()
with ThreadPoolExecutor(16) as pool:
    assert len(list(pool.map(one, range(400)))) == 400
open_at_once = [pymysql.connect(host='127.0.0.1', port=port, user='app', password='secret') for _ in range(100)]
assert len({db.thread_id() for db in open_at_once}) == 100
print('done')
"#;
    assert!(run(&mut python(scene.port(), many)).contains("done"), "{}", scene.egret.log_text());
    assert_eq!(scene.failures(), 0.0, "{}", scene.egret.log_text());
    scene.egret.wait_until_idle(floor);
}

#[test]
fn login_goes_on_at_another_server() {
    let pki = Pki::new();
    let server = MariaDb::start(&pki, &pki.server(&[HOST]));
    let wrong = MariaDb::start(&pki, &pki.server(&["other.example.com"]));
    // The first server's greeting reaches the client, and then its certificate is refused.
    let egret = egret_with(&pki, &pki.client("app"), &[wrong.port, server.port], "");
    let port = egret.address("db").port();
    for user in ["app", "named", "ed"] {
        let rows = run(&mut mariadb(port, user, &["--database=shop", "--execute=select @@port, database()"]));
        assert_eq!(rows.trim(), format!("{}\tshop", server.port), "{}", egret.log_text());
    }
    let wrong_password = error_of(&mut mariadb(port, "app", &["--password=wrong", "--execute=select 1"]));
    assert!(
        wrong_password.contains("Access denied for user 'app'@") && wrong_password.contains("using password: YES"),
        "{wrong_password}"
    );
}

#[test]
fn warm_connections_serve_clients_that_log_in_alike_and_others_all_the_same() {
    let scene = Scene::start_with(&[], "pool = { min_idle = 2, max_idle = 4 }");
    let takes = |outcome| scene.egret.metrics().sum("egret_pool_takes_total", &[("result", outcome)]);
    // The capabilities of the first client are those of the pool.
    assert_eq!(scene.ask("app", "select 1"), "1");
    for round in 0..5 {
        eventually("warm connections", || (scene.egret.metrics().sum("egret_pool_warm", &[]) >= 2.0).then_some(()));
        assert_eq!(scene.ask("app", &format!("select {round}")), round.to_string());
    }
    assert!(takes("hit") >= 5.0, "{}", scene.egret.log_text());
    // A database in the login is another capability.
    let rows = run(&mut mariadb(scene.port(), "app", &["--database=shop", "--execute=select database()"]));
    assert_eq!(rows.trim(), "shop");
    let error = error_of(&mut mariadb(scene.port(), "app", &["--password=wrong", "--execute=select 1"]));
    assert!(error.contains("ERROR 1045"), "{error}");
    assert_eq!(scene.failures(), 0.0, "{}", scene.egret.log_text());
}

#[test]
fn server_without_tls_and_server_that_is_full_have_their_class() {
    let pki = Pki::new();
    for (payload, class) in [
        (&b"\xff\x10\x04Too many connections"[..], "upgrade_error"),
        (
            b"\x0a8.4.0-example\0\x07\0\0\0abcdefgh\0\0\x82\x2d\x02\0\x08\0\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0x\0",
            "upgrade_refused",
        ),
        (b"220 mail.example.com ESMTP\r\n", "upgrade_not_the_protocol"),
    ] {
        let packet = match class {
            "upgrade_not_the_protocol" => payload.to_vec(),
            _ => [&u32::try_from(payload.len()).unwrap().to_le_bytes()[..3], &[0], payload].concat(),
        };
        let peer = Peer::start(move |mut tcp| {
            let _ = tcp.write_all(&packet);
            let _ = tcp.read(&mut [0; 64]);
        });
        let egret = egret_with(&pki, &pki.client("app"), &[peer.address.port()], "");
        let error = error_of(&mut mariadb(egret.address("db").port(), "app", &["--execute=select 1"]));
        // The server's own words, or egret's with the class.
        let words = if class == "upgrade_error" { "1040 - Too many connections" } else { class };
        assert!(error.contains(words), "{error}");
        egret.wait_for_log(class, |line| line["reason"] == class);
    }
}

/// The client has read the greeting of the server before: the error has the number that it waits for.
#[test]
fn client_of_a_server_that_is_not_trusted_reads_the_class() {
    let pki = Pki::new();
    let server = MariaDb::start(&pki, &Pki::new().server(&[HOST]));
    let egret = egret_with(&pki, &pki.client("app"), &[server.port], "");
    let port = egret.address("db").port();
    let through_mariadb = error_of(&mut mariadb(port, "app", &["--execute=select 1"]));
    let connect = "import os, pymysql; pymysql.connect(host='127.0.0.1', port=int(os.environ['PORT']), user='app')";
    let line = egret.wait_for_log("the failure", |line| line["message"] == "origination failed");
    let class = line["reason"].as_str().unwrap();
    for error in [through_mariadb, error_of(&mut python(port, connect))] {
        assert!(error.contains("1043") && error.contains(&format!("egret: {class}")), "{error}");
    }
}
