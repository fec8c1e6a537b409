//! Ends of every kind reach the other side as what they are.

use std::io::ErrorKind;

use egret::config::values::Eof;
use egret::net::abort_on_close;
use egret::pipeline::relay::{Ended, relay};
use rustls::AlertDescription;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{Setup, Stage, VERSIONS, counters, read_all, read_error, read_exactly, send_all, within};

#[tokio::test]
async fn half_close_from_client_keeps_the_answer_flowing() {
    for version in VERSIONS {
        let Stage { mut client, mut server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        // An end without close_notify would be an error here.
        assert_eq!(read_all(&mut server).await, b"question");
        for _ in 0..3 {
            server.write_all(b"answer").await.unwrap();
            assert_eq!(read_exactly(&mut client, 6).await, b"answer");
        }
        server.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, b"");
        let outcome = Stage::<()>::outcome(relay, &counted).await;
        assert_eq!((outcome.ended, outcome.sent, outcome.received), (Ended::Finished, 8, 18));
    }
}

#[tokio::test]
async fn half_close_from_server_keeps_the_upload_flowing() {
    for version in VERSIONS {
        let Stage { mut client, mut server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
        server.write_all(b"all I have").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, b"all I have");
        for _ in 0..3 {
            client.write_all(b"more").await.unwrap();
            assert_eq!(read_exactly(&mut server, 4).await, b"more");
        }
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut server).await, b"");
        let outcome = Stage::<()>::outcome(relay, &counted).await;
        assert_eq!((outcome.ended, outcome.sent, outcome.received), (Ended::Finished, 12, 10));
    }
}

#[tokio::test]
async fn server_that_closes_both_ways_is_a_clean_end() {
    let Stage { mut client, mut server, relay, counted, .. } = Setup::new().start().await;
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, b"bye");
    drop(client);
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Finished);
}

#[tokio::test]
async fn truncation_reaches_the_client_as_a_reset_after_the_data() {
    for version in VERSIONS {
        let Stage { mut client, mut server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
        server.write_all(b"half of it").await.unwrap();
        assert_eq!(read_exactly(&mut client, 10).await, b"half of it");
        server.into_inner().0.shutdown().await.unwrap();
        assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
        let outcome = Stage::<()>::outcome(relay, &counted).await;
        assert_eq!((outcome.ended, outcome.received), (Ended::Truncated, 10));
    }
}

#[tokio::test]
async fn end_inside_a_record_is_a_truncation_even_after_whole_ones() {
    let Stage { client, mut server, relay, counted, .. } = Setup::new().start().await;
    server.write_all(b"whole").await.unwrap();
    let (mut tcp, _session) = server.into_inner();
    tcp.write_all(&[23, 3, 3, 1, 0, 1, 2, 3]).await.unwrap();
    drop(tcp);
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!((outcome.ended, outcome.received), (Ended::Truncated, 5));
    drop(client);
}

#[tokio::test]
async fn lenient_eof_is_a_clean_end() {
    let mut setup = Setup::new();
    setup.limits.eof = Eof::Lenient;
    let Stage { mut client, mut server, relay, counted, .. } = setup.start().await;
    server.write_all(b"all of it").await.unwrap();
    drop(server.into_inner());
    assert_eq!(read_all(&mut client).await, b"all of it");
    client.shutdown().await.unwrap();
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Finished);
}

#[tokio::test]
async fn reset_of_the_client_resets_the_server() {
    let Stage { mut client, mut server, relay, counted, .. } = Setup::new().start().await;
    client.write_all(b"one").await.unwrap();
    assert_eq!(read_exactly(&mut server, 3).await, b"one");
    abort_on_close(&client);
    drop(client);
    assert_eq!(read_error(&mut server).await, ErrorKind::ConnectionReset);
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::DownstreamReset);
}

#[tokio::test]
async fn reset_of_the_server_resets_the_client() {
    let Stage { mut client, mut server, relay, counted, .. } = Setup::new().start().await;
    server.write_all(b"one").await.unwrap();
    assert_eq!(read_exactly(&mut client, 3).await, b"one");
    abort_on_close(server.get_ref().0);
    drop(server);
    assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::UpstreamReset);
}

#[tokio::test]
async fn client_that_closes_during_the_answer_resets_the_server() {
    let Stage { client, mut server, relay, counted, .. } = Setup::new().start().await;
    drop(client);
    assert_eq!(read_all(&mut server).await, b"");
    let refused = within(async {
        while server.write_all(&[0; 4096]).await.is_ok() {
            server.flush().await.ok();
            tokio::task::yield_now().await;
        }
    });
    refused.await;
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::DownstreamReset);
}

