//! What clients wait for while slots move.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use testbed::redis::{Connection, ErrorKind, RedisError, RedisResult, ServerErrorKind, cmd, pipe};
use testbed::{Access, Testbed};

/// Between two commands: a client that never pauses takes one core from the servers.
const PAUSE: Duration = Duration::from_micros(500);

/// How many keys a client reads and writes, in so many slots.
const KEYS: u64 = 2_000;

/// The longest waits, descending.
#[derive(Default)]
pub(crate) struct Waits(Vec<Duration>);

impl Waits {
    fn note(&mut self, took: Duration) {
        const KEPT: usize = 100;
        if self.0.len() < KEPT || self.0.last().is_some_and(|least| took > *least) {
            let place = self.0.partition_point(|other| *other > took);
            self.0.insert(place, took);
            self.0.truncate(KEPT);
        }
    }

    /// The longest but for one on account of each of these, which may have taken so long beside what is allowed.
    pub(crate) fn longest_beside(&self, excused: &[Duration], allowed: Duration) -> Duration {
        let mut excused = excused.to_vec();
        excused.sort_unstable();
        for wait in &self.0 {
            match excused.iter().position(|took| *wait > allowed && *wait <= *took + allowed) {
                Some(place) => drop(excused.remove(place)),
                None => return *wait,
            }
        }
        Duration::ZERO
    }

    /// The first of them.
    pub(crate) fn first(&self, count: usize) -> &[Duration] {
        &self.0[..count.min(self.0.len())]
    }
}

/// Asks one server whether it is there.
pub(crate) fn ping(mut client: Connection, stop: &AtomicBool) -> Result<Waits> {
    let mut waits = Waits::default();
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        cmd("PING").exec(&mut client)?;
        waits.note(asked.elapsed());
        thread::sleep(PAUSE);
    }
    Ok(waits)
}

/// Reads and writes keys in all slots, and goes where it is sent; a wait is from a command to its answer, wherever it took
/// that. Nothing but redirects may come between, and what is read must be what was written last.
pub(crate) struct Client {
    access: Access,
    connections: BTreeMap<SocketAddr, Connection>,
    anybody: SocketAddr,
    owners: BTreeMap<u64, SocketAddr>,
}

impl Client {
    pub(crate) fn of(bed: &Testbed) -> Self {
        let pod = bed.pod(0);
        Self {
            access: bed.access().clone(),
            connections: BTreeMap::new(),
            anybody: SocketAddr::new(pod.addr().into(), pod.port()),
            owners: BTreeMap::new(),
        }
    }

    pub(crate) fn go_on(mut self, stop: &AtomicBool) -> Result<Waits> {
        let mut waits = Waits::default();
        // It learns first who owns what.
        for number in 0..KEYS {
            self.once(number, 0, true)?;
        }
        let mut turn = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            turn += 1;
            let (round, number) = (turn / (2 * KEYS), turn / 2 % KEYS);
            let asked = Instant::now();
            self.once(number, round, turn.is_multiple_of(2))?;
            waits.note(asked.elapsed());
            thread::sleep(PAUSE);
        }
        Ok(waits)
    }

    /// Writes a key, or reads it right after.
    fn once(&mut self, number: u64, round: u64, writes: bool) -> Result<()> {
        let key = format!("client:{number}");
        let mut command = cmd(if writes { "SET" } else { "GET" });
        command.arg(&key);
        if writes {
            command.arg(round);
        }
        let mut at = self.owners.get(&number).copied().unwrap_or(self.anybody);
        let mut asking = false;
        for _ in 0..16 {
            let connection = self.connection(at)?;
            let answer: RedisResult<String> = match asking {
                true => {
                    let mut commands = pipe();
                    commands.cmd("ASKING").ignore().add_command(command.clone());
                    commands.query::<(String,)>(connection).map(|(answer,)| answer)
                }
                false => command.query(connection),
            };
            match answer {
                Ok(answer) if writes => ensure!(answer == "OK", "SET {key}: {answer}"),
                Ok(answer) => ensure!(answer == round.to_string(), "GET {key}: {answer} and not {round}"),
                Err(error) => {
                    let Some((to, is_for_good)) = redirect(&error) else {
                        return Err(error).with_context(|| format!("{key} at {at}"));
                    };
                    (at, asking) = (to, !is_for_good);
                    if is_for_good {
                        self.owners.insert(number, at);
                    }
                    continue;
                }
            }
            return Ok(());
        }
        bail!("{key} is sent round and round")
    }

    fn connection(&mut self, to: SocketAddr) -> Result<&mut Connection> {
        if !self.connections.contains_key(&to) {
            self.connections.insert(to, self.access.connect(to)?);
        }
        self.connections.get_mut(&to).context("it was just made")
    }
}

/// Where to go, and whether from now on.
fn redirect(error: &RedisError) -> Option<(SocketAddr, bool)> {
    let to = error.redirect_node()?.0.parse().ok()?;
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => Some((to, true)),
        ErrorKind::Server(ServerErrorKind::Ask) => Some((to, false)),
        _ => None,
    }
}
