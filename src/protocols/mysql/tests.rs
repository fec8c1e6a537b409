//! Logins against scripted servers, with every split of the bytes.

use std::sync::LazyLock;

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use bytes::Bytes;
use proptest::prelude::*;

use super::packet::capability::{
    CONNECT_WITH_DB, PLUGIN_AUTH, PLUGIN_AUTH_LENENC, PROTOCOL_41, SECURE_CONNECTION, SSL,
};
use super::packet::packet;
use super::{Client, Server};
use crate::protocols::exchange::{ClientRefusal, Exchange, ServerError, ServerRefusal, Step};
use crate::protocols::login::{Action, Inputs, Login, Progress, Refusal, Side};
use crate::protocols::rsa::DecryptionKey;

static KEY: LazyLock<DecryptionKey> = LazyLock::new(DecryptionKey::generate);

const FLAGS: u32 = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH | PLUGIN_AUTH_LENENC;
const NATIVE: &str = "mysql_native_password";
const CACHING: &str = "caching_sha2_password";
const SCRAMBLE: &[u8; 20] = b"abcdefghijklmnopqrst";
const OTHER_SCRAMBLE: &[u8; 20] = b"ABCDEFGHIJKLMNOPQRST";

fn framed(sequence: u8, payload: &[u8]) -> Vec<u8> {
    packet(sequence, &[payload]).expose().to_vec()
}

fn greeting(flags: u32, scramble: &[u8; 20], plugin: &str) -> Vec<u8> {
    let [a, b, c, d] = flags.to_le_bytes();
    [
        &b"\x0a8.4.0-example\0\x07\0\0\0"[..],
        &scramble[..8],
        &[0, a, b, 45, 2, 0, c, d, 21],
        // MariaDB's extended capabilities are in the last four of these.
        &[0, 0, 0, 0, 0, 0, 0x1d, 0, 0, 0],
        &scramble[8..],
        &[0],
        plugin.as_bytes(),
        &[0],
    ]
    .concat()
}

fn response(flags: u32, scrambled: &[u8], plugin: &str, attributes: &[u8]) -> Vec<u8> {
    let database = if flags & CONNECT_WITH_DB == 0 { &b""[..] } else { b"shop\0" };
    let length = u8::try_from(scrambled.len()).unwrap();
    let plugin = if flags & PLUGIN_AUTH == 0 { Vec::new() } else { [plugin.as_bytes(), b"\0"].concat() };
    [&head(flags)[..], b"app\0", &[length], scrambled, database, &plugin, attributes].concat()
}

/// What a request for TLS and an answer begin with.
fn head(flags: u32) -> Vec<u8> {
    [&flags.to_le_bytes()[..], b"\0\0\0\x01\x2d", &[0; 19], &[4, 0, 0, 0]].concat()
}

/// One event of a login; `From*` is what egret reads, `To*` what it has to send next.
enum Event {
    FromClient(Vec<u8>),
    FromServer(Vec<u8>),
    ToClient(Vec<u8>),
    ToServer(Vec<u8>),
}
use Event::{FromClient, FromServer, ToClient, ToServer};

/// Runs one part of a login; `cuts` are the lengths of the pieces in which bytes arrive.
fn play<T>(mut step: impl FnMut(&mut Inputs) -> Action<T>, script: &[Event], cuts: &[usize]) -> Result<T, Refusal> {
    let mut inputs = Inputs::default();
    let mut script = script.iter();
    let mut unread: (Option<Side>, &[u8]) = (None, b"");
    let mut cuts = cuts.iter().copied().cycle();
    loop {
        let (side, most) = match step(&mut inputs) {
            Action::Done(done) => {
                assert!(script.next().is_none() && unread.1.is_empty(), "done before the end of the script");
                return Ok(done);
            }
            Action::Refuse(refusal) => return Err(refusal),
            Action::MakeKey => {
                inputs.key = Some(&KEY);
                continue;
            }
            Action::Send(side, bytes) => {
                let (expected_side, expected) = match script.next() {
                    Some(ToClient(bytes)) => (Side::Client, bytes),
                    Some(ToServer(bytes)) => (Side::Server, bytes),
                    _ => panic!("nothing is to be sent now, and not {:?} to {side:?}", bytes.expose()),
                };
                assert_eq!((side, bytes.expose()), (expected_side, &expected[..]));
                continue;
            }
            Action::Read(side, most) => (Some(side), (most, most)),
            Action::ReadEither(of_client, of_server) => (None, (of_client, of_server)),
        };
        if unread.1.is_empty() {
            unread = match script.next() {
                Some(FromClient(bytes)) => (Some(Side::Client), bytes),
                Some(FromServer(bytes)) => (Some(Side::Server), bytes),
                Some(_) => panic!("it reads, and something has to be sent"),
                None => panic!("it waits for more"),
            };
        }
        assert!(side.is_none_or(|side| unread.0 == Some(side)), "it reads from the wrong side");
        let (input, most) = match unread.0 {
            Some(Side::Client) => (&mut inputs.client, most.0),
            _ => (&mut inputs.server, most.1),
        };
        assert!(most > 0, "at least one byte is read");
        let length = cuts.next().unwrap_or(usize::MAX).clamp(1, most).min(unread.1.len());
        input.extend(&unread.1[..length]);
        unread.1 = &unread.1[length..];
    }
}

