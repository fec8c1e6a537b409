//! Runs egret between clients and servers of its own, and says what became of each stream: for a machine that
//! has nothing but this program and egret. See `tests/kernel-tls/run`.
//!
//!     prove EGRET FOLDER POLICY TLS12 TLS13 KEY_UPDATE
//!
//! POLICY is `runtime.kernel_tls`; TLS12 and TLS13 are the mechanism that is expected of streams of that version
//! (`records`, `kernel`); KEY_UPDATE is `followed` or the word that a stream has to end with.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256, digest};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite as suites, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{AlertDescription, ServerConfig, ServerConnection, StreamOwned, SupportedCipherSuite};

type Tls = StreamOwned<ServerConnection, TcpStream>;
type Done = Result<(), Box<dyn Error + Send + Sync>>;

const SUITES: [SupportedCipherSuite; 6] = [
    suites::TLS13_AES_128_GCM_SHA256,
    suites::TLS13_AES_256_GCM_SHA384,
    suites::TLS13_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Bytes each way: enough for many full records and a full socket, little enough for an emulated processor.
const BULK: usize = 4 << 20;
/// What a small message has, and how many there are of them.
const SMALL: (usize, usize) = (100, 50);
/// No step takes longer, however slow the processor.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a stream is for; its first byte tells the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Play {
    /// Bytes up to the client's end, then their digest and bytes down, each end by itself.
    Exchange = b'E' as isize,
    /// Small messages there and back.
    PingPong = b'P' as isize,
    /// The server changes its keys and asks for the client's to be changed, again and again.
    KeyUpdate = b'K' as isize,
    /// The server goes without close_notify.
    Truncate = b'T' as isize,
    /// The server sends a record that does not authenticate.
    Forge = b'F' as isize,
    /// The client resets.
    Reset = b'R' as isize,
}

impl Play {
    const ALL: [Self; 6] = [Self::Exchange, Self::PingPong, Self::KeyUpdate, Self::Truncate, Self::Forge, Self::Reset];

    fn name(self) -> &'static str {
        match self {
            Self::Exchange => "bytes both ways, half-close",
            Self::PingPong => "small messages",
            Self::KeyUpdate => "key updates of the server",
            Self::Truncate => "truncation",
            Self::Forge => "forged record",
            Self::Reset => "reset of the client",
        }
    }

    fn ended(self) -> &'static str {
        match self {
            Self::Exchange | Self::PingPong | Self::KeyUpdate => "finished",
            Self::Truncate => "upstream_truncated",
            Self::Forge => "upstream_tls_error",
            Self::Reset => "downstream_reset",
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [egret, folder, policy, tls12, tls13, key_update] = &words[..] else {
        eprintln!("prove EGRET FOLDER POLICY TLS12 TLS13 KEY_UPDATE");
        return ExitCode::from(2);
    };
    let expected = Expected { tls12, tls13, key_update };
    match prove(Path::new(egret), Path::new(folder), policy, &expected) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAIL kernel_tls = {policy}: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Expected<'a> {
    tls12: &'a str,
    tls13: &'a str,
    key_update: &'a str,
}

/// The number of promises that were not kept.
fn prove(egret: &Path, folder: &Path, policy: &str, expected: &Expected<'_>) -> Result<usize, Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let servers = Servers::start(folder)?;
    let mut proxy = Proxy::start(egret, folder, policy, &servers.ports)?;
    let mut failed = 0;
    for (at, suite) in SUITES.iter().enumerate() {
        let is_tls13 = suite.tls13().is_some();
        for play in Play::ALL {
            if play == Play::KeyUpdate && !is_tls13 {
                continue;
            }
            let mechanism = if is_tls13 { expected.tls13 } else { expected.tls12 };
            let followed = expected.key_update == "followed" || play != Play::KeyUpdate || mechanism == "records";
            let ended = if followed { play.ended() } else { expected.key_update };
            let result = proxy.play(at, play, &servers.outcomes, ended == play.ended());
            let line = proxy.next_connection();
            let wrong = match (&result, &line) {
                (Err(error), line) => Some(format!("{error}; {line:?}")),
                (Ok(()), Err(error)) => Some(error.to_string()),
                (Ok(()), Ok(line)) if line["ended"] != ended || line["mechanism"] != mechanism => {
                    Some(format!("{line}"))
                }
                (Ok(()), Ok(line)) if is_tls13 && play == Play::PingPong && line["resumed"] != true => {
                    Some(format!("no ticket of the first stream arrived: {line}"))
                }
                _ => None,
            };
            let name = format!("kernel_tls = {policy}, {:?}: {}, {mechanism}, {ended}", suite.suite(), play.name());
            match wrong {
                None => println!("PASS {name}"),
                Some(why) => {
                    failed += 1;
                    println!("FAIL {name}: {why}");
                }
            }
        }
    }
    Ok(failed)
}

/// egret, with a listener for each server.
struct Proxy {
    child: Child,
    log: BufReader<File>,
    ports: Vec<u16>,
}

