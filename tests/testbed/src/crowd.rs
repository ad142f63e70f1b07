//! Clients of an HTTP port that are slow, broken or ill-meaning.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often those that drip send a byte, and one of all is replaced.
const BEAT: Duration = Duration::from_millis(10);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Clients that are connected all the time, until the value is dropped. None ever reads.
#[derive(Debug)]
pub struct Crowd {
    over: Arc<AtomicBool>,
    connected: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// How a client misbehaves.
#[derive(Clone, Copy)]
struct Manner {
    /// What it says at once.
    says: fn() -> Vec<u8>,
    /// What it then says byte by byte, over and over.
    drips: &'static [u8],
}

const MANNERS: [Manner; 8] = [
    // Says nothing at all.
    Manner { says: Vec::new, drips: b"" },
    // Stops in the middle of its request.
    Manner { says: || b"GET /readyz HTTP/1.1\r\nhost: ".to_vec(), drips: b"" },
    // Slowloris: always one more header.
    Manner { says: || b"GET /readyz HTTP/1.1\r\n".to_vec(), drips: b"x: y\r\n" },
    // Promises a body, and lets it drip.
    Manner { says: || b"POST /readyz HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n".to_vec(), drips: b"z" },
    // A body without an end.
    Manner {
        says: || b"GET /metrics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        drips: b"1\r\nz\r\n",
    },
    // No HTTP at all.
    Manner { says: || (0..=255).cycle().take(10_000).collect(), drips: b"\0\xff" },
    // A head that is too large.
    Manner { says: || [&b"GET /readyz HTTP/1.1\r\nx: "[..], &[b'y'; 200_000]].concat(), drips: b"y" },
    // Asks a thousand times at once and reads nothing.
    Manner { says: || b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000), drips: b"" },
];

struct Client {
    manner: Manner,
    stream: Option<TcpStream>,
    unsent: Vec<u8>,
    dripped: usize,
}

impl Crowd {
    /// So many clients of every manner, all connected once this returns.
    pub fn around(address: SocketAddr, count: usize) -> Self {
        let manners = MANNERS.iter().cycle().take(count);
        let mut clients: Vec<Client> = manners.map(|manner| Client::new(*manner)).collect();
        let (over, connected) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_over, count) = (Arc::clone(&over), Arc::clone(&connected));
        clients.iter_mut().for_each(|client| client.connect(address));
        let thread = thread::spawn(move || {
            for turn in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let next = turn % clients.len().max(1);
                for (place, client) in clients.iter_mut().enumerate() {
                    // Who was thrown out comes again, and one has had enough.
                    match client.stream.is_none() || place == next {
                        true => client.connect(address),
                        false => client.go_on(),
                    }
                }
                count.store(clients.iter().filter(|client| client.stream.is_some()).count(), Ordering::Relaxed);
                thread::sleep(BEAT);
            }
        });
        Self { over, connected, thread: Some(thread) }
    }

    /// How many are connected, as far as they know.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Client {
    fn new(manner: Manner) -> Self {
        Self { manner, stream: None, unsent: Vec::new(), dripped: 0 }
    }

    fn connect(&mut self, address: SocketAddr) {
        self.stream = TcpStream::connect_timeout(&address, CONNECT_DEADLINE).ok();
        if let Some(stream) = &self.stream {
            let _ = stream.set_nonblocking(true);
        }
        (self.unsent, self.dripped) = ((self.manner.says)(), 0);
        self.go_on();
    }

    fn go_on(&mut self) {
        if self.unsent.is_empty() && !self.manner.drips.is_empty() {
            self.unsent.push(self.manner.drips[self.dripped % self.manner.drips.len()]);
            self.dripped += 1;
        }
        let Some(stream) = &mut self.stream else { return };
        match stream.write(&self.unsent) {
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // It was thrown out.
            Err(_) => self.stream = None,
        }
    }
}
