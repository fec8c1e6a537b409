//! The login of one client.

use bytes::Bytes;

use super::packet::{self, Greeting, Incomplete, Response, SCRAMBLE, capability, packet, until_nul};
use super::server::{self, Unread};
use crate::protocols::exchange::{ClientRefusal, ServerRefusal};
use crate::protocols::login::{Action, Inputs, Login, Progress, Received, Refusal, Side};
use crate::secret::Secret;

/// Bytes of a packet of the login: attributes have 64 KiB at most (`performance_schema_session_connect_attrs_size`), all
/// others some hundred bytes.
const MAX_PACKET: usize = 128 * 1024;

/// See [`Login`]. The exchange with a client has numbers of its own: that of the server has one packet more.
#[derive(Debug, Default)]
pub struct Client {
    /// The payload of the greeting that the client has seen, with the server's offer of TLS.
    shown: Option<Bytes>,
    response: Option<Response>,
    next_to_client: u8,
    /// The greeting of the server of now.
    greeting: Option<Bytes>,
    asked: bool,
    inside: Inside,
}

/// Where the part inside TLS is.
#[derive(Debug, Default)]
enum Inside {
    #[default]
    NotBegun,
    /// Nothing was sent inside TLS. The request that was made before it.
    Begun {
        request: Bytes,
    },
    Authenticating(Authentication),
    Over,
}

#[derive(Debug)]
struct Authentication {
    next_to_server: u8,
    method: Method,
    /// The one that the client uses now.
    scramble: [u8; SCRAMBLE],
    /// A server may switch once: clients refuse to do it again.
    switched: bool,
    /// Something of the server was passed on.
    answered: bool,
}

/// Methods in which a client on a connection without TLS does something else than one with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Other,
    CachingSha2,
    /// The client has to send its password: encrypted, if it can have a key for that.
    Password {
        key_request: u8,
        has_key: bool,
    },
}

const CACHING_SHA2: &[u8] = b"caching_sha2_password";
const SHA256: &[u8] = b"sha256_password";

/// First bytes of packets of a server.
const OK: u8 = 0;
const MORE_DATA: u8 = 1;
const AUTH_SWITCH: u8 = 0xfe;
const ERR: u8 = 0xff;

/// `caching_sha2_password`: the server does not know the password's digest, and has to see the password.
const FULL_AUTHENTICATION: u8 = 4;
/// What clients send for the server's key.
const CACHING_SHA2_KEY: u8 = 2;
const SHA256_KEY: u8 = 1;

/// Bytes that are encrypted with a key of 1024 bits or more: no password of a person is as long.
const LEAST_ENCRYPTED: usize = 128;

impl Method {
    fn of(plugin: &[u8]) -> Self {
        match plugin {
            CACHING_SHA2 => Self::CachingSha2,
            SHA256 => Self::Password { key_request: SHA256_KEY, has_key: false },
            _ => Self::Other,
        }
    }
}

impl Login for Client {
    fn begin_before_tls(&mut self) {
        self.greeting = None;
        self.asked = false;
    }

    fn before_tls(&mut self, inputs: &mut Inputs) -> Action<Bytes> {
        let Some(greeting) = self.greeting.clone() else {
            return match server::read_greeting(inputs.server.bytes()) {
                Ok(greeting) => {
                    inputs.server.clear();
                    self.greeting = Some(greeting);
                    self.before_tls(inputs)
                }
                Err(Unread::Lacks(lacks)) => Action::Read(Side::Server, lacks),
                Err(Unread::Refused(refusal)) => Action::Refuse(Refusal::Server(refusal)),
            };
        };
        let response = match self.meet(&greeting, &mut inputs.client) {
            Ok(response) => response,
            Err(action) => return action,
        };
        let request = response.request();
        if self.asked {
            return Action::Done(server::said(&greeting, &request));
        }
        self.asked = true;
        Action::Send(Side::Server, Secret::new(server::ask(&request)))
    }

    fn begin_inside_tls(&mut self, said: &Bytes) {
        let (greeting, request) =
            server::parts(said).expect("made by the first part of a login, or by its server side");
        self.greeting = Some(greeting);
        self.inside = Inside::Begun { request };
    }

    fn inside_tls(&mut self, inputs: &mut Inputs) -> Action<()> {
        match &self.inside {
            Inside::NotBegun => unreachable!("it was begun with what was said before TLS"),
            Inside::Begun { request } => self.respond(&request.clone(), inputs),
            Inside::Authenticating(_) => self.authenticate(inputs),
            Inside::Over => Action::Done(()),
        }
    }

    fn request(&self) -> Option<Bytes> {
        self.response.as_ref().map(|response| Bytes::copy_from_slice(&response.request()))
    }

