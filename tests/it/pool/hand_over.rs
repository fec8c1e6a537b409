//! A warm connection and its client.

use std::io::{Read, Write};
use std::time::Duration;

use super::support::{Certificates, Counting, discards, takes, trip, wait_for_warm};
use crate::support::egret::Egret;
use crate::support::{eventually, plain};

#[test]
fn a_new_stream_takes_a_warm_connection_and_the_log_says_so() {
    let certificates = Certificates::new();
    let server = Counting::start(certificates.mutual(), None, None);
    let client = certificates.pki.client("app");
    let egret = Egret::start(&certificates.sections(&client, server.address(), "min_idle = 2, max_idle = 2"));
    wait_for_warm(&egret, 2);
    let before = server.accepted();
    assert_eq!((before, server.used()), (2, 0));

    trip(egret.address("app"), b"hello");
    let line = egret.wait_for_log("the stream", |line| line["message"] == "connection");
    assert_eq!(line["pooled"], true, "{line}");
    assert_eq!((line["sent"].as_u64(), line["received"].as_u64()), (Some(5), Some(5)), "{line}");
    assert_eq!((takes(&egret, "hit"), takes(&egret, "miss")), (1.0, 0.0));
    wait_for_warm(&egret, 2);
    assert_eq!(server.accepted(), before + 1, "one was taken, and one was made in its place");
}

#[test]
fn what_the_server_says_first_reaches_the_client_first() {
    let certificates = Certificates::new();
    let server = Counting::start(certificates.mutual(), Some(b"220 ready\r\n"), None);
    let client = certificates.pki.client("app");
    let egret = Egret::start(&certificates.sections(&client, server.address(), "min_idle = 1, max_idle = 1"));
    for round in 0..5 {
        wait_for_warm(&egret, 1);
        if round % 2 == 1 {
            // The greeting is there already, in other rounds it may be on its way.
            std::thread::sleep(Duration::from_millis(80));
        }
        let mut tcp = plain::connect(egret.address("app"));
        let mut greeting = [0; 11];
        tcp.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"220 ready\r\n");
        tcp.write_all(b"EHLO").unwrap();
        let mut answer = [0; 4];
        tcp.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"EHLO");
    }
    assert_eq!(takes(&egret, "hit"), 5.0);
}

#[test]
fn a_warm_connection_that_dies_under_a_silent_client_is_replaced_unseen() {
    let certificates = Certificates::new();
    let idle = Duration::from_millis(700);
    let server = Counting::start(certificates.mutual(), None, Some(idle));
    let client = certificates.pki.client("app");
    let pool = "min_idle = 1, max_idle = 1, max_idle_age = \"20s\"";
    let egret = Egret::start(&certificates.sections(&client, server.address(), pool));
    wait_for_warm(&egret, 1);
    let mut tcp = plain::connect(egret.address("app"));
    // The client has the warm connection, says nothing, and the server ends it.
    eventually("the warm connection to end", || (discards(&egret, "warm_closed") >= 1.0).then_some(()));
    let mut answer = [0; 5];
    tcp.write_all(b"hello").unwrap();
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    assert_eq!(server.used(), 1);
}
