//! Whether a server's event loop answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::unreachable;
use crate::tls::Tls;
use crate::topology::observation::Silence;

/// The first bytes of what a server can say to PING, or to a connection it does not want.
const REPLIES: [u8; 2] = [b'+', b'-'];

/// Asks once, over a connection of its own, and takes any reply for an answer.
///
/// Without the library, as a server may speak before it is spoken to and hang up: at `maxclients`, or in protected mode.
/// It is alive then, and the library would tell only that the connection is gone.
pub(super) async fn ping(address: SocketAddr, tls: Option<&Tls>, patience: Duration) -> Result<(), Silence> {
    match timeout(patience, ask(address, tls)).await {
        Ok(answer) => answer,
        Err(_) => Err(Silence::Unreachable("no answer in time".to_owned())),
    }
}

async fn ask(address: SocketAddr, tls: Option<&Tls>) -> Result<(), Silence> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
    if let Some(tls) = tls {
        // Who finds fault with certificates is alive, and so is who hangs up: it has no room for another client. A server
        // that hangs does neither.
        drop(tls.greet(stream, None).await);
        return Ok(());
    }
    // A server that has hung up has said why.
    let _ = stream.write_all(b"PING\r\n").await;
    match stream.read_u8().await {
        Ok(first) if REPLIES.contains(&first) => Ok(()),
        Ok(_) => Err(Silence::Unusable("what answers does not speak Valkey's protocol".to_owned())),
        Err(error) => Err(unreachable(&error)),
    }
}
