//! The origin: TLS and plain, does what each stream's opening asks for, and keeps a record of all handshakes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use rustls::ServerConnection;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::arguments::Arguments;
use crate::tls;
use crate::wire::{MESSAGE, Task, discard};

/// What the proxies showed of themselves. Read as one JSON object from the port `--record`.
#[derive(Default)]
struct Record {
    /// Finished handshakes by their parameters.
    handshakes: BTreeMap<String, u64>,
    /// Broken handshakes by their error.
    broken: BTreeMap<String, u64>,
    /// Openings that arrived: streams on which a client's data came through.
    served: u64,
}

/// Tickets of one handshake: more do not fit into the buffer in which rustls joins messages.
const TICKETS_AT_ONCE: usize = 32;

type Shared = Rc<RefCell<Record>>;

pub async fn serve(arguments: &Arguments) -> Result<()> {
    let record = Shared::default();
    let mut usual = tls::server(arguments)?;
    usual.send_tls13_tickets = arguments.get_or("each", usual.send_tls13_tickets)?;
    // The first `generous` handshakes give many tickets each, which fills a client's store. One key opens all tickets.
    let mut generous: u64 = arguments.get_or("generous", 0)?;
    let mut many = usual.clone();
    many.send_tls13_tickets = TICKETS_AT_ONCE;
    let (usual, many) = (TlsAcceptor::from(Arc::new(usual)), TlsAcceptor::from(Arc::new(many)));
    let bind = async |port| Result::<_>::Ok(TcpListener::bind(arguments.get::<SocketAddr>(port)?).await?);
    let (tls, plain, reading) = (bind("tls").await?, bind("plain").await?, bind("record").await?);
    loop {
        tokio::select! {
            arrived = tls.accept() => drop(tokio::task::spawn_local({
                let acceptor = if generous > 0 { many.clone() } else { usual.clone() };
                generous = generous.saturating_sub(1);
                let (stream, record) = (arrived?.0, Rc::clone(&record));
                async move { secure(stream, &acceptor, &record).await }
            })),
            arrived = plain.accept() => drop(tokio::task::spawn_local({
                let (mut stream, record) = (arrived?.0, Rc::clone(&record));
                async move {
                    stream.set_nodelay(true)?;
                    if task(&mut stream, &record).await? == Task::Sink {
                        while discard(&stream).await? > 0 {}
                    }
                    io::Result::Ok(())
                }
            })),
            arrived = reading.accept() => {
                let text = record.borrow().render();
                let _ = arrived?.0.write_all(text.as_bytes()).await; // the reader may have gone
            }
        }
    }
}

impl Record {
    fn render(&self) -> String {
        json!({ "handshakes": self.handshakes, "broken": self.broken, "served": self.served }).to_string()
    }
}

async fn secure(stream: TcpStream, acceptor: &TlsAcceptor, record: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            *record.borrow_mut().broken.entry(error.to_string()).or_default() += 1;
            return Ok(());
        }
    };
    *record.borrow_mut().handshakes.entry(parameters(stream.get_ref().1)).or_default() += 1;
    if task(&mut stream, record).await? == Task::Sink {
        // Whether the bytes are right is checked by echo, once for each measurement. Here the origin would
        // only take time for decrypting that the load needs.
        let (below, _) = stream.into_inner();
        while discard(&below).await? > 0 {}
    }
    Ok(())
}

fn parameters(session: &ServerConnection) -> String {
    let client = if session.peer_certificates().is_some() { "with" } else { "WITHOUT" };
    format!(
        "{} {} {} {}, SNI {}, {client} client certificate",
        session.handshake_kind().map_or_else(String::new, |kind| format!("{kind:?}")),
        session.protocol_version().map_or_else(String::new, |version| format!("{version:?}")),
        session.negotiated_cipher_suite().map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        session.negotiated_key_exchange_group().map_or_else(String::new, |group| format!("{:?}", group.name())),
        session.server_name().unwrap_or("MISSING"),
    )
}

/// Does what the opening asks for, but for a sink, which is left to the caller.
async fn task<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, record: &Shared) -> io::Result<Task> {
    let mut opening = [0; MESSAGE];
    stream.read_exact(&mut opening).await?;
    let task = Task::of(&opening).ok_or(io::ErrorKind::InvalidData)?;
    record.borrow_mut().served += 1;
    match task {
        Task::Sink => {}
        Task::Source => {
            let chunk = vec![b'd'; 64 << 10]; // four records: what rustls seals in one go
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        Task::Echo => echo(stream).await?,
        Task::Answer => {
            stream.write_all(&[b'A'; MESSAGE]).await?;
            stream.shutdown().await?;
            while stream.read(&mut opening).await? > 0 {}
        }
    }
    Ok(task)
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    // Thousands of these are idle in one scenario: small until more comes at once.
    let mut buffer = vec![0; MESSAGE];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..length]).await?;
        stream.flush().await?;
        if length == buffer.len() && length < 64 << 10 {
            buffer.resize(length * 4, 0);
        }
    }
}
