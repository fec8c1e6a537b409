//! Relays to compare with: plain ones, which no TLS can undercut, and the shortest honest one with TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::arguments::Arguments;
use crate::certificates::ORIGIN;
use crate::tls;

/// Listens at `--listen`, opens one connection to `--to` for each that comes, and copies through buffers of
/// `--buffer` bytes.
pub async fn serve(arguments: &Arguments) -> Result<()> {
    let (listen, to): (SocketAddr, SocketAddr) = (arguments.get("listen")?, arguments.get("to")?);
    let buffer: usize = arguments.get("buffer")?;
    let connector = match arguments.get::<String>("mode")?.as_str() {
        "plain" => None,
        "tls" => Some(TlsConnector::from(Arc::new(tls::client(arguments, true)?))),
        mode => bail!("--mode cannot be {mode}"),
    };
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (client, _) = listener.accept().await?;
        tokio::task::spawn_local(relay(client, to, connector.clone(), buffer));
    }
}

async fn relay(
    mut client: TcpStream,
    to: SocketAddr,
    connector: Option<TlsConnector>,
    buffer: usize,
) -> io::Result<(u64, u64)> {
    let mut origin = TcpStream::connect(to).await?;
    origin.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let Some(connector) = connector else {
        return copy_bidirectional_with_sizes(&mut client, &mut origin, buffer, buffer).await;
    };
    let name = ORIGIN.try_into().map_err(io::Error::other)?;
    let mut origin = connector.connect(name, origin).await?;
    copy_bidirectional_with_sizes(&mut client, &mut origin, buffer, buffer).await
}