/// The part before TLS of a usual client.
fn meet(client: &mut Client, greeting: &[u8], response: &[u8], cuts: &[usize]) -> Bytes {
    let flags = u32::from_le_bytes(response[..4].try_into().unwrap());
    let mut shown = greeting.to_vec();
    let flags_at = 1 + b"8.4.0-example\0".len() + 4 + 8 + 1;
    shown[flags_at + 1] &= !8;
    let script = [
        FromServer(framed(0, greeting)),
        ToClient(framed(0, &shown)),
        FromClient(framed(1, response)),
        ToServer(framed(1, &[&(flags | SSL).to_le_bytes()[..], &response[4..32]].concat())),
    ];
    client.begin_before_tls();
    play(|inputs| client.before_tls(inputs), &script, cuts).unwrap()
}

/// The response as it is sent inside TLS.
fn sent(response: &[u8]) -> Vec<u8> {
    let flags = u32::from_le_bytes(response[..4].try_into().unwrap());
    framed(2, &[&(flags | SSL).to_le_bytes()[..], &response[4..]].concat())
}

fn inside(client: &mut Client, said: &Bytes, script: &[Event], cuts: &[usize]) -> Result<(), Refusal> {
    client.begin_inside_tls(said);
    play(|inputs| client.inside_tls(inputs), script, cuts)
}

const OK: &[u8] = b"\0\0\0\x02\0\0\0";
const ERR: &[u8] = b"\xff\x15\x04#28000Access denied for user 'app'@'localhost' (using password: YES)";
const CUTS: [&[usize]; 5] = [&[usize::MAX], &[1], &[2, 5], &[3], &[7, 1, 64]];

#[test]
fn numbers_are_translated_until_the_server_has_accepted_or_refused() {
    let greeting = greeting(FLAGS | SSL, SCRAMBLE, NATIVE);
    for flags in [FLAGS, FLAGS | CONNECT_WITH_DB, PROTOCOL_41 | SECURE_CONNECTION, FLAGS & !PLUGIN_AUTH_LENENC] {
        for last in [OK, ERR] {
            for cuts in CUTS {
                let response = response(flags, &[7; 20], NATIVE, b"\x05\x01a\x02bc");
                let mut client = Client::default();
                let said = meet(&mut client, &greeting, &response, cuts);
                assert_eq!(client.progress(), Progress::Answered);
                let script = [ToServer(sent(&response)), FromServer(framed(3, last)), ToClient(framed(2, last))];
                inside(&mut client, &said, &script, cuts).unwrap();
                assert_eq!(client.progress(), Progress::Authenticating);
            }
        }
    }
}

#[test]
fn packets_of_unknown_methods_pass_in_any_order() {
    let switch = [b"\xfe", &b"parsec\0"[..], &[9; 32]].concat();
    let response = response(FLAGS, b"", NATIVE, b"");
    for cuts in CUTS {
        let mut client = Client::default();
        let said = meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, NATIVE), &response, cuts);
        let script = [
            ToServer(sent(&response)),
            FromServer(framed(3, &switch)),
            ToClient(framed(2, &switch)),
            FromClient(framed(3, b"")),
            ToServer(framed(4, b"")),
            FromServer(framed(5, b"P\x01salt")),
            ToClient(framed(4, b"P\x01salt")),
            FromServer(framed(6, b"\x01more")),
            ToClient(framed(5, b"\x01more")),
            FromClient(framed(6, &[5; 96])),
            ToServer(framed(7, &[5; 96])),
            FromServer(framed(8, OK)),
            ToClient(framed(7, OK)),
        ];
        inside(&mut client, &said, &script, cuts).unwrap();
    }
}