    fn progress(&self) -> Progress {
        match (&self.inside, &self.response, &self.shown) {
            (Inside::Authenticating(Authentication { answered: true, .. }) | Inside::Over, ..) => {
                Progress::Authenticating
            }
            (_, Some(_), _) => Progress::Answered,
            (_, None, Some(_)) => Progress::Greeted,
            (_, None, None) => Progress::Silent,
        }
    }

    fn next_packet(&self) -> Option<u8> {
        // A client that has read a greeting reads again when it has sent its answer, which has the number 1.
        let next = if self.response.is_some() { self.next_to_client } else { 2 };
        self.shown.is_some().then_some(next)
    }
}

impl Client {
    /// Shows the greeting to a client that has not seen one, and reads what it answers.
    fn meet<T>(&mut self, greeting: &Bytes, client: &mut Received) -> Result<&Response, Action<T>> {
        if self.shown.is_none() {
            let shown = Greeting::parse(greeting).expect("parsed when it was read").without_tls(greeting);
            self.shown = Some(greeting.clone());
            self.next_to_client = 1;
            return Err(Action::Send(Side::Client, packet(0, &[&shown])));
        }
        if self.response.is_none() {
            self.response = Some(read_response(client.bytes())?);
            self.next_to_client = 2;
            client.clear();
        }
        Ok(self.response.as_ref().expect("set above"))
    }

    /// Sends the client's response to the server of now.
    fn respond(&mut self, request: &Bytes, inputs: &mut Inputs) -> Action<()> {
        let greeting = self.greeting.clone().expect("set when this part was begun");
        let is_shown = self.shown.as_ref().is_none_or(|shown| *shown == greeting);
        let response = match self.meet(&greeting, &mut inputs.client) {
            Ok(response) => response,
            Err(action) => return action,
        };
        if packet::all_capabilities(request) != packet::all_capabilities(&response.request()) {
            return Action::Refuse(Refusal::OtherCapabilities);
        }
        // A client that begins with a request for a key has nothing to say to a server inside TLS yet.
        let asks_for_key = response.plugin() == SHA256 && response.scrambled() == [SHA256_KEY];
        let goes_on = is_shown && !asks_for_key;
        if !goes_on && !response.can_switch() {
            return Action::Refuse(Refusal::NoSwitch);
        }
        let sent = if goes_on { response.inside_tls(2) } else { response.inside_tls_to_other(2) };
        let method = if goes_on { Method::of(response.plugin()) } else { Method::Other };
        let scramble = Greeting::parse(&greeting).expect("parsed when it was read").scramble;
        self.inside = Inside::Authenticating(Authentication {
            next_to_server: 3,
            method,
            scramble,
            switched: false,
            answered: false,
        });
        Action::Send(Side::Server, sent)
    }

    /// Passes on what either side sends, with the other side's numbers.
    fn authenticate(&mut self, inputs: &mut Inputs) -> Action<()> {
        let of_server = match packet::whole(inputs.server.bytes(), MAX_PACKET) {
            Ok((sequence, payload)) => {
                let action = self.of_server(sequence, payload);
                inputs.server.clear();
                return action;
            }
            Err(Incomplete::TooLong) => return Action::Refuse(not_by_server(inputs.server.bytes())),
            Err(Incomplete::Lacks(lacks)) => lacks,
        };
        match packet::whole(inputs.client.bytes(), MAX_PACKET) {
            Ok((sequence, payload)) => {
                let action = self.of_client(sequence, payload, inputs);
                if !matches!(action, Action::MakeKey) {
                    inputs.client.clear();
                }
                action
            }
            Err(Incomplete::TooLong) => Action::Refuse(not_by_client("a packet longer than any of a login")),
            Err(Incomplete::Lacks(of_client)) => Action::ReadEither(of_client, of_server),
        }
    }

    fn of_server(&mut self, sequence: u8, payload: &[u8]) -> Action<()> {
        let is_libmysql = self.response.as_ref().is_some_and(Response::is_of_libmysql);
        let Inside::Authenticating(authentication) = &mut self.inside else {
            unreachable!("called while it authenticates")
        };
        if sequence != authentication.next_to_server {
            return Action::Refuse(not_by_server(payload));
        }
        authentication.next_to_server = sequence.wrapping_add(1);
        authentication.answered = true;
        let switch = match payload {
            [OK | ERR, ..] => {
                self.inside = Inside::Over;
                None
            }
            [AUTH_SWITCH, request @ ..] => {
                authentication.switch(request);
                None
            }
            _ => authentication.more_data(payload, is_libmysql),
        };
        let number = self.next_to_client;
        self.next_to_client = number.wrapping_add(1);
        Action::Send(Side::Client, packet(number, &[switch.as_deref().unwrap_or(payload)]))
    }