#[tokio::test]
async fn last_answer_of_a_server_that_refuses_the_upload_arrives() {
    let Stage { client, mut server, relay, counted, .. } = Setup::new().start().await;
    let (mut answer, mut upload) = client.into_split();
    let uploading = tokio::spawn(async move { while upload.write_all(&[0; 65536]).await.is_ok() {} });
    read_exactly(&mut server, 65536).await;
    server.write_all(b"413").await.unwrap();
    server.shutdown().await.unwrap();
    // With bytes unread this is a reset.
    drop(server);
    assert_eq!(read_exactly(&mut answer, 3).await, b"413");
    within(uploading).await.unwrap();
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::UpstreamReset);
}

#[tokio::test]
async fn alert_mid_stream_names_itself_and_resets_the_client() {
    let Stage { mut client, mut server, relay, counted, .. } = Setup::new().start().await;
    server.write_all(b"well so far").await.unwrap();
    assert_eq!(read_exactly(&mut client, 11).await, b"well so far");
    let (mut tcp, mut session) = server.into_inner();
    // A record that does not decrypt makes rustls's server send the alert.
    session.read_tls(&mut &[23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]).unwrap();
    session.process_new_packets().unwrap_err();
    send_all(&mut tcp, &mut session).await;
    assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
    let ended = Stage::<()>::outcome(relay, &counted).await.ended;
    assert_eq!((ended.reason(), ended.alert()), ("upstream_alert", Some(AlertDescription::BadRecordMac)));
}

#[tokio::test]
async fn alert_explains_an_upload_that_failed() {
    let Stage { client, server, relay, counted, .. } = Setup::new().start().await;
    let (_answer, mut upload) = client.into_split();
    let uploading = tokio::spawn(async move { while upload.write_all(&[0; 65536]).await.is_ok() {} });
    let (mut tcp, mut session) = server.into_inner();
    // Wait for some of the upload, so that closing with it unread is a reset right behind the alert.
    within(tcp.readable()).await.unwrap();
    session.read_tls(&mut &[23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]).unwrap();
    session.process_new_packets().unwrap_err();
    send_all(&mut tcp, &mut session).await;
    drop(tcp);
    within(uploading).await.unwrap();
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended.reason(), "upstream_alert");
}

#[tokio::test]
async fn bad_record_is_answered_with_an_alert() {
    let Stage { mut client, server, relay, counted, .. } = Setup::new().start().await;
    let (mut tcp, mut session) = server.into_inner();
    let mut record = vec![23, 3, 3, 0, 32];
    record.extend([7; 32]);
    tcp.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    within(tcp.read_to_end(&mut answer)).await.unwrap();
    session.read_tls(&mut &answer[..]).unwrap();
    let met = session.process_new_packets().unwrap_err();
    assert_eq!(met, rustls::Error::AlertReceived(AlertDescription::BadRecordMac));
    assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
    let ended = Stage::<()>::outcome(relay, &counted).await.ended;
    assert_eq!((ended.reason(), ended.tls_error()), ("upstream_tls_error", Some(&rustls::Error::DecryptError)));
}

#[tokio::test]
async fn dropped_relay_resets_both_sides() {
    let Stage { mut client, mut server, relay, .. } = Setup::new().start().await;
    client.write_all(b"one").await.unwrap();
    assert_eq!(read_exactly(&mut server, 3).await, b"one");
    relay.abort();
    assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
    assert_eq!(read_error(&mut server).await, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn no_task_and_no_descriptor_is_left() {
    let setup = Setup::new();
    let (client, downstream) = setup.sockets().await;
    let (upstream, server) = setup.tls().await;
    let sockets = [socket_name(&downstream), socket_name(&upstream.tcp)];
    assert!(sockets.iter().all(is_open));
    let tasks = tokio::runtime::Handle::current().metrics();
    let (counted, limits) = ([Default::default(), Default::default()], setup.limits.clone());
    let counters = counters(&counted);
    let stream = egret::net::Stream::Tcp(downstream);
    {
        let mut running =
            Box::pin(relay(stream, b"x"[..].into(), upstream, &limits, &counters, std::future::pending()));
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), &mut running).await;
        assert!(waited.is_err(), "it ended with both peers there");
        assert_eq!(tasks.num_alive_tasks(), 0);
    }
    assert!(!sockets.iter().any(is_open));
    drop((client, server));
}

/// What `/proc/self/fd` calls a socket; unique while it is open.
fn socket_name(socket: &impl std::os::fd::AsRawFd) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap()
}

fn is_open(socket: &std::path::PathBuf) -> bool {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    // Other tests open and close meanwhile: a link that is gone is not ours.
    descriptors.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|name| name == *socket))
}