fn encrypted(password: &[u8], scramble: &[u8; 20]) -> Vec<u8> {
    let pem: String = KEY.public().lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, pem).unwrap();
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(&der).unwrap()).unwrap();
    let masked: Vec<u8> = password.iter().zip(scramble.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let mut room = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA1_MGF1SHA1, &masked, &mut room, None).unwrap().to_vec()
}

const PASSWORD: &[u8] = b"correct horse battery staple\0";

fn key_answer(sequence: u8) -> Vec<u8> {
    framed(sequence, &[b"\x01", KEY.public().as_bytes()].concat())
}

#[test]
fn caching_sha2_is_fast_where_the_server_knows_the_digest() {
    for cuts in CUTS {
        let response = response(FLAGS, &[7; 32], CACHING, b"");
        let mut client = Client::default();
        let said = meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, CACHING), &response, cuts);
        let script = [
            ToServer(sent(&response)),
            FromServer(framed(3, b"\x01\x03")),
            ToClient(framed(2, b"\x01\x03")),
            FromServer(framed(4, OK)),
            ToClient(framed(3, OK)),
        ];
        inside(&mut client, &said, &script, cuts).unwrap();
    }
}

#[test]
fn password_of_a_client_that_asks_for_a_key_goes_to_the_server_as_it_is() {
    for cuts in CUTS {
        let response = response(FLAGS, &[7; 32], CACHING, b"");
        let mut client = Client::default();
        let said = meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, CACHING), &response, cuts);
        let script = [
            ToServer(sent(&response)),
            FromServer(framed(3, b"\x01\x04")),
            ToClient(framed(2, b"\x01\x04")),
            FromClient(framed(3, b"\x02")),
            ToClient(key_answer(4)),
            FromClient(framed(5, &encrypted(PASSWORD, SCRAMBLE))),
            ToServer(framed(4, PASSWORD)),
            FromServer(framed(5, OK)),
            ToClient(framed(6, OK)),
        ];
        inside(&mut client, &said, &script, cuts).unwrap();
    }
}

#[test]
fn client_on_a_socket_sends_its_password_itself() {
    let response = response(FLAGS, &[7; 32], CACHING, b"");
    let mut client = Client::default();
    let said = meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, CACHING), &response, CUTS[0]);
    let script = [
        ToServer(sent(&response)),
        FromServer(framed(3, b"\x01\x04")),
        ToClient(framed(2, b"\x01\x04")),
        FromClient(framed(3, PASSWORD)),
        ToServer(framed(4, PASSWORD)),
        FromServer(framed(5, OK)),
        ToClient(framed(4, OK)),
    ];
    inside(&mut client, &said, &script, CUTS[0]).unwrap();
}

#[test]
fn clients_with_the_c_library_of_mysql_are_made_to_ask_for_a_key() {
    for cuts in CUTS {
        let response = response(FLAGS, &[7; 32], CACHING, b"\x16\x0c_client_name\x08libmysql");
        let mut client = Client::default();
        let said = meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, CACHING), &response, cuts);
        let switch = [&b"\xfesha256_password\0"[..], SCRAMBLE, b"\0"].concat();
        let script = [
            ToServer(sent(&response)),
            FromServer(framed(3, b"\x01\x04")),
            ToClient(framed(2, &switch)),
            FromClient(framed(3, b"\x01")),
            ToClient(key_answer(4)),
            FromClient(framed(5, &encrypted(PASSWORD, SCRAMBLE))),
            ToServer(framed(4, PASSWORD)),
            FromServer(framed(5, ERR)),
            ToClient(framed(6, ERR)),
        ];
        inside(&mut client, &said, &script, cuts).unwrap();
    }
}

