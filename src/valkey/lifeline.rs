//! An idle connection to a server, which the kernel breaks the moment the server's process ends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long to wait for a machine's answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// Tells at once when a server ends, at no cost while it lives. It asks nothing, so it needs not be let in.
#[derive(Debug)]
pub struct Lifeline {
    stream: TcpStream,
}

impl Lifeline {
    /// Holds on to the server at an address; two seconds at most.
    pub async fn hold(address: SocketAddr) -> io::Result<Self> {
        let stream = timeout(super::connection::PATIENCE, TcpStream::connect(address)).await??;
        Ok(Self { stream })
    }

    /// Is over when the connection is: the process has ended, or the server has thrown us out.
    pub async fn broken(&self) {
        let mut unread = [0; 64];
        loop {
            let read = match self.stream.readable().await {
                Ok(()) => self.stream.try_read(&mut unread),
                Err(error) => Err(error),
            };
            match read {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// [`Lifeline::is_dead`] of a process whose connection has just been broken: its sockets are closed one after another,
    /// and its ports need not be the first.
    pub async fn has_died(client: SocketAddr, bus_port: u16) -> bool {
        for after in [0, 5, 25, 100] {
            sleep(Duration::from_millis(after)).await;
            if Self::is_dead(client, bus_port).await {
                return true;
            }
        }
        false
    }

    /// Whether the process behind these ports is dead for certain: its machine is there and answers that nobody listens
    /// on either. Silence is no proof, nor is one port alone.
    pub async fn is_dead(client: SocketAddr, bus_port: u16) -> bool {
        let (client, bus) = join(refuses(client), refuses(SocketAddr::new(client.ip(), bus_port))).await;
        client && bus
    }
}

async fn refuses(address: SocketAddr) -> bool {
    let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
    matches!(connected, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}
