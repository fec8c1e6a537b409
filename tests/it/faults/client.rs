//! Faults of the client, with a server that does what it should.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::stage::{Case, Outcome, SUBJECT, Words, acknowledged, identity};
use super::{Fault, Step};
use crate::support::PATIENCE;
use crate::support::peer::{self, Accepted};
use crate::support::plain::{self, End};

/// The bytes of a fatal alert of TLS, and text: a client's bytes are data whatever they look like.
const GARBAGE: &[u8] = b"\x15\x03\x03\x00\x02\x02\x28 neither an alert nor a request";

/// What the server has seen.
enum Seen {
    Client(String),
    All(Vec<u8>, End),
}

/// The server's side of a run.
pub(super) struct Server {
    case: Arc<Case>,
    seen: Mutex<Sender<Seen>>,
    /// Leave to send the next half of the answer.
    leave: Mutex<Receiver<()>>,
}

/// The client's side of a run.
pub(super) struct Client {
    case: Arc<Case>,
    seen: Receiver<Seen>,
    leave: Sender<()>,
}

pub(super) fn sides(case: &Arc<Case>) -> (Server, Client) {
    let ((tell, seen), (leave, left)) = (channel(), channel());
    let server = Server { case: Arc::clone(case), seen: Mutex::new(tell), leave: Mutex::new(left) };
    (server, Client { case: Arc::clone(case), seen, leave })
}

impl Server {
    pub(super) fn serve(&self, mut tls: Accepted) {
        self.tell(Seen::Client(identity(&mut tls)));
        let mut got = Vec::new();
        match read(&mut tls, &mut got, self.wanted()) {
            Some(end) => {
                self.tell(Seen::All(got, end));
                self.answer(&mut tls);
            }
            None => {
                self.answer(&mut tls);
                let end = read(&mut tls, &mut got, usize::MAX).expect("an end");
                self.tell(Seen::All(got, end));
            }
        }
        peer::end(&mut tls);
        let _ = tls.read(&mut [0]);
    }

    /// How many bytes come before the answer, if not the end comes first.
    fn wanted(&self) -> usize {
        let request = self.case.request.len();
        match (self.case.step, self.case.fault) {
            (Step::HalfClosed, _) => usize::MAX,
            (Step::Connected | Step::FirstByte | Step::AmidItsData, Fault::Garbage) => request + GARBAGE.len(),
            _ => request,
        }
    }

    fn answer(&self, tls: &mut Accepted) {
        for half in self.case.halves() {
            let _ = self.leave.lock().unwrap().recv_timeout(PATIENCE);
            // The client may be gone.
            let _ = tls.write_all(half).and_then(|()| tls.flush());
        }
    }

    fn tell(&self, what: Seen) {
        // The run may have failed.
        let _ = self.seen.lock().unwrap().send(what);
    }
}

/// Reads until there are as many bytes, or an end.
fn read(tls: &mut Accepted, got: &mut Vec<u8>, wanted: usize) -> Option<End> {
    let mut piece = [0; 16_384];
    while got.len() < wanted {
        match tls.read(&mut piece) {
            Ok(0) => return Some(End::Clean),
            Ok(length) => got.extend_from_slice(&piece[..length]),
            Err(_) => return Some(End::Reset),
        }
    }
    None
}

impl Client {
    /// Goes as far as the step, misbehaves, and checks what each side got.
    pub(super) fn run(&self, address: SocketAddr, words: &Words, meanwhile: impl FnOnce()) -> Outcome {
        let mut tcp = plain::connect(address);
        match self.seen.recv_timeout(PATIENCE).expect("a handshake") {
            Seen::Client(name) => assert_eq!(name, SUBJECT),
            Seen::All(..) => unreachable!("the handshake comes first"),
        }
        words.wait_until_originated(&self.case);
        let mut sent = self.until(&mut tcp);
        // A reset may overtake an end that egret has not read.
        let half_closed = (self.case.step == Step::HalfClosed).then(|| self.server_saw());
        let mut got = vec![0; self.answered_before()];
        tcp.read_exact(&mut got).expect("the answer so far");
        self.misbehave(tcp, &mut sent, &mut got, words, meanwhile);
        let ended = words.wait(&self.case);
        let (arrived, end) = half_closed.unwrap_or_else(|| self.server_saw());
        assert!(arrived == sent, "the server got {} bytes of {}", arrived.len(), sent.len());
        assert!(self.case.answer.starts_with(&got), "the client got other bytes");
        Outcome { to_server: arrived.len(), to_client: got.len(), end: Some(end), ended }
    }

