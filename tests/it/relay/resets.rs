//! A reset is noticed whichever direction moves: no limit of time is set here, so nothing else ends these streams.

use egret::net::abort_on_close;
use egret::pipeline::relay::Ended;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::passing;
use super::stage::{Setup, Stage, VERSIONS, fill, read_all, within};

/// More than the sockets and the relay hold.
const MUCH: usize = 64 << 20;

fn reset(tcp: &TcpStream) {
    abort_on_close(tcp);
}

#[tokio::test]
async fn of_a_client_is_noticed_while_the_server_does_not_read() {
    for version in VERSIONS {
        let setup = Setup { version, small_sockets: true, ..Setup::new() };
        let Stage { mut client, server, relay, counted, .. } = setup.start().await;
        fill(&mut client, MUCH).await;
        reset(&client);
        drop(client);
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::DownstreamReset);
        drop(server);
    }
}

#[tokio::test]
async fn of_a_server_is_noticed_while_the_client_does_not_read() {
    for version in VERSIONS {
        let setup = Setup { version, small_sockets: true, ..Setup::new() };
        let Stage { client, mut server, relay, counted, .. } = setup.start().await;
        fill(&mut server, MUCH).await;
        reset(server.get_ref().0);
        drop(server);
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::UpstreamReset);
        drop(client);
    }
}

#[tokio::test]
async fn of_either_side_of_a_pass_through_is_noticed_while_the_other_does_not_read() {
    for client_resets in [true, false] {
        let setup = Setup { small_sockets: true, ..Setup::new() };
        let passing::Stage { client, server, relay, counted, .. } = passing::start(setup).await;
        let (mut one, other) = if client_resets { (client, server) } else { (server, client) };
        fill(&mut one, MUCH).await;
        reset(&one);
        drop(one);
        let wanted = if client_resets { Ended::DownstreamReset } else { Ended::UpstreamReset };
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, wanted);
        drop(other);
    }
}

#[tokio::test]
async fn of_a_client_that_had_ended_is_noticed_while_the_server_is_silent() {
    for version in VERSIONS {
        let Stage { mut client, mut server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut server).await, b"question");
        reset(&client);
        drop(client);
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::DownstreamReset);
        // The client's direction was over, so the server learns it by writing.
        within(async { while server.write_all(b"answer").await.is_ok() && server.flush().await.is_ok() {} }).await;
    }
}

#[tokio::test]
async fn of_a_server_that_had_ended_is_noticed_while_the_client_is_silent() {
    for version in VERSIONS {
        let Stage { mut client, mut server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
        server.write_all(b"all I have").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, b"all I have");
        reset(server.get_ref().0);
        drop(server);
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::UpstreamReset);
        // Its direction was over, so the client learns it by writing.
        within(async {
            while client.write_all(b"more").await.is_ok() {
                tokio::task::yield_now().await
            }
        })
        .await;
    }
}
