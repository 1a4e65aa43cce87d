//! From nothing to an open WebSocket: connect, upgrade, and what came behind the response.

use std::{io, net::SocketAddr, time::Duration};

use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt, Splitable},
    net::{
        TcpStream,
        tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf},
    },
    time::timeout,
};
use protocol::upgrade::{ClientRequest, Form, HeadScan, check_response};
use serde::{Deserialize, Serialize};

use super::Codec;

/// As long as a node gives a client.
const DIAL_WAIT_MAX: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 4 * 1024;

/// Where the node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// The `Host` header.
    pub(crate) host: String,
    pub(crate) path: String,
}

/// An open WebSocket.
pub(crate) struct Connection {
    pub(crate) reader: TcpOwnedReadHalf,
    pub(crate) writer: TcpOwnedWriteHalf,
    pub(crate) codec: Codec,
}

/// Opens a WebSocket. `nonce` differs for every connection.
pub(crate) async fn dial(endpoint: &Endpoint, form: Form, nonce: [u8; 16]) -> io::Result<Connection> {
    timeout(DIAL_WAIT_MAX, open(endpoint, form, nonce)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn open(endpoint: &Endpoint, form: Form, nonce: [u8; 16]) -> io::Result<Connection> {
    let stream = TcpStream::connect_addr(endpoint.address).await?;
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let request = ClientRequest { host: &endpoint.host, path: &endpoint.path, form, bearer: None, nonce };
    writer.write_all(request.request()).await.0?;
    let (mut head, mut scan) = (Vec::new(), HeadScan::default());
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let end = loop {
        let result;
        (result, buffer) = reader.read(buffer).await;
        if result? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buffer);
        buffer.clear();
        if let Some(end) = scan.find_end(&head).map_err(io::Error::other)? {
            break end;
        }
    };
    check_response(&head[..end], &request.key(), form).map_err(io::Error::other)?;
    Ok(Connection { reader, writer, codec: Codec::new(&head[end..]) })
}
