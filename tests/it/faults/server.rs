//! Faults of the server, with a client that asks, waits for the end, and ends after a clean one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;

use super::stage::{Case, Outcome, SUBJECT, Words, acknowledged, identity};
use super::{Fault, Step};
use crate::support::PATIENCE;
use crate::support::peer::{Accepted, accepted, first_flight, read_record};
use crate::support::plain::{self, End};

/// No TLS, and longer than a record, so that one that was begun is completed by it.
const GARBAGE: &[u8] = &[b'2'; 20_000];

/// The alert close_notify as it is before keys are agreed on.
const CLOSE_NOTIFY: &[u8] = &[21, 3, 3, 0, 2, 1, 0];

/// What the server has done or seen.
enum Told {
    Misbehaved,
    /// The request, as far as it came over TLS, and its end.
    Request(Vec<u8>, End),
}

/// The server's side of a run. egret may come more than once: the same happens to it again.
pub(super) struct Server {
    case: Arc<Case>,
    config: Arc<ServerConfig>,
    told: Mutex<Sender<Told>>,
    /// Ends with the run: until then a server that stalls keeps its connection.
    over: Mutex<Receiver<()>>,
}

/// The client's side of a run.
pub(super) struct Client {
    case: Arc<Case>,
    told: Receiver<Told>,
    _over: Sender<()>,
}

pub(super) fn sides(case: &Arc<Case>, config: &Arc<ServerConfig>) -> (Server, Client) {
    let ((tell, told), (end, over)) = (channel(), channel());
    let (config, told_by) = (Arc::clone(config), Mutex::new(tell));
    let server = Server { case: Arc::clone(case), config, told: told_by, over: Mutex::new(over) };
    (server, Client { case: Arc::clone(case), told, _over: end })
}

impl Server {
    pub(super) fn serve(&self, mut tcp: TcpStream) {
        // The hello is there, unread: a reset before that could be one of connect. None: a try that its deadline ended.
        if !matches!(tcp.peek(&mut [0]), Ok(1..)) {
            return;
        }
        match self.case.step {
            Step::Accepted => {}
            Step::HelloRead => read_record(&mut tcp),
            Step::AmidItsFlight => {
                let flight = first_flight(&mut tcp, &self.config);
                tcp.write_all(&flight[..flight.len() / 2]).unwrap();
                acknowledged(&tcp);
            }
            _ => return self.serve_tls(accepted(tcp, &self.config)),
        }
        if self.case.fault == Fault::HalfClose {
            let _ = tcp.write_all(CLOSE_NOTIFY);
        }
        self.misbehave(tcp);
    }

    fn serve_tls(&self, mut tls: Accepted) {
        assert_eq!(identity(&mut tls), SUBJECT);
        let mut request = Vec::new();
        if self.case.step > Step::AfterFinished {
            request.resize(self.case.request.len(), 0);
            tls.read_exact(&mut request).expect("the request");
            assert!(request == self.case.request, "the server got other bytes");
        }
        match self.case.step {
            Step::AmidARecord => self.half_an_answer(&mut tls),
            Step::AfterCloseNotify => {
                tls.write_all(&self.case.answer).unwrap();
                tls.conn.send_close_notify();
                tls.flush().unwrap();
            }
            _ => {}
        }
        if self.case.fault == Fault::HalfClose {
            tls.conn.send_close_notify();
            tls.flush().unwrap();
        }
        acknowledged(&tls.sock);
        if !finishes(&self.case) {
            return self.misbehave(tls.sock);
        }
        if self.case.fault == Fault::Garbage {
            tls.sock.write_all(GARBAGE).unwrap();
        } else {
            plain::finish(&tls.sock);
        }
        self.tell(Told::Misbehaved);
        let end = tls.read_to_end(&mut request).map_or(End::Reset, |_| End::Clean);
        self.tell(Told::Request(request, end));
    }

    /// Whole records with the first half, and then, unless there is to be a clean end, half a record.
    fn half_an_answer(&self, tls: &mut Accepted) {
        let [first, second] = self.case.halves();
        tls.write_all(first).and_then(|()| tls.flush()).unwrap();
        if self.case.fault != Fault::HalfClose {
            let mut record = Vec::new();
            tls.conn.writer().write_all(&second[..1000]).unwrap();
            tls.conn.write_tls(&mut record).unwrap();
            tls.sock.write_all(&record[..record.len() / 2]).unwrap();
        }
    }

    fn misbehave(&self, mut tcp: TcpStream) {
        match self.case.fault {
            Fault::Reset => {
                plain::reset(tcp);
                return self.tell(Told::Misbehaved);
            }
            Fault::Stall => {
                self.tell(Told::Misbehaved);
                let _ = self.over.lock().unwrap().recv_timeout(PATIENCE);
                return;
            }
            Fault::Garbage => drop(tcp.write_all(GARBAGE)),
            Fault::Truncation | Fault::HalfClose => plain::finish(&tcp),
        }
        self.tell(Told::Misbehaved);
        // Closing with unread bytes would be a reset.
        let _ = tcp.read_to_end(&mut Vec::new());
    }

    fn tell(&self, what: Told) {
        // The run may be over.
        let _ = self.told.lock().unwrap().send(what);
    }
}

/// Ends of TLS that are clean; what comes after close_notify is ignored (RFC 8446 section 6.1).
fn finishes(case: &Case) -> bool {
    match case.step {
        Step::AfterFinished | Step::AmidARecord => case.fault == Fault::HalfClose,
        Step::AfterCloseNotify => !matches!(case.fault, Fault::Reset | Fault::Stall),
        _ => false,
    }
}

impl Client {
    pub(super) fn run(&self, address: SocketAddr, words: &Words, meanwhile: impl FnOnce()) -> Outcome {
        let mut tcp = plain::connect(address);
        // It may be refused meanwhile.
        let _ = tcp.write_all(&self.case.request);
        match self.told.recv_timeout(PATIENCE).expect("the server's fault") {
            Told::Misbehaved => meanwhile(),
            Told::Request(..) => unreachable!("the fault comes first"),
        }
        let (got, end) = plain::read_to_end(&mut tcp);
        let owed = match self.case.step {
            Step::AfterCloseNotify => &self.case.answer,
            Step::AmidARecord => self.case.halves()[0],
            _ => b"",
        };
        assert!(got == owed, "the client got {} bytes of {}", got.len(), owed.len());
        let to_server = match (finishes(&self.case), self.case.step > Step::AfterFinished) {
            (true, _) => self.finish(&tcp),
            // The server read it before it misbehaved.
            (false, true) => self.case.request.len(),
            (false, false) => 0,
        };
        let ended = words.wait(&self.case);
        Outcome { to_server, to_client: got.len(), end: Some(end), ended }
    }

    /// The client ends too; the server got all of the request.
    fn finish(&self, tcp: &TcpStream) -> usize {
        plain::finish(tcp);
        let told = std::iter::from_fn(|| self.told.recv_timeout(PATIENCE).ok());
        let mut requests = told.filter_map(|told| match told {
            Told::Request(bytes, end) => Some((bytes, end)),
            Told::Misbehaved => None,
        });
        let (bytes, end) = requests.next().expect("the whole request");
        assert!(bytes == self.case.request, "the server got {} bytes", bytes.len());
        assert_eq!(end, End::Clean, "the end of the request");
        bytes.len()
    }
}