    fn server_saw(&self) -> (Vec<u8>, End) {
        match self.seen.recv_timeout(PATIENCE).expect("the server's end") {
            Seen::All(bytes, end) => (bytes, end),
            Seen::Client(_) => unreachable!("there is one handshake"),
        }
    }

    /// What was sent until the fault.
    fn until(&self, tcp: &mut TcpStream) -> Vec<u8> {
        let request = &self.case.request;
        let length = match self.case.step {
            Step::Connected => 0,
            Step::FirstByte => 1,
            Step::AmidItsData => request.len() / 2,
            _ => request.len(),
        };
        tcp.write_all(&request[..length]).unwrap();
        match self.case.step {
            Step::HalfClosed => plain::finish(tcp),
            Step::AmidTheAnswer => self.leave(1),
            Step::AfterTheAnswer => self.leave(2),
            _ => {}
        }
        request[..length].to_vec()
    }

    /// How much of the answer the client has read when it misbehaves.
    fn answered_before(&self) -> usize {
        match self.case.step {
            Step::AmidTheAnswer => self.case.halves()[0].len() / 2,
            Step::AfterTheAnswer => self.case.answer.len(),
            _ => 0,
        }
    }

    fn leave(&self, halves: usize) {
        for _ in 0..halves {
            let _ = self.leave.send(());
        }
    }

    fn misbehave(
        &self,
        mut tcp: TcpStream,
        sent: &mut Vec<u8>,
        got: &mut Vec<u8>,
        words: &Words,
        meanwhile: impl FnOnce(),
    ) {
        acknowledged(&tcp);
        if self.case.step == Step::AmidTheAnswer {
            tcp.peek(&mut [0]).expect("more of the answer");
        }
        let expected = match self.case.fault {
            Fault::Reset | Fault::Truncation => {
                match self.case.fault {
                    Fault::Reset => plain::reset(tcp),
                    _ => drop(tcp),
                }
                self.leave(2);
                return meanwhile();
            }
            Fault::Stall => {
                if self.case.step == Step::HalfClosed {
                    self.leave(2);
                }
                meanwhile();
                words.wait(&self.case);
                self.leave(2);
                match self.case.step {
                    Step::HalfClosed => (self.case.answer.len(), End::Clean),
                    Step::AmidTheAnswer => (self.case.halves()[0].len(), End::Reset),
                    _ => (got.len(), End::Reset),
                }
            }
            Fault::Garbage => {
                let rest = self.case.request[sent.len()..].to_vec();
                for piece in [GARBAGE, &rest] {
                    tcp.write_all(piece).unwrap();
                    sent.extend_from_slice(piece);
                }
                self.goes_on(&tcp, meanwhile)
            }
            Fault::HalfClose => self.goes_on(&tcp, meanwhile),
        };
        let (rest, end) = plain::read_to_end(&mut tcp);
        got.extend_from_slice(&rest);
        assert_eq!((got.len(), end), expected, "what the client got; {}", words.wait(&self.case));
    }

    /// The client half-closes, and gets the whole answer.
    fn goes_on(&self, tcp: &TcpStream, meanwhile: impl FnOnce()) -> (usize, End) {
        plain::finish(tcp);
        meanwhile();
        self.leave(2);
        (self.case.answer.len(), End::Clean)
    }
}
