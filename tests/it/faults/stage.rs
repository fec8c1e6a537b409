//! What every row of the table needs: its data, the stream of another origin beside it, and egret's word for its end.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Fault, Step};
use crate::support::egret::Egret;
use crate::support::eventually;
use crate::support::metrics::Metrics;
use crate::support::pattern::Pattern;
use crate::support::peer::{self, Accepted, Peer};
use crate::support::pki::{Pair, Pki};
use crate::support::plain::{self, End};
use crate::support::tls_server::common_name;

pub(super) const SUBJECT: &str = "subject.example.com";
pub(super) const BYSTANDER: &str = "bystander.example.com";

/// No multiple of a TLS record, and small enough for the sockets of loopback to hold it while nobody reads.
const REQUEST: usize = 50_001;
const ANSWER: usize = 100_003;

/// One run of a row with one version of TLS.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) step: Step,
    pub(super) fault: Fault,
    pub(super) version: &'static str,
    pub(super) request: Vec<u8>,
    pub(super) answer: Vec<u8>,
}

impl Case {
    pub(super) fn new(number: usize, step: Step, fault: Fault, version: &'static str) -> Self {
        // Each run has data of its own: bytes of another run would be noticed.
        let data = |seed, length| {
            let mut bytes = vec![0; length];
            Pattern::new(seed).fill(&mut bytes);
            bytes
        };
        let seed = 2 * number as u64;
        let (request, answer) = (data(seed, REQUEST), data(seed + 1, ANSWER));
        Self { name: format!("run-{number}"), step, fault, version, request, answer }
    }

    /// The two parts of the answer.
    pub(super) fn halves(&self) -> [&[u8]; 2] {
        let (first, second) = self.answer.split_at(ANSWER / 2);
        [first, second]
    }
}

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The bytes that had to arrive, and did.
    pub(super) to_server: usize,
    pub(super) to_client: usize,
    /// The end that the side without the fault saw.
    pub(super) end: Option<End>,
    pub(super) ended: String,
}

/// What egret says of all runs, read once for all of them.
#[derive(Default)]
pub(super) struct Words {
    /// The words of its log for the ends of streams, by listener.
    ends: Mutex<HashMap<String, String>>,
    metrics: Mutex<Option<Metrics>>,
}

impl Words {
    /// Reads the log once for all runs.
    pub(super) fn read(&self, egret: &Egret) {
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let lines = egret.log().into_iter().filter(|line| line["message"] == "connection");
        let words = lines.filter_map(|line| Some((text(&line["listener"])?, text(&line["ended"])?))).collect();
        *self.ends.lock().unwrap() = words;
        *self.metrics.lock().unwrap() = Some(egret.metrics());
    }

    /// Waits until egret has ended its handshake too. With TLS 1.2 the server's end comes first: a client that resets between
    /// the two gives up an origination, and no stream is cut.
    pub(super) fn wait_until_originated(&self, case: &Case) {
        let upstream = [("upstream", case.name.as_str())];
        eventually(&format!("the origination of {}", case.name), || {
            let metrics = self.metrics.lock().unwrap();
            (metrics.as_ref()?.sum("egret_originations_total", &upstream) > 0.0).then_some(())
        });
    }

    pub(super) fn wait(&self, case: &Case) -> String {
        eventually(&format!("the end of {}", case.name), || self.ends.lock().unwrap().get(&case.name).cloned())
    }
}

/// A server that greets each client by the name in its certificate, and sends back what it gets.
pub(super) fn greeting_echo(pki: &Pki, pair: &Pair) -> Peer {
    Peer::start_tls(peer::mutual(pair, pki), |mut tls| {
        let name = identity(&mut tls);
        if tls.write_all(format!("{name}\n").as_bytes()).is_ok() {
            peer::echo(tls);
        }
    })
}

/// Finishes the handshake; whose certificate came.
pub(super) fn identity(tls: &mut Accepted) -> String {
    while tls.conn.is_handshaking() || tls.conn.wants_write() {
        tls.conn.complete_io(&mut tls.sock).unwrap();
    }
    common_name(&tls.conn.peer_certificates().expect("the server demands a certificate")[0])
}

/// Echoes of bystanders, of all runs.
pub(super) static ECHOES: AtomicUsize = AtomicUsize::new(0);

/// A stream of another origin, through the same process.
pub(super) struct Bystander(TcpStream);

impl Bystander {
    pub(super) fn open(address: SocketAddr) -> Self {
        let mut tcp = plain::connect(address);
        let mut greeting = vec![0; BYSTANDER.len() + 1];
        tcp.read_exact(&mut greeting).expect("a bystander is greeted");
        assert_eq!(String::from_utf8_lossy(&greeting), format!("{BYSTANDER}\n"));
        Self(tcp)
    }

    pub(super) fn echo(&mut self) {
        let number = ECHOES.fetch_add(1, Ordering::Relaxed);
        let mut said = [0; 3000];
        Pattern::new(number as u64).fill(&mut said);
        self.0.write_all(&said).expect("a bystander can write");
        let mut back = [0; 3000];
        self.0.read_exact(&mut back).expect("a bystander is answered");
        assert!(said == back, "a bystander got other bytes");
    }

    pub(super) fn leave(mut self) {
        self.echo();
        plain::finish(&self.0);
        assert_eq!(plain::read_to_end(&mut self.0), (Vec::new(), End::Clean), "the end of a bystander");
    }
}

/// Waits until the other side's kernel has acknowledged all that was written: a reset would destroy the rest.
pub(super) fn acknowledged(tcp: &TcpStream) {
    let ends = [tcp.local_addr(), tcp.peer_addr()].map(Result::ok);
    let [Some(SocketAddr::V4(local)), Some(SocketAddr::V4(remote))] = ends else {
        panic!("a connection that has ended cannot be acknowledged");
    };
    let hex = |end: std::net::SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port());
    let pair = format!(": {} {} ", hex(local), hex(remote));
    eventually("the other side to acknowledge all", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // A table that changes while it is read may lack a connection.
        let line = table.lines().find(|line| line.contains(&pair))?;
        line.split_whitespace().nth(4).is_some_and(|queues| queues.starts_with("00000000:")).then_some(())
    });
}
