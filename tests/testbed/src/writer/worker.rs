//! The loop: one shard, one key after the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::link::{Link, Silence};
use super::tally::Tally;
use crate::locked::locked;
use crate::program::Login;

/// So that a shard without a primary does not cost a core.
const BACKOFF: Duration = Duration::from_millis(1);

pub(super) struct Worker {
    tag: String,
    /// Who is believed to serve the shard.
    target: SocketAddr,
    known: Vec<SocketAddr>,
    links: BTreeMap<SocketAddr, Link>,
    login: Login,
    patience: Duration,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
}

/// What became of one attempt.
enum Attempt {
    Acknowledged,
    Moved(SocketAddr),
    Ask(SocketAddr),
    /// The connection was closed before; nothing was asked.
    Lapsed,
    Unreachable,
    Failed(String),
}

impl Worker {
    pub(super) fn new(
        tag: &str,
        target: SocketAddr,
        known: Vec<SocketAddr>,
        login: Login,
        patience: Duration,
        tally: Arc<Mutex<Tally>>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { tag: tag.to_owned(), target, known, links: BTreeMap::new(), login, patience, tally, stop }
    }

    pub(super) fn run(mut self) {
        let (mut number, mut asking, mut in_a_row) = (0, None, 0);
        while !self.stop.load(Ordering::Relaxed) {
            let attempt = self.write(number, asking.take());
            let redirected = matches!(attempt, Attempt::Moved(_) | Attempt::Ask(_));
            in_a_row = if redirected { in_a_row + 1 } else { 0 };
            // One redirect leads somewhere; two nodes that name each other need time.
            let wait = match attempt {
                Attempt::Acknowledged => {
                    locked(&self.tally).acknowledge(number);
                    number += 1;
                    false
                }
                Attempt::Moved(to) => {
                    locked(&self.tally).counts.redirects += 1;
                    self.learn(&[to]);
                    self.target = to;
                    in_a_row > 1
                }
                Attempt::Ask(to) => {
                    locked(&self.tally).counts.redirects += 1;
                    asking = Some(to);
                    in_a_row > 1
                }
                Attempt::Lapsed => {
                    locked(&self.tally).counts.reconnects += 1;
                    false
                }
                Attempt::Unreachable => {
                    locked(&self.tally).counts.reconnects += 1;
                    self.turn();
                    true
                }
                Attempt::Failed(kind) => {
                    locked(&self.tally).error(&kind, number);
                    // Never twice: the first may have been done.
                    number += 1;
                    self.turn();
                    true
                }
            };
            if wait {
                thread::sleep(BACKOFF);
            }
        }
    }

    fn write(&mut self, number: u64, asking: Option<SocketAddr>) -> Attempt {
        let addr = asking.unwrap_or(self.target);
        if self.links.get(&addr).is_some_and(Link::is_closed) {
            self.links.remove(&addr);
            return Attempt::Lapsed;
        }
        let mut link = match self.links.remove(&addr) {
            Some(link) => link,
            None => match Link::open(addr, &self.login, self.patience) {
                Ok((link, known)) => {
                    self.learn(&known);
                    link
                }
                Err(Silence::Timeout) => return Attempt::Failed("timeout".to_owned()),
                Err(_) => return Attempt::Unreachable,
            },
        };
        let (key, value) = (format!("w:{{{}}}:{number}", self.tag), number.to_string());
        let allowed = if asking.is_some() { link.ask(&["ASKING"]).map(drop) } else { Ok(()) };
        match allowed.and_then(|()| link.ask(&["SET", &key, &value])) {
            Ok(answer) => {
                self.links.insert(addr, link);
                read(&answer, addr)
            }
            Err(Silence::Timeout) => Attempt::Failed("timeout".to_owned()),
            Err(_) => Attempt::Failed("broken".to_owned()),
        }
    }

    fn learn(&mut self, nodes: &[SocketAddr]) {
        // A node that does not know its own address yet says port 0 or no host.
        let new = nodes.iter().filter(|node| node.port() != 0 && !node.ip().is_unspecified());
        for node in new {
            if !self.known.contains(node) {
                self.known.push(*node);
            }
        }
    }

    /// Asks the next node that is known: it serves the shard, or knows who does.
    fn turn(&mut self) {
        let at = self.known.iter().position(|node| *node == self.target).map_or(0, |at| at + 1);
        self.target = self.known.get(at).or(self.known.first()).copied().unwrap_or(self.target);
    }
}

fn read(answer: &str, from: SocketAddr) -> Attempt {
    if answer == "+OK" {
        return Attempt::Acknowledged;
    }
    let mut words = answer.trim_start_matches('-').split(' ');
    let (kind, to) = (words.next().unwrap_or_default(), words.nth(1).and_then(|to| endpoint(to, from)));
    match (kind, to) {
        ("MOVED", Some(to)) => Attempt::Moved(to),
        ("ASK", Some(to)) => Attempt::Ask(to),
        _ => Attempt::Failed(kind.to_owned()),
    }
}

/// An endpoint without a host is on the one that answered.
fn endpoint(text: &str, from: SocketAddr) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let ip = if host.is_empty() { from.ip() } else { host.parse().ok()? };
    Some(SocketAddr::new(ip, port.parse().ok()?))
}
