//! One connection that speaks just enough of the protocol.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::program::Login;

#[derive(Debug)]
pub(super) struct Link {
    stream: BufReader<TcpStream>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nobody listens, or the connection ended before anything was asked.
    Closed,
    /// The connection ended with the question unanswered.
    Broken,
    Timeout,
}

impl Link {
    /// Connects, authenticates, and tells which nodes that server knows. A connection and every answer may take so
    /// long.
    pub(super) fn open(
        addr: SocketAddr,
        login: &Login,
        patience: Duration,
    ) -> Result<(Self, Vec<SocketAddr>), Silence> {
        let stream = TcpStream::connect_timeout(&addr, patience).map_err(|_| Silence::Closed)?;
        let ready = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(patience)))
            .and_then(|()| stream.set_write_timeout(Some(patience)));
        ready.map_err(|_| Silence::Closed)?;
        let mut link = Self { stream: BufReader::new(stream) };
        // No write is under way yet: a server that ends here is merely one that is gone.
        let gone = |silence| if silence == Silence::Broken { Silence::Closed } else { silence };
        if let Some(password) = &login.password {
            let words: Vec<&str> = ["AUTH"].into_iter().chain(login.username.as_deref()).chain([&**password]).collect();
            link.ask(&words).map_err(gone)?;
        }
        let known = link.ask(&["CLUSTER", "NODES"]).map_err(gone)?;
        let known = known.lines().filter_map(|line| line.split(' ').nth(1)?.split('@').next()?.parse().ok());
        Ok((link, known.collect()))
    }

    /// Asks and reads the answer: the line of a simple one or an error, the text of a bulk string.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<String, Silence> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.get_mut().write_all(request.as_bytes()).map_err(|error| silence(&error))?;
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => line.truncate(line.trim_end().len()),
            Ok(_) => return Err(Silence::Broken),
            Err(error) => return Err(silence(&error)),
        }
        let Some(length) = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok()) else {
            return Ok(line);
        };
        let mut text = vec![0; length + 2];
        self.stream.read_exact(&mut text).map_err(|error| silence(&error))?;
        Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    }

    /// Whether the server has closed the connection while nothing was asked: a client library notices
    /// this, and asks elsewhere.
    pub(super) fn is_closed(&self) -> bool {
        let mut byte = [0; 1];
        let seen = recv(self.stream.get_ref(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(seen, Err(Errno::AGAIN))
    }
}

fn silence(error: &std::io::Error) -> Silence {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Silence::Timeout,
        _ => Silence::Broken,
    }
}
