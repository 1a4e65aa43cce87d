//! From nothing to an open WebSocket: connect, upgrade, and what came behind the response.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt, Splitable},
    net::{
        TcpStream,
        tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf},
    },
    time::timeout,
};
use protocol::upgrade::{ClientRequest, Form, HeadScan, check_response};
use rustix::{io::Errno, net};
use serde::{Deserialize, Serialize};

use super::Codec;
use crate::random::Random;

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
    /// What is read at once from each connection: most messages should fit.
    pub(crate) read_buffer_bytes: usize,
    /// Of each socket; `None` leaves it to the system, which takes some megabytes for who does not read.
    pub(crate) receive_buffer_bytes: Option<usize>,
}

impl Endpoint {
    /// The first three bytes of addresses for a crowd, whose ports nobody else has; `None` where the node is elsewhere: the system
    /// knows best.
    pub(crate) fn own_network(&self, random: &mut Random) -> Option<[u8; 3]> {
        let is_here = matches!(self.address.ip(), IpAddr::V4(address) if address.is_loopback());
        let [.., network, subnet] = (random.next() as u32).to_be_bytes();
        // Not in the network of the usual 127.0.0.1.
        is_here.then_some([127, network.max(1), subnet])
    }
}

/// An open WebSocket.
pub(crate) struct Connection {
    pub(crate) reader: TcpOwnedReadHalf,
    pub(crate) writer: TcpOwnedWriteHalf,
    pub(crate) codec: Codec,
}

/// Opens a WebSocket, from `source`; `None` leaves that to the system. One address has one port for each connection, some 28,000 of
/// them. `nonce` differs for every connection.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    source: Option<IpAddr>,
    form: Form,
    nonce: [u8; 16],
) -> io::Result<Connection> {
    timeout(DIAL_WAIT_MAX, open(endpoint, source, form, nonce))
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn open(
    endpoint: &Endpoint,
    source: Option<IpAddr>,
    form: Form,
    nonce: [u8; 16],
) -> io::Result<Connection> {
    let stream = match (source, endpoint.receive_buffer_bytes) {
        (None, None) => TcpStream::connect_addr(endpoint.address).await?,
        _ => connect_as_told(endpoint, source).await?,
    };
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
    let codec = Codec::new(&head[end..]);
    Ok(Connection { reader, writer, codec })
}

/// The runtime can neither bind nor set a buffer before it connects. So the system is told to connect, which ends when the socket is
/// writable.
async fn connect_as_told(endpoint: &Endpoint, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let target = endpoint.address;
    let flags = net::SocketFlags::NONBLOCK | net::SocketFlags::CLOEXEC;
    let family = if target.is_ipv4() { net::AddressFamily::INET } else { net::AddressFamily::INET6 };
    let socket = net::socket_with(family, net::SocketType::STREAM, flags, None)?;
    if let Some(bytes) = endpoint.receive_buffer_bytes {
        net::sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    if let Some(source) = source {
        net::bind(&socket, &SocketAddr::from((source, 0)))?;
    }
    match net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = std::net::TcpStream::from(socket);
    // Not before: a blocking connect would hold up everybody else. From here on the ring waits, which it does not do on
    // a descriptor that must not block.
    stream.set_nonblocking(false)?;
    let stream = TcpStream::from_std(stream)?;
    stream.writable(false).await?;
    // Why it could not connect, if it could not, is the result of the first write.
    Ok(stream)
}
