//! The scripted edge over a real connection on the loopback address.

use std::time::Duration;

use exposer_common::proto::message::AgentMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::script::{Edge, token};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// One connection of an agent, as the edge sees it.
pub struct Conversation {
    pub stream: TcpStream,
    pub edge: Edge,
}

impl Conversation {
    pub async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
        Self {
            stream,
            edge: Edge::new(token()),
        }
    }

    /// Accepts, and proves both sides.
    pub async fn open(listener: &TcpListener) -> Self {
        let mut conversation = Self::accept(listener).await;
        conversation
            .read_until("Hello", |message| matches!(message, AgentMessage::Hello(_)))
            .await;
        let challenge = conversation.edge.challenge();
        conversation.write(&challenge).await;
        conversation
            .read_until("Proof", |message| matches!(message, AgentMessage::Proof(_)))
            .await;
        let welcome = conversation.edge.welcome();
        conversation.write(&welcome).await;
        conversation
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads until the last message is one that `fits`.
    pub async fn read_until(&mut self, what: &str, fits: impl Fn(&AgentMessage) -> bool) {
        let mut buffer = [0; 4_096];
        soon(what, async {
            while !self.edge.read.last().is_some_and(&fits) {
                let length = self.stream.read(&mut buffer).await.unwrap();
                assert_ne!(length, 0, "closed while waiting for {what}: {:?}", self.edge.read);
                self.edge.take(&buffer[..length]);
            }
        })
        .await;
    }

    pub async fn ack(&mut self) {
        let ack = self.edge.ack();
        self.write(&ack).await;
    }
}

pub const fn is_snapshot(message: &AgentMessage) -> bool {
    matches!(message, AgentMessage::Snapshot(snapshot) if snapshot.last)
}

pub const fn is_delta(message: &AgentMessage) -> bool {
    matches!(message, AgentMessage::Delta(_))
}

pub async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("probe server");
    let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    answer
}