impl Proxy {
    fn start(egret: &Path, folder: &Path, policy: &str, servers: &[u16]) -> Result<Self, Box<dyn Error>> {
        let ports: Vec<u16> = servers.iter().map(|_| free_port()).collect::<io::Result<_>>()?;
        let mut config = format!("[log]\nformat = \"json\"\n[runtime]\nkernel_tls = \"{policy}\"\n");
        config += "[trust.own]\nroots = [\"root.pem\"]\n";
        for (at, (server, port)) in servers.iter().zip(&ports).enumerate() {
            config += &format!("[upstreams.u{at}]\nservers = [\"127.0.0.1:{server}\"]\ntls = {{ trust = \"own\" }}\n");
            config += &format!("[[listeners]]\nlisten = \"127.0.0.1:{port}\"\nupstream = \"u{at}\"\n");
        }
        let (file, log) = (folder.join("egret.toml"), folder.join("egret.log"));
        fs::write(&file, config)?;
        let out = File::create(&log)?;
        let child = Command::new(egret).arg("run").arg(&file).stdout(out.try_clone()?).stderr(out).spawn()?;
        let proxy = Self { child, log: BufReader::new(File::open(log)?), ports };
        for port in &proxy.ports {
            wait_until(|| TcpStream::connect(("127.0.0.1", *port)).is_ok(), "egret does not listen")?;
        }
        Ok(proxy)
    }

    fn play(&self, at: usize, play: Play, outcomes: &Mutex<Receiver<Done>>, whole: bool) -> Done {
        let client = TcpStream::connect(("127.0.0.1", self.ports[at]))?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_write_timeout(Some(PATIENCE))?;
        let done = act(client, play);
        let served = outcomes.lock().map_err(|_| "a server has panicked")?.recv_timeout(PATIENCE)?;
        if whole {
            done.map_err(|error| format!("client: {error}"))?;
            served.map_err(|error| format!("server: {error}"))?;
        } else if done.is_ok() {
            return Err("the client saw a clean end".into());
        }
        Ok(())
    }

    /// The next line of a stream that carried bytes.
    fn next_connection(&mut self) -> Result<serde_json::Value, Box<dyn Error>> {
        let until = Instant::now() + PATIENCE;
        let mut line = String::new();
        while Instant::now() < until {
            if self.log.read_line(&mut line)? == 0 || !line.ends_with('\n') {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
            if let Ok(said) = serde_json::from_str::<serde_json::Value>(&line)
                && said["message"] == "connection"
                && (said["sent"] != 0 || said["received"] != 0)
            {
                return Ok(said);
            }
            line.clear();
        }
        Err("no line of the log tells of the stream".into())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_until(mut holds: impl FnMut() -> bool, what: &str) -> Result<(), Box<dyn Error>> {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > until {
            return Err(what.into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What the client does and has to see.
fn act(mut tcp: TcpStream, play: Play) -> Done {
    tcp.write_all(&[play as u8])?;
    match play {
        Play::Exchange => exchange(tcp),
        Play::PingPong => {
            for at in 0..SMALL.1 {
                let (said, mut heard) = (pattern(at, SMALL.0), vec![0; SMALL.0]);
                tcp.write_all(&said)?;
                tcp.read_exact(&mut heard)?;
                ensure(said == heard, "another message came back")?;
            }
            finish(tcp)
        }
        Play::KeyUpdate => {
            for at in 0..UPDATES {
                let (said, mut heard) = (pattern(at, UPDATED), vec![0; UPDATED]);
                tcp.write_all(&said)?;
                tcp.read_exact(&mut heard)?;
                ensure(heard == pattern(at + 100, UPDATED), "other bytes came")?;
            }
            finish(tcp)
        }
        Play::Truncate | Play::Forge => {
            let mut heard = Vec::new();
            let end = tcp.read_to_end(&mut heard);
            // A reset may destroy what was on its way.
            ensure(pattern(1, UPDATED).starts_with(&heard), "other bytes came")?;
            ensure(end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "the cut looks like an end")
        }
        Play::Reset => {
            let mut heard = vec![0; UPDATED];
            tcp.read_exact(&mut heard)?;
            socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO))?;
            Ok(())
        }
    }
}

/// Key updates of one stream: rustls bears 32 in a row.
const UPDATES: usize = 5;
/// Bytes under one key.
const UPDATED: usize = 100_000;

fn exchange(mut tcp: TcpStream) -> Done {
    let sent = pattern(1, BULK);
    let mut writer = tcp.try_clone()?;
    let digest = digest(&SHA256, &sent);
    let written = thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.shutdown(Shutdown::Write)));
    let mut heard = Vec::new();
    tcp.read_to_end(&mut heard)?;
    written.join().map_err(|_| "the writer has panicked")??;
    ensure(heard.len() == 32 + BULK, "not as many bytes came as were sent")?;
    ensure(heard[..32] == *digest.as_ref(), "the server got other bytes")?;
    ensure(heard[32..] == pattern(2, BULK), "other bytes came")
}

fn finish(mut tcp: TcpStream) -> Done {
    tcp.shutdown(Shutdown::Write)?;
    ensure(tcp.read(&mut [0])? == 0, "bytes after the end")
}

/// One server for each suite.
struct Servers {
    ports: Vec<u16>,
    /// What became of each stream in which the client said something.
    outcomes: Mutex<Receiver<Done>>,
}

impl Servers {
    fn start(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        fs::write(folder.join("root.pem"), params.self_signed(&key)?.pem())?;
        let issuer = rcgen::Issuer::new(params, key);
        let key = rcgen::KeyPair::generate()?;
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;

        let (outcome, outcomes) = channel();
        let mut ports = Vec::new();
        for suite in SUITES {
            let config = config(suite, leaf.der(), key.serialize_der())?;
            let listener = TcpListener::bind("127.0.0.1:0")?;
            ports.push(listener.local_addr()?.port());
            let outcome = outcome.clone();
            thread::spawn(move || {
                for tcp in listener.incoming().flatten() {
                    if let Some(done) = serve(tcp, &config) {
                        let _ = outcome.send(done);
                    }
                }
            });
        }
        Ok(Self { ports, outcomes: Mutex::new(outcomes) })
    }
}

fn config(
    suite: SupportedCipherSuite,
    leaf: &CertificateDer<'static>,
    key: Vec<u8>,
) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let provider = CryptoProvider { cipher_suites: vec![suite], ..default_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[suite.version()])?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.clone()], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key)))?;
    config.ticketer = Ticketer::new()?;
    Ok(Arc::new(config))
}

