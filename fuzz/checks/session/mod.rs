//! What holds for an opened session whatever its server says after the handshake: run by the fuzzer and, on random
//! scripts, by the tests. A model that knows the rules of RFC 8446 and RFC 5246, and nothing of egret's code, says of
//! each record what has to become of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use egret::pipeline::relay::Ended;
use egret::tls::record::{Frame, MAX_WIRE, Opener, Sealer};
use egret::tls::session::{CONTROL, Opened, Processed, Session};
use rustls::crypto::aws_lc_rs::cipher_suite as suites;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ContentType, SupportedCipherSuite};

use self::handshaken::{Handshaken, Tickets};
use self::model::{Model, Verdict, unpadded};
use self::script::{Line, lines};

#[path = "../../../src/tls/session/tests/handshaken.rs"]
mod handshaken;
mod model;
mod script;

const SUITES: [SupportedCipherSuite; 4] = [
    suites::TLS13_AES_128_GCM_SHA256,
    suites::TLS13_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The first byte chooses the suite, and who opens the records; the rest is what both ends say.
pub fn check(data: &[u8]) {
    let Some((&choice, script)) = data.split_first() else { return };
    let mut talk = Talk::new(SUITES[usize::from(choice % 4)], choice & 4 == 0);
    for line in lines(script) {
        match line {
            Line::Client => talk.client_speaks(),
            Line::Server(kind, body) => match talk.server_speaks(kind, &body) {
                Verdict::Data | Verdict::Quiet { .. } => {}
                Verdict::Closed | Verdict::Alert(_) | Verdict::Fault(_) => break,
            },
        }
    }
    assert_eq!(talk.tickets.0.load(Ordering::Relaxed), talk.model.tickets, "tickets that were kept");
}

/// A session, its server, and what the model knows of both.
struct Talk {
    session: Session,
    sealer: Sealer,
    opener: Opener,
    kernel: KernelConnection<ServerConnectionData>,
    tickets: Arc<Tickets>,
    model: Model,
    /// Else the records are opened by somebody else, as a kernel does.
    sealed: bool,
}

impl Talk {
    fn new(suite: SupportedCipherSuite, sealed: bool) -> Self {
        let Handshaken { client, server, mut down, tickets } = Handshaken::of(suite);
        let (secrets, kernel) = client.dangerous_into_kernel_connection().expect("it is allowed");
        let mut session = Session::new(secrets, kernel, None).expect("a suite of TLS");
        let (secrets, kernel) = server.dangerous_into_kernel_connection().expect("it is allowed");
        let tls13 = suite.tls13().is_some();
        let sealer = Sealer::new(tls13, &secrets.tx.1, secrets.tx.0, u64::MAX).expect("a suite of TLS");
        let opener = Opener::new(tls13, &secrets.rx.1, secrets.rx.0).expect("a suite of TLS");
        let mut rest = &mut down[..];
        while let Ok(Opened::Quiet { wire }) = session.open(rest) {
            rest = &mut rest[wire..];
        }
        let model = Model::new(tls13, tickets.0.load(Ordering::Relaxed));
        Self { session, sealer, opener, kernel, tickets, model, sealed }
    }

    /// One record, and whether the session takes it as the model does.
    fn server_speaks(&mut self, kind: u8, body: &[u8]) -> Verdict {
        let (inner, plain) = if self.model.tls13 && self.sealed { unpadded(kind, body) } else { (kind, body) };
        let verdict = self.model.judge(inner, plain);
        let heard = if self.sealed { self.open(kind, body) } else { self.session.process_record(kind.into(), body) };
        match (&verdict, heard) {
            (Verdict::Data, Ok(Processed::Data)) | (Verdict::Closed, Ok(Processed::Closed)) => {}
            (Verdict::Quiet { renewed }, Ok(Processed::Quiet)) => {
                if *renewed {
                    let (sequence, secrets) = self.kernel.update_tx_secret().expect("TLS 1.3 can");
                    self.sealer = Sealer::new(true, &secrets, sequence, u64::MAX).expect("a suite of TLS");
                }
            }
            (Verdict::Alert(description), Err(error)) => {
                assert_eq!(error.alert(), None, "who sends an alert is owed none");
                assert_eq!(Ended::from_tls(error.into_rustls()), Ended::UpstreamAlert((*description).into()));
            }
            (Verdict::Fault(description), Err(error)) => {
                assert_eq!(error.alert(), Some(*description), "{kind} {body:?}: {error}");
                assert_eq!(Ended::from_tls(error.into_rustls()).reason(), "upstream_tls_error");
                self.alert_arrives(*description);
            }
            (verdict, heard) => panic!("{kind} {body:?} is {verdict:?} and was taken for {heard:?}"),
        }
        verdict
    }

    /// The same record, sealed. What comes of it by and by changes nothing.
    fn open(&mut self, kind: u8, body: &[u8]) -> Result<Processed, egret::tls::session::Error> {
        let mut record = seal(&mut self.sealer, kind.into(), body);
        let whole = record.len();
        for part in [0, 3, 5, whole - 1] {
            match self.session.open(&mut record[..part])? {
                Opened::Partial(needed) => assert!((part + 1..=whole.min(MAX_WIRE)).contains(&needed)),
                opened => panic!("{part} of {whole} bytes are {opened:?}"),
            }
        }
        Ok(match self.session.open(&mut record)? {
            Opened::Data { wire, plain } => {
                assert_eq!((wire, &record[plain]), (whole, unpadded_data(self.model.tls13, kind, body)));
                Processed::Data
            }
            Opened::Quiet { wire } => {
                assert_eq!(wire, whole);
                Processed::Quiet
            }
            Opened::Closed => Processed::Closed,
            Opened::Partial(_) => panic!("a whole record is taken for a part"),
        })
    }

    /// What is owed goes first, is what the version has for it, and is said once.
    fn client_speaks(&mut self) {
        let mut control = [0; CONTROL];
        let owed = self.model.owed;
        assert_eq!(self.session.owes_reply(), owed);
        let written = self.session.control(&mut control, 1).expect("the key is fresh");
        assert_eq!(written > 0, owed);
        if owed && self.model.tls13 {
            self.arrives(&control[..written], ContentType::Handshake, &[24, 0, 0, 1, 0]);
            let (sequence, secrets) = self.kernel.update_rx_secret().expect("TLS 1.3 can");
            self.opener = Opener::new(true, &secrets, sequence).expect("a suite of TLS");
        } else if owed {
            self.arrives(&control[..written], ContentType::Alert, &[1, AlertDescription::NoRenegotiation.into()]);
        }
        self.model.owed = false;

        let layout = self.session.layout();
        let mut slot = [&vec![0; layout.front()][..], b"said", &vec![0; layout.back()]].concat();
        let wire = self.session.seal(&mut slot, 4).expect("the key is fresh");
        self.arrives(&slot[..wire], ContentType::ApplicationData, b"said");
    }

    /// The alert that is owed, as the server gets it.
    fn alert_arrives(&mut self, description: AlertDescription) {
        let mut out = [0; CONTROL];
        let written = self.session.alert(&mut out, description).expect("the key is fresh");
        self.arrives(&out[..written], ContentType::Alert, &[2, description.into()]);
    }

    fn arrives(&mut self, record: &[u8], kind: ContentType, body: &[u8]) {
        let mut record = record.to_vec();
        assert_eq!(self.opener.frame(&record), Ok(Frame::Whole(record.len())));
        let (heard, plain) = self.opener.open(&mut record).expect("it was sealed for the server");
        assert_eq!((heard, &record[plain]), (kind, body));
    }
}

fn unpadded_data(tls13: bool, kind: u8, body: &[u8]) -> &[u8] {
    if tls13 { unpadded(kind, body).1 } else { body }
}

fn seal(sealer: &mut Sealer, kind: ContentType, body: &[u8]) -> Vec<u8> {
    let layout = sealer.layout();
    let mut slot = [&vec![0; layout.front()][..], body, &vec![0; layout.back()]].concat();
    let wire = sealer.seal(kind, &mut slot, body.len()).expect("the key is fresh");
    assert_eq!(wire, slot.len());
    slot
}