#[test]
fn sha256_asks_for_the_key_whoever_names_the_method_first() {
    let switch = [&b"\xfesha256_password\0"[..], OTHER_SCRAMBLE, b"\0"].concat();
    let rest = || {
        [
            FromServer(framed(3, &switch)),
            ToClient(framed(2, &switch)),
            FromClient(framed(3, b"\x01")),
            ToClient(key_answer(4)),
            FromClient(framed(5, &encrypted(PASSWORD, OTHER_SCRAMBLE))),
            ToServer(framed(4, PASSWORD)),
            FromServer(framed(5, OK)),
            ToClient(framed(6, OK)),
        ]
    };
    // The account's method differs from the one of the greeting.
    let native = response(FLAGS, &[7; 20], NATIVE, b"");
    let mut client = Client::default();
    let said = meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, NATIVE), &native, CUTS[0]);
    let script: Vec<_> = std::iter::once(ToServer(sent(&native))).chain(rest()).collect();
    inside(&mut client, &said, &script, CUTS[0]).unwrap();
    // The client asks in its first packet already.
    let asking = response(FLAGS, b"\x01", "sha256_password", b"");
    let mut client = Client::default();
    let said = meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, "sha256_password"), &asking, CUTS[0]);
    let restarted = sent(&response(FLAGS, b"", "egret", b""));
    let script: Vec<_> = std::iter::once(ToServer(restarted)).chain(rest()).collect();
    inside(&mut client, &said, &script, CUTS[0]).unwrap();
}

/// What is said before TLS by a server without a client.
fn said_by(greeting: &[u8], request: Bytes) -> Bytes {
    let mut server = Server::new(Some(request));
    let mut input = bytes::BytesMut::new();
    let mut left = &framed(0, greeting)[..];
    loop {
        match server.step(&mut input) {
            Step::Read(most) => {
                input.extend_from_slice(&left[..most]);
                left = &left[most..];
            }
            Step::Send(_) => {}
            Step::Done(said) => return said,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn another_server_makes_the_client_start_again_with_its_scramble() {
    let switch = [&b"\xfemysql_native_password\0"[..], OTHER_SCRAMBLE, b"\0"].concat();
    for flags in [FLAGS, FLAGS | CONNECT_WITH_DB, FLAGS & !PLUGIN_AUTH_LENENC] {
        let response = response(flags, &[7; 20], NATIVE, b"\x05\x01a\x02bc");
        let restarted = sent(&self::response(flags, b"", "egret", b"\x05\x01a\x02bc"));
        let mut client = Client::default();
        meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, NATIVE), &response, CUTS[0]);
        let said = said_by(&greeting(FLAGS | SSL, OTHER_SCRAMBLE, NATIVE), client.request().unwrap());
        let script = [
            ToServer(restarted),
            FromServer(framed(3, &switch)),
            ToClient(framed(2, &switch)),
            FromClient(framed(3, &[8; 20])),
            ToServer(framed(4, &[8; 20])),
            FromServer(framed(5, OK)),
            ToClient(framed(4, OK)),
        ];
        inside(&mut client, &said, &script, CUTS[0]).unwrap();
    }
}

#[test]
fn client_that_cannot_start_again_is_bound_to_its_server() {
    let response = response(PROTOCOL_41 | SECURE_CONNECTION, &[7; 20], NATIVE, b"");
    let mut client = Client::default();
    meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, NATIVE), &response, CUTS[0]);
    let said = said_by(&greeting(FLAGS | SSL, OTHER_SCRAMBLE, NATIVE), client.request().unwrap());
    assert_eq!(inside(&mut client, &said, &[], CUTS[0]), Err(Refusal::NoSwitch));
}

#[test]
fn connection_for_other_capabilities_is_not_used() {
    let greeting = greeting(FLAGS | SSL, SCRAMBLE, NATIVE);
    let warm = said_by(&greeting, Bytes::from(head(FLAGS | SSL)));
    let mut shown = greeting;
    shown[1 + b"8.4.0-example\0".len() + 4 + 8 + 1 + 1] &= !8;
    for (flags, fits) in [(FLAGS, true), (FLAGS | CONNECT_WITH_DB, false)] {
        let response = response(flags, &[7; 20], NATIVE, b"");
        let mut script = vec![ToClient(framed(0, &shown)), FromClient(framed(1, &response))];
        if fits {
            script.extend([ToServer(sent(&response)), FromServer(framed(3, OK)), ToClient(framed(2, OK))]);
        }
        let mut client = Client::default();
        let end = inside(&mut client, &warm, &script, CUTS[0]);
        assert_eq!(end, if fits { Ok(()) } else { Err(Refusal::OtherCapabilities) });
        assert_eq!(client.progress(), if fits { Progress::Authenticating } else { Progress::Answered });
    }
}