    fn of_client(&mut self, sequence: u8, payload: &[u8], inputs: &Inputs) -> Action<()> {
        if sequence != self.next_to_client {
            return Action::Refuse(not_by_client("a packet out of order"));
        }
        let Inside::Authenticating(authentication) = &mut self.inside else {
            unreachable!("called while it authenticates")
        };
        let password = match (authentication.method, payload) {
            (Method::Password { key_request, .. }, [asked]) if *asked == key_request => {
                let Some(key) = inputs.key else { return Action::MakeKey };
                authentication.method = Method::Password { key_request, has_key: true };
                self.next_to_client = sequence.wrapping_add(2);
                let answer = packet(sequence.wrapping_add(1), &[&[MORE_DATA], key.public().as_bytes()]);
                return Action::Send(Side::Client, answer);
            }
            (Method::Password { has_key: true, .. }, encrypted) => {
                let decrypted = inputs.key.and_then(|key| key.decrypt(encrypted));
                let Some(mut password) = decrypted else {
                    return Action::Refuse(not_by_client("a password that is not encrypted for the key it was sent"));
                };
                // The scramble keeps what was encrypted from being used again.
                let scramble = authentication.scramble.iter().cycle();
                password.buffer().iter_mut().zip(scramble).for_each(|(byte, mask)| *byte ^= mask);
                Some(password)
            }
            (Method::Password { .. }, encrypted)
                if encrypted.len() >= LEAST_ENCRYPTED && !encrypted.ends_with(&[0]) =>
            {
                return Action::Refuse(Refusal::ForeignKey);
            }
            _ => None,
        };
        self.next_to_client = sequence.wrapping_add(1);
        let number = authentication.next_to_server;
        authentication.next_to_server = number.wrapping_add(1);
        Action::Send(Side::Server, packet(number, &[password.as_ref().map_or(payload, Secret::expose)]))
    }
}

impl Authentication {
    /// AuthSwitchRequest: the name of a plugin and its first data.
    fn switch(&mut self, request: &[u8]) {
        self.switched = true;
        let Some((plugin, data)) = until_nul(request) else { return };
        self.method = Method::of(plugin);
        if let Some(scramble) = data.first_chunk() {
            self.scramble = *scramble;
        }
    }

    /// Data of a plugin. Returns what the client gets in its place.
    ///
    /// MySQL's own C library asks for a key only when its user has set `get_server_public_key`, but as
    /// `sha256_password` it asks always, and the password goes to the server in the same form.
    fn more_data(&mut self, payload: &[u8], is_libmysql: bool) -> Option<Vec<u8>> {
        let is_full = matches!(payload, [MORE_DATA, FULL_AUTHENTICATION] | [FULL_AUTHENTICATION]);
        if self.method != Method::CachingSha2 || !is_full {
            return None;
        }
        let switches = is_libmysql && !self.switched;
        let key_request = if switches { SHA256_KEY } else { CACHING_SHA2_KEY };
        self.method = Method::Password { key_request, has_key: false };
        self.switched |= switches;
        switches.then(|| [&[AUTH_SWITCH], SHA256, &[0], &self.scramble, &[0]].concat())
    }
}

/// The whole packet that a client answers a greeting with.
fn read_response<T>(bytes: &[u8]) -> Result<Response, Action<T>> {
    let refuse = |why| Err(Action::Refuse(not_by_client(why)));
    // A handshake record of TLS: as a packet it would be of 768 KiB or more.
    if let [0x16, 3, ..] = bytes {
        return Err(Action::Refuse(Refusal::Client(ClientRefusal::SpeaksTls)));
    }
    let payload = match packet::whole(bytes, MAX_PACKET) {
        Ok((1, payload)) => payload,
        Ok(_) => return refuse("its first packet does not have the number 1"),
        Err(Incomplete::TooLong) => return refuse("its first packet is longer than any that answers a greeting"),
        Err(Incomplete::Lacks(lacks)) => return Err(Action::Read(Side::Client, lacks)),
    };
    if payload.first_chunk().is_some_and(|head| packet::capabilities(head) & capability::SSL != 0) {
        return Err(Action::Refuse(Refusal::AsksForTls));
    }
    match Response::parse(payload) {
        None => refuse("its first packet is no answer to a greeting"),
        Some(response) if response.capabilities & capability::PROTOCOL_41 == 0 => {
            refuse("it is older than MySQL 4.1, whose clients were the first with TLS in this form")
        }
        Some(response) => Ok(response),
    }
}

fn not_by_client(why: &'static str) -> Refusal {
    Refusal::Client(ClientRefusal::NotTheProtocol(why))
}

fn not_by_server(bytes: &[u8]) -> Refusal {
    Refusal::Server(ServerRefusal::NotTheProtocol(bytes.first().copied().unwrap_or_default()))
}
