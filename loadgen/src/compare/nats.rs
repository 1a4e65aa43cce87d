//! NATS, as its text protocol: a publisher and a subscriber, with a JetStream between them or without.
//!
//! Source: the client protocol of nats.io (INFO, CONNECT, PUB, SUB, MSG, PING), and the JSON questions of JetStream under `$JS.API`.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::TcpStream,
};
use serde_json::{Value, json};

use super::Line;

/// Of one message that is waited for: what servers say of themselves takes some kilobytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 16 * 1024;
/// A client that is told what it did wrong, and not that all is well.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1}\r\nPING\r\n";

/// One connection.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
}

/// What comes in, but for what keeps a connection alive.
enum Said {
    Message(Vec<u8>),
    Pong,
}

impl Client {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_addr(address).await.with_context(|| format!("{address}: no NATS"))?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, input: Vec::new(), taken: 0 };
        client.say(CONNECT.into()).await?;
        // Behind the pong everything before it was taken.
        while !matches!(client.hear().await?, Said::Pong) {}
        Ok(client)
    }

    async fn say(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.stream.write_all(bytes).await.0.context("NATS is gone")?;
        Ok(())
    }

    /// The payload of the next message.
    async fn message(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Said::Message(payload) = self.hear().await? {
                return Ok(payload);
            }
        }
    }

    /// A ping, and its answer. On the way the server's own pings are answered.
    async fn beat(&mut self) -> anyhow::Result<()> {
        self.say(b"PING\r\n".to_vec()).await?;
        match self.hear().await? {
            Said::Pong => Ok(()),
            Said::Message(_) => bail!("NATS sent a message that nobody waits for"),
        }
    }

    async fn hear(&mut self) -> anyhow::Result<Said> {
        loop {
            let line = self.line().await?;
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("MSG") => {
                    let bytes = words.next_back().and_then(|bytes| bytes.parse().ok());
                    let bytes: usize = bytes.context("NATS sent a message without a length")?;
                    return Ok(Said::Message(self.payload(bytes).await?));
                }
                Some("PING") => self.say(b"PONG\r\n".to_vec()).await?,
                Some("PONG") => return Ok(Said::Pong),
                Some("INFO" | "+OK") => {}
                _ => bail!("NATS says: {line}"),
            }
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            let rest = &self.input[self.taken..];
            if let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.taken += end + 2;
                return Ok(line);
            }
            self.read().await?;
        }
    }

    async fn payload(&mut self, bytes: usize) -> anyhow::Result<Vec<u8>> {
        ensure!(bytes <= MESSAGE_BYTES_MAX, "NATS sent a message of {bytes} bytes");
        while self.input.len() - self.taken < bytes + 2 {
            self.read().await?;
        }
        let payload = self.input[self.taken..self.taken + bytes].to_vec();
        self.taken += bytes + 2;
        Ok(payload)
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        self.input.drain(..self.taken);
        self.taken = 0;
        ensure!(self.input.len() <= MESSAGE_BYTES_MAX, "NATS sends a line without an end");
        let (result, bytes) = self.stream.read(Vec::with_capacity(READ_BYTES)).await;
        ensure!(result.context("NATS is gone")? > 0, "NATS has closed the connection");
        self.input.extend_from_slice(&bytes);
        Ok(())
    }

    /// Asks JetStream something; an error is what it says of it.
    async fn ask(&mut self, subject: &str, question: &Value) -> anyhow::Result<Value> {
        let (question, inbox) = (question.to_string(), "_INBOX.loadgen.asks");
        let ask = format!(
            "SUB {inbox} 9\r\nUNSUB 9 1\r\nPUB {subject} {inbox} {}\r\n{question}\r\n",
            question.len()
        );
        self.say(ask.into_bytes()).await?;
        let answer: Value = serde_json::from_slice(&self.message().await?).context("JetStream's answer")?;
        ensure!(answer["error"].is_null(), "JetStream: {}", answer["error"]);
        Ok(answer)
    }
}

/// Whether what is published is stored before it is delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    /// In a stream of files, and acknowledged. Synced where the server is told to: `jetstream { sync_interval: always }`.
    Stream,
    /// Nowhere.
    Nowhere,
}

/// Where the messages of one comparison go: one stream for all pairs.
pub(super) struct Exchange {
    address: SocketAddr,
    tag: String,
    kept: Kept,
}

impl Exchange {
    /// With a stream, which has to be there before anything is published.
    pub(super) async fn new(address: SocketAddr, tag: &str, kept: Kept) -> anyhow::Result<Self> {
        let exchange = Self { address, tag: tag.to_owned(), kept };
        if kept == Kept::Stream {
            let stream = json!({
                "name": tag, "subjects": [format!("{tag}.>")], "storage": "file", "retention": "limits",
                "num_replicas": 1, "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "discard": "old",
            });
            Client::connect(address).await?.ask(&format!("$JS.API.STREAM.CREATE.{tag}"), &stream).await?;
        }
        Ok(exchange)
    }

    /// A pair of connections with a subject of its own.
    pub(super) async fn pair(&self, number: u32) -> anyhow::Result<NatsPair> {
        let Self { address, tag, kept } = self;
        let subject = format!("{tag}.{number}");
        let (mut sender, mut receiver) = (Client::connect(*address).await?, Client::connect(*address).await?);
        let delivered = match kept {
            Kept::Nowhere => subject.clone(),
            Kept::Stream => format!("_INBOX.{tag}.to.{number}"),
        };
        receiver.say(format!("SUB {delivered} 1\r\nPING\r\n").into_bytes()).await?;
        while !matches!(receiver.hear().await?, Said::Pong) {}
        let acks = format!("_INBOX.{tag}.acks.{number}");
        if *kept == Kept::Stream {
            let consumer = json!({ "stream_name": tag, "config": {
                "deliver_subject": delivered, "filter_subject": subject, "deliver_policy": "new",
                "ack_policy": "none", "replay_policy": "instant",
            }});
            sender.ask(&format!("$JS.API.CONSUMER.CREATE.{tag}"), &consumer).await?;
            sender.say(format!("SUB {acks} 1\r\n").into_bytes()).await?;
        }
        Ok(NatsPair { sender, receiver, subject, acks, kept: *kept })
    }

    /// Takes the stream away.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        if self.kept == Kept::Stream {
            let subject = format!("$JS.API.STREAM.DELETE.{}", self.tag);
            Client::connect(self.address).await?.ask(&subject, &json!({})).await?;
        }
        Ok(())
    }
}

/// One who publishes and one who is subscribed.
pub(super) struct NatsPair {
    sender: Client,
    receiver: Client,
    subject: String,
    /// Where acknowledgements come.
    acks: String,
    kept: Kept,
}

impl Line for NatsPair {
    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        let reply = if self.kept == Kept::Stream { self.acks.as_str() } else { "" };
        let publish = format!("PUB {} {reply} {}\r\n{text}\r\n", self.subject, text.len());
        self.sender.say(publish.into_bytes()).await
    }

    async fn delivered(&mut self) -> anyhow::Result<String> {
        String::from_utf8(self.receiver.message().await?).context("not what was published")
    }

    async fn acknowledged(&mut self) -> anyhow::Result<()> {
        if self.kept == Kept::Nowhere {
            return Ok(());
        }
        let answer: Value = serde_json::from_slice(&self.sender.message().await?)?;
        ensure!(answer["seq"].is_u64(), "JetStream did not store it: {answer}");
        Ok(())
    }

    async fn beat(&mut self) -> anyhow::Result<()> {
        self.sender.beat().await?;
        self.receiver.beat().await
    }
}