fn before(script: &[Event]) -> Refusal {
    let mut client = Client::default();
    client.begin_before_tls();
    play(|inputs| client.before_tls(inputs), script, CUTS[0]).expect_err("it has to be refused")
}

#[test]
fn every_wrong_greeting_has_its_class() {
    let of_server = |payload: &[u8]| before(&[FromServer(framed(0, payload))]);
    assert_eq!(of_server(&greeting(FLAGS, SCRAMBLE, NATIVE)), Refusal::Server(ServerRefusal::NoTls));
    let full = of_server(b"\xff\x10\x04Too many connections");
    let message = framed(0, b"\xff\x10\x04Too many connections").into();
    let error = ServerError { text: "Too many connections (error 1040)".to_owned(), message };
    assert_eq!(full, Refusal::Server(ServerRefusal::Error(error)));
    let whole = greeting(FLAGS | SSL, SCRAMBLE, NATIVE);
    for cut in 0..58 {
        let refusal = of_server(&whole[..cut]);
        assert!(matches!(refusal, Refusal::Server(ServerRefusal::NotTheProtocol(_))), "{cut} bytes: {refusal:?}");
    }
    for other in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\x15\x03\x03\0\x02\x02\x0a", &framed(1, &whole)] {
        let refusal = before(&[FromServer(other.to_vec())]);
        assert_eq!(refusal, Refusal::Server(ServerRefusal::NotTheProtocol(other[0])), "{other:?}");
    }
}

#[test]
fn every_wrong_answer_of_a_client_has_its_class() {
    let whole = greeting(FLAGS | SSL, SCRAMBLE, NATIVE);
    let mut shown = whole.clone();
    shown[1 + b"8.4.0-example\0".len() + 4 + 8 + 1 + 1] &= !8;
    let of_client = |bytes: &[u8]| {
        before(&[FromServer(framed(0, &whole)), ToClient(framed(0, &shown)), FromClient(bytes.to_vec())])
    };
    assert_eq!(of_client(b"\x16\x03\x01\x02\0"), Refusal::Client(ClientRefusal::SpeaksTls));
    assert_eq!(of_client(&framed(1, &head(FLAGS | SSL))), Refusal::AsksForTls);
    let answer = response(FLAGS, &[7; 20], NATIVE, b"");
    let old = response(FLAGS & !PROTOCOL_41, &[7; 20], NATIVE, b"");
    let wrong =
        [framed(0, &answer), framed(2, &answer), framed(1, &old), framed(1, b""), b"GET / HTTP/1.1\r\n\r\n".to_vec()];
    let truncated = (0..32 + 4 + 1 + 19).map(|cut| framed(1, &answer[..cut]));
    for bytes in wrong.into_iter().chain(truncated) {
        let refusal = of_client(&bytes);
        assert!(matches!(refusal, Refusal::Client(ClientRefusal::NotTheProtocol(_))), "{bytes:?}: {refusal:?}");
    }
}

#[test]
fn packets_out_of_order_end_the_login_on_either_side() {
    let response = response(FLAGS, &[7; 32], CACHING, b"");
    let refused = |rest: Vec<Event>| {
        let mut client = Client::default();
        let said = meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, CACHING), &response, CUTS[0]);
        let script: Vec<_> = std::iter::once(ToServer(sent(&response))).chain(rest).collect();
        inside(&mut client, &said, &script, CUTS[0]).expect_err("it has to be refused")
    };
    let full = || vec![FromServer(framed(3, b"\x01\x04")), ToClient(framed(2, b"\x01\x04"))];
    let then = |event| full().into_iter().chain([event]).collect();
    assert_eq!(refused(vec![FromServer(framed(2, OK))]), Refusal::Server(ServerRefusal::NotTheProtocol(0)));
    for sequence in [2, 4] {
        let refusal = refused(then(FromClient(framed(sequence, b"\x02"))));
        assert!(matches!(refusal, Refusal::Client(ClientRefusal::NotTheProtocol(_))), "{refusal:?}");
    }
    // Encrypted for a key that the client has from elsewhere.
    assert_eq!(refused(then(FromClient(framed(3, &[9; 256])))), Refusal::ForeignKey);
    let mut with_key = full();
    with_key.extend([FromClient(framed(3, b"\x02")), ToClient(key_answer(4)), FromClient(framed(5, &[9; 256]))]);
    assert!(matches!(refused(with_key), Refusal::Client(ClientRefusal::NotTheProtocol(_))));
}

