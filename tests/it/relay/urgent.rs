//! What cuts a read short: an urgent byte, descriptors on a Unix socket. What is behind arrives without more data of the
//! sender, and nothing is lost.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::passing;
use super::stage::{Setup, Stage, VERSIONS, read_all, read_exactly, within};

/// Bytes before an urgent one, that one, and bytes behind it. Nothing is awaited: all of it waits when the relay looks.
fn send_around_urgent(to: &TcpStream, before: usize) -> Vec<u8> {
    let (before, behind) = (vec![b'a'; before], [b'b'; 100]);
    let socket = SockRef::from(to);
    let mut sent = 0;
    while sent < before.len() {
        sent += socket.send(&before[sent..]).unwrap();
    }
    assert_eq!(socket.send_out_of_band(b"!").unwrap(), 1);
    assert_eq!(socket.send(&behind).unwrap(), behind.len());
    [&before[..], b"!", &behind].concat()
}

#[tokio::test]
async fn what_is_behind_a_clients_urgent_byte_arrives_at_once() {
    for version in VERSIONS {
        for before in [0, 100, 50_000] {
            let Stage { mut client, mut server, .. } = Setup { version, ..Setup::new() }.start().await;
            for _ in 0..3 {
                let sent = send_around_urgent(&client, before);
                assert!(read_exactly(&mut server, sent.len()).await == sent);
            }
            // The end behind it as well.
            let sent = send_around_urgent(&client, before);
            client.shutdown().await.unwrap();
            assert!(read_all(&mut server).await == sent);
        }
    }
}

#[tokio::test]
async fn what_is_behind_an_urgent_byte_passes_through_at_once() {
    for client_sends in [true, false] {
        for before in [0, 100, 50_000] {
            let passing::Stage { client, server, .. } = passing::start(Setup::new()).await;
            let (mut sender, mut receiver) = if client_sends { (client, server) } else { (server, client) };
            let sent = send_around_urgent(&sender, before);
            assert!(read_exactly(&mut receiver, sent.len()).await == sent);
            let sent = send_around_urgent(&sender, before);
            sender.shutdown().await.unwrap();
            assert!(read_all(&mut receiver).await == sent);
        }
    }
}

/// In bulk bytes go through a pipe, and splice(2) stops before an urgent byte as if there were no more.
#[tokio::test]
async fn urgent_bytes_amid_bulk_pass_through() {
    const BULK: usize = 4 << 20;
    let passing::Stage { mut client, mut server, .. } = passing::start(Setup::new()).await;
    let read = tokio::spawn(async move { receive(&mut server).await });
    for _ in 0..4 {
        client.write_all(&vec![b'a'; BULK]).await.unwrap();
        client.writable().await.unwrap();
        while SockRef::from(&client).send_out_of_band(b"!").is_err() {
            tokio::task::yield_now().await;
        }
        client.write_all(b"b").await.unwrap();
    }
    client.shutdown().await.unwrap();
    let got = within(read).await.unwrap();
    assert_eq!((got.len(), got.iter().filter(|byte| **byte == b'!').count()), (4 * (BULK + 2), 4));
}

async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut got = Vec::new();
    from.read_to_end(&mut got).await.unwrap();
    got
}

#[tokio::test]
async fn what_is_behind_descriptors_of_a_unix_client_arrives_at_once() {
    let Stage { mut client, mut server, .. } = Setup::new().start_unix().await;
    let descriptor = std::fs::File::open("/dev/null").unwrap();
    for ends in [false, false, true] {
        assert_eq!(client.try_write(&[b'a'; 100]).unwrap(), 100);
        let rights = [descriptor.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        assert!(beside.push(SendAncillaryMessage::ScmRights(&rights)));
        sendmsg(&client, &[std::io::IoSlice::new(b"!")], &mut beside, SendFlags::empty()).unwrap();
        assert_eq!(client.try_write(&[b'b'; 100]).unwrap(), 100);
        let wanted = [[b'a'; 100].as_slice(), b"!", &[b'b'; 100]].concat();
        if ends {
            client.shutdown().await.unwrap();
            assert_eq!(read_all(&mut server).await, wanted);
        } else {
            assert_eq!(read_exactly(&mut server, 201).await, wanted);
        }
    }
}