/// `None`: the client left without a word, as the probe for the listener does.
fn serve(tcp: TcpStream, config: &Arc<ServerConfig>) -> Option<Done> {
    tcp.set_read_timeout(Some(PATIENCE)).ok()?;
    tcp.set_write_timeout(Some(PATIENCE)).ok()?;
    let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(config)).ok()?, tcp);
    let mut play = [0];
    if !matches!(tls.read(&mut play), Ok(1)) {
        return None;
    }
    let play = Play::ALL.into_iter().find(|known| *known as u8 == play[0])?;
    Some(answer(tls, play))
}

fn answer(mut tls: Tls, play: Play) -> Done {
    match play {
        Play::Exchange => {
            // Slow at first, so that the client's side has to wait for room.
            thread::sleep(Duration::from_millis(300));
            let mut hash = Context::new(&SHA256);
            let mut buf = vec![0; 1 << 16];
            loop {
                match tls.read(&mut buf)? {
                    0 => break,
                    n => hash.update(&buf[..n]),
                }
            }
            tls.write_all(hash.finish().as_ref())?;
            tls.write_all(&pattern(2, BULK))?;
            close(tls)
        }
        Play::PingPong => {
            let mut buf = vec![0; SMALL.0];
            for _ in 0..SMALL.1 {
                tls.read_exact(&mut buf)?;
                tls.write_all(&buf)?;
            }
            ensure(tls.read(&mut buf)? == 0, "bytes after the last message")?;
            close(tls)
        }
        Play::KeyUpdate => {
            let mut buf = vec![0; UPDATED];
            for at in 0..UPDATES {
                tls.read_exact(&mut buf)?;
                ensure(buf == pattern(at, UPDATED), "other bytes came")?;
                tls.conn.refresh_traffic_keys()?;
                tls.write_all(&pattern(at + 100, UPDATED))?;
            }
            ensure(tls.read(&mut buf)? == 0, "bytes after the last message")?;
            close(tls)
        }
        Play::Truncate => {
            tls.write_all(&pattern(1, UPDATED))?;
            Ok(tls.sock.shutdown(Shutdown::Both)?)
        }
        Play::Forge => {
            tls.write_all(&pattern(1, UPDATED))?;
            let length = [0, 64];
            tls.sock.write_all(&[&[23, 3, 3], &length[..], &[0xaa; 64]].concat())?;
            let alert = tls.read(&mut [0]).map_err(|error| error.to_string());
            let told = Err(rustls::Error::AlertReceived(AlertDescription::BadRecordMac).to_string());
            ensure(alert == told, &format!("instead of the alert: {alert:?}"))
        }
        Play::Reset => {
            tls.write_all(&pattern(1, UPDATED))?;
            ensure(tls.read(&mut [0]).is_err(), "the reset looks like an end")
        }
    }
}

fn close(mut tls: Tls) -> Done {
    tls.conn.send_close_notify();
    while tls.conn.wants_write() {
        tls.conn.write_tls(&mut tls.sock)?;
    }
    Ok(tls.sock.shutdown(Shutdown::Write)?)
}

fn ensure(holds: bool, what: &str) -> Done {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// Bytes that tell where they are from.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let mut state = seed as u64 * 2 + 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bytes.extend_from_slice(&(state >> 8).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
