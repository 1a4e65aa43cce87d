//! What speaks WebSocket: this node's chat, and echo services of any server.

use std::net::{SocketAddr, TcpStream as StdStream};

use anyhow::{Context, bail, ensure};
use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt, Splitable},
    net::TcpStream,
};
use protocol::{
    command::{Command, Connect, MessageKind, Request, Send, Target},
    event::ServerFrame,
    ids::{DeviceId, MessageId, RequestId, UserId},
    session::Input,
    upgrade::Form,
};

use super::Line;
use crate::{
    client::{Codec, Connection, Endpoint, Incoming, Signer, dial},
    clock::unix_now,
    random::Random,
};

const READ_BYTES: usize = 4 * 1024;

/// An open WebSocket, read as messages are waited for.
struct Socket {
    connection: Connection,
    buffer: Vec<u8>,
}

impl Socket {
    fn new(connection: Connection) -> Self {
        Self { connection, buffer: Vec::with_capacity(READ_BYTES) }
    }

    async fn say(&mut self, form: Form, payload: Vec<u8>) -> anyhow::Result<()> {
        let Connection { writer, codec, .. } = &mut self.connection;
        codec.send(form, payload);
        writer.write_all(codec.take_output()).await.0.context("the connection is gone")?;
        Ok(())
    }

    /// The next message, as `read` reads it.
    async fn hear<T>(&mut self, read: impl FnOnce(Incoming<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        loop {
            match self.connection.codec.poll_incoming().map_err(anyhow::Error::msg)? {
                Some(Incoming::Closed(code)) => bail!("the connection was closed with {}", code.0),
                Some(incoming) => return read(incoming),
                None => {}
            }
            self.buffer.clear();
            let buffer = std::mem::take(&mut self.buffer);
            let (result, filled) = self.connection.reader.read(buffer).await;
            self.buffer = filled;
            ensure!(result? > 0, "the connection is gone");
            self.connection.codec.handle_bytes(&self.buffer);
        }
    }
}

/// One connection to a server that gives back what it is sent.
pub(super) struct Echo(Socket);

impl Echo {
    /// The upgrade is tungstenite's own, which asks for no subprotocol.
    pub(super) fn open(address: SocketAddr, url: &str) -> anyhow::Result<Self> {
        let stream = StdStream::connect(address).with_context(|| format!("{address}: nobody listens"))?;
        stream.set_nodelay(true)?;
        let (socket, _) =
            tungstenite::client(url, stream).map_err(|error| anyhow::anyhow!("{url}: {error}"))?;
        let stream = TcpStream::from_std(socket.into_inner())?;
        let (reader, writer) = stream.into_split();
        Ok(Self(Socket::new(Connection { reader, writer, codec: Codec::new(&[]) })))
    }
}

impl Line for Echo {
    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        self.0.say(Form::Json, text.as_bytes().to_vec()).await
    }

    async fn delivered(&mut self) -> anyhow::Result<String> {
        let read = |incoming: Incoming<'_>| match incoming {
            Incoming::Text(text) => Ok(text.to_owned()),
            other => bail!("a text was sent, and {other:?} came back"),
        };
        self.0.hear(read).await
    }

    async fn acknowledged(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// It says something with every message.
    async fn beat(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// One session of this node.
struct Session {
    socket: Socket,
    frames: Vec<ServerFrame>,
}

impl Session {
    async fn open(endpoint: &Endpoint, signer: &Signer, user: &UserId, nonce: u128) -> anyhow::Result<Self> {
        let connection = dial(endpoint, None, Form::Binary, nonce.to_be_bytes()).await;
        let connection = connection.with_context(|| format!("{} could not connect", user.as_str()))?;
        let mut session = Self { socket: Socket::new(connection), frames: Vec::new() };
        let device = DeviceId::new("compare").expect("a device");
        let token = Some(signer.sign(user)?);
        session.ask(Command::Connect(Connect { token, device, cursor: None, positions: None })).await?;
        while !matches!(session.next().await?, ServerFrame::Welcome(_)) {}
        Ok(session)
    }

    async fn ask(&mut self, command: Command) -> anyhow::Result<()> {
        let mut payload = Vec::new();
        Request { id: Some(RequestId(1)), command }.encode(Form::Binary, &mut payload);
        self.socket.say(Form::Binary, payload).await
    }

    /// The next frame. A refusal is an error.
    async fn next(&mut self) -> anyhow::Result<ServerFrame> {
        while self.frames.is_empty() {
            let frames = &mut self.frames;
            let read = |incoming: Incoming<'_>| {
                let Incoming::Binary(bytes) = incoming else { bail!("a text was not asked for") };
                ServerFrame::from_input(&Input::Binary(bytes), frames)
                    .map_err(|fault| anyhow::anyhow!("{fault}"))
            };
            self.socket.hear(read).await?;
        }
        match self.frames.remove(0) {
            ServerFrame::Error(error) => bail!(
                "the node refuses: {} (rates are no part of a comparison: set user_messages_per_second and \
                 session_commands_per_second to 0)",
                error.message
            ),
            frame => Ok(frame),
        }
    }
}

/// Two users of this node, one of whom writes to the other.
pub(super) struct Chat {
    sender: Session,
    receiver: Session,
    to: UserId,
    random: Random,
}

impl Chat {
    pub(super) async fn open(
        endpoint: &Endpoint,
        signer: &Signer,
        tag: &str,
        number: u32,
    ) -> anyhow::Result<Self> {
        let mut random = Random::from_system()?;
        let mut nonce = || u128::from(random.next()) << 64 | u128::from(random.next());
        let name = |side: &str| UserId::new(&format!("{tag}{side}{number}")).expect("a name");
        let (from, to) = (name("a"), name("b"));
        let sender = Session::open(endpoint, signer, &from, nonce()).await?;
        let receiver = Session::open(endpoint, signer, &to, nonce()).await?;
        Ok(Self { sender, receiver, to, random })
    }
}

impl Line for Chat {
    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        let message_id = MessageId::v7(unix_now(), self.random.id_bytes());
        let send = Send {
            target: Target::User(self.to.clone()),
            kind: MessageKind::Text,
            text: text.to_owned(),
            media: None,
            reply_to: None,
            mentions: Vec::new(),
            message_id: Some(message_id),
        };
        self.sender.ask(Command::Send(send)).await
    }

    async fn delivered(&mut self) -> anyhow::Result<String> {
        loop {
            if let ServerFrame::Message(message) = self.receiver.next().await? {
                return Ok(message.text);
            }
        }
    }

    async fn acknowledged(&mut self) -> anyhow::Result<()> {
        while !matches!(self.sender.next().await?, ServerFrame::Ok(_)) {}
        Ok(())
    }

    /// The sender says enough.
    async fn beat(&mut self) -> anyhow::Result<()> {
        self.receiver.ask(Command::Ping { cursor: None }).await?;
        loop {
            match self.receiver.next().await? {
                ServerFrame::Pong { .. } => return Ok(()),
                ServerFrame::Message(_) => bail!("a message came that nobody waits for"),
                _ => {}
            }
        }
    }
}
