//! A login of MySQL with any client and any server: no panic, an end, and in plaintext nothing of the client but the head of
//! its answer.

use std::sync::LazyLock;

use egret::protocols::login::{Action, Inputs, Login, Side};
use egret::protocols::mysql::Client;
use egret::protocols::rsa::DecryptionKey;

static KEY: LazyLock<DecryptionKey> = LazyLock::new(DecryptionKey::generate);

/// More steps than bytes: each step but a few reads one or sends a packet.
const STEPS: usize = 20_000;

/// Runs one part of a login on what is left of both sides. `None`: refused, or it waits for more.
fn run<T>(mut step: impl FnMut(&mut Inputs) -> Action<T>, left: &mut [&[u8]; 2]) -> Option<(T, Vec<Vec<u8>>)> {
    let mut inputs = Inputs { key: Some(&KEY), ..Inputs::default() };
    let mut to_server = Vec::new();
    for _ in 0..STEPS {
        let most = match step(&mut inputs) {
            Action::Done(done) => return Some((done, to_server)),
            Action::Refuse(_) => return None,
            Action::MakeKey => panic!("there is a key"),
            Action::Send(Side::Server, bytes) => {
                to_server.push(bytes.expose().to_vec());
                continue;
            }
            Action::Send(Side::Client, _) => continue,
            Action::Read(Side::Client, most) => [most, 0],
            Action::Read(Side::Server, most) => [0, most],
            Action::ReadEither(of_client, of_server) => [of_client, of_server],
        };
        let side = if left[1].is_empty() || most[1] == 0 { 0 } else { 1 };
        let (read, rest) = left[side].split_at(most[side].min(left[side].len()));
        if read.is_empty() {
            return None;
        }
        left[side] = rest;
        if side == 0 { inputs.client.extend(read) } else { inputs.server.extend(read) }
    }
    panic!("no end in sight");
}

/// The first byte says how the rest is shared out between the server and the client.
pub fn check(data: &[u8]) {
    let Some((share, data)) = data.split_first() else { return };
    let (server, client) = data.split_at(data.len() * usize::from(*share) / 256);
    let mut left = [client, server];
    let mut login = Client::default();
    login.begin_before_tls();
    let Some((said, plaintext)) = run(|inputs| login.before_tls(inputs), &mut left) else { return };
    assert!(plaintext.len() == 1 && plaintext[0].len() == 36, "more than a request for TLS");
    login.begin_inside_tls(&said);
    run(|inputs| login.inside_tls(inputs), &mut left);
}