/// Steps until an end, with `client` and `server` as all that the peers will ever send.
fn drain<T>(mut step: impl FnMut(&mut Inputs) -> Action<T>, mut client: &[u8], mut server: &[u8]) -> Option<T> {
    let mut inputs = Inputs { key: Some(&KEY), ..Inputs::default() };
    for _ in 0..10_000 {
        let (of_client, of_server) = match step(&mut inputs) {
            Action::Done(done) => return Some(done),
            Action::Refuse(_) => return None,
            Action::MakeKey => panic!("it has one"),
            Action::Send(..) => continue,
            Action::Read(Side::Client, most) => (most, 0),
            Action::Read(Side::Server, most) => (0, most),
            Action::ReadEither(of_client, of_server) => (of_client, of_server),
        };
        let (from_server, left) = server.split_at(of_server.min(server.len()));
        inputs.server.extend(from_server);
        server = left;
        let (from_client, left) = client.split_at(if from_server.is_empty() { of_client.min(client.len()) } else { 0 });
        inputs.client.extend(from_client);
        client = left;
        if from_client.is_empty() && from_server.is_empty() {
            return None;
        }
    }
    panic!("no end in sight");
}

proptest! {
    #[test]
    fn any_bytes_come_to_an_end(client in prop::collection::vec(any::<u8>(), 0..300), server in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut login = Client::default();
        login.begin_before_tls();
        drain(|inputs| login.before_tls(inputs), &client, &server);
        let mut login = Client::default();
        let answer = response(FLAGS, &[7; 32], CACHING, b"");
        let said = meet(&mut login, &greeting(FLAGS | SSL, SCRAMBLE, CACHING), &answer, CUTS[0]);
        login.begin_inside_tls(&said);
        drain(|inputs| login.inside_tls(inputs), &client, &server);
    }

    #[test]
    fn any_answers_to_a_greeting_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200), flags in any::<u32>()) {
        let whole = greeting(FLAGS | SSL, SCRAMBLE, NATIVE);
        let answer = [&head(flags)[..], &tail].concat();
        let mut login = Client::default();
        login.begin_before_tls();
        let said = drain(|inputs| login.before_tls(inputs), &framed(1, &answer), &framed(0, &whole));
        if let Some(said) = said {
            // Either as it came, or restarted at another server.
            for said in [said, said_by(&greeting(FLAGS | SSL, OTHER_SCRAMBLE, NATIVE), login.request().unwrap())] {
                login.begin_inside_tls(&said);
                drain(|inputs| login.inside_tls(inputs), b"", &framed(3, OK));
            }
        }
    }

    #[test]
    fn any_split_of_a_login_gives_the_same_packets(cuts in prop::collection::vec(1usize..40, 1..12)) {
        let response = response(FLAGS, &[7; 32], CACHING, b"");
        let mut client = Client::default();
        let said = meet(&mut client, &greeting(FLAGS | SSL, SCRAMBLE, CACHING), &response, &cuts);
        let script = [
            ToServer(sent(&response)),
            FromServer(framed(3, b"\x01\x04")),
            ToClient(framed(2, b"\x01\x04")),
            FromClient(framed(3, b"\x02")),
            ToClient(key_answer(4)),
            FromClient(framed(5, &encrypted(PASSWORD, SCRAMBLE))),
            ToServer(framed(4, PASSWORD)),
            FromServer(framed(5, OK)),
            ToClient(framed(6, OK)),
        ];
        prop_assert!(inside(&mut client, &said, &script, &cuts).is_ok());
    }
}
