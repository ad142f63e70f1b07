//! Whether a server's event loop answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::topology::observation::Silence;

/// The first bytes of what a server can say to PING, or to a connection it does not want.
const REPLIES: [u8; 2] = [b'+', b'-'];

/// Asks once, over a connection of its own, and takes any reply for an answer.
///
/// Without the library, as a server may speak before it is spoken to and hang up: at `maxclients`, or in protected mode.
/// It is alive then, and the library would tell only that the connection is gone.
pub(super) async fn ping(address: SocketAddr, patience: Duration) -> Result<(), Silence> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        // A server that has hung up has said why.
        let _ = stream.write_all(b"PING\r\n").await;
        stream.read_u8().await
    };
    match timeout(patience, ask).await {
        Ok(Ok(first)) if REPLIES.contains(&first) => Ok(()),
        Ok(Ok(_)) => Err(Silence::Unusable("what answers does not speak Valkey's protocol".to_owned())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Silence::Refused),
        Ok(Err(error)) => Err(Silence::Unreachable(error.to_string())),
        Err(_) => Err(Silence::Unreachable("no answer in time".to_owned())),
    }
}
