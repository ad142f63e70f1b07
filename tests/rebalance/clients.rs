//! A client that counts: every answer tells whether a write was lost or a read was wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use testbed::Testbed;
use testbed::redis::{Client, Connection, RedisError, cmd};

use super::tools::LIMIT;

/// So many answers are enough to tell that they come.
const WELL: u64 = 200;

/// Threads that each count up keys of their own, spread over all slots, and read others that never change. They follow
/// MOVED and ASK; whatever else is answered, and any number that is not the next one, is written down.
pub(crate) struct Counters {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What the threads have seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answers: u64,
    pub(crate) redirects: u64,
    /// Errors and wrong answers.
    pub(crate) faults: Vec<String>,
}

struct Loop {
    home: SocketAddr,
    password: Option<String>,
    links: BTreeMap<SocketAddr, Connection>,
    /// Who answered for a key last.
    known: BTreeMap<String, SocketAddr>,
    tally: Tally,
    /// How often all threads were answered.
    answered: Arc<AtomicU64>,
}

impl Counters {
    /// `still` keys NAME:0, NAME:1 … of [`super::tools::write`] are read meanwhile. Begins when they are well under way.
    pub(crate) fn start(bed: &Testbed, threads: usize, name: &str, still: usize) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let home = SocketAddr::new(bed.pod(0).addr().into(), bed.pod(0).port());
        let threads = (0..threads).map(|number| {
            let (stop, name, password) = (stop.clone(), name.to_owned(), bed.password().map(str::to_owned));
            let (links, known, tally, answered) =
                (BTreeMap::new(), BTreeMap::new(), Tally::default(), answered.clone());
            let link = Loop { home, password, links, known, tally, answered };
            thread::spawn(move || link.run(number, &name, still, &stop))
        });
        let counters = Self { threads: threads.collect(), stop };
        let under_way = || Ok((answered.load(Ordering::Relaxed) > WELL).then_some(()));
        bed.wait_for("clients that are answered", LIMIT, under_way).unwrap();
        counters
    }

    pub(crate) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for tally in self.threads.into_iter().map(|thread| thread.join().unwrap()) {
            sum.answers += tally.answers;
            sum.redirects += tally.redirects;
            sum.faults.extend(tally.faults);
        }
        sum
    }
}

impl Tally {
    #[track_caller]
    pub(crate) fn assert_clean(&self, about: &str) {
        assert!(self.faults.is_empty(), "{about}: {} faults, first {:?}", self.faults.len(), &self.faults[..1]);
        assert!(self.answers > WELL, "{about}: {self:?}");
    }
}

impl Loop {
    fn run(mut self, number: usize, name: &str, still: usize, stop: &AtomicBool) -> Tally {
        const KEYS: usize = 500;
        let mut counts = [0_u64; KEYS];
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            let place = round % KEYS;
            let key = format!("c:{number}:{place}");
            match self.ask::<u64>("INCR", &key) {
                Ok(count) if count == counts[place] + 1 => {}
                Ok(count) => self.fault(format!("{key} is {count} after {}", counts[place])),
                Err(error) => self.fault(format!("INCR {key}: {error}")),
            }
            counts[place] += 1;
            let at = (round * 7 + number) % still;
            let key = format!("{name}:{at}");
            match self.ask::<Option<String>>("GET", &key) {
                Ok(Some(value)) if value.split(':').next() == Some(&at.to_string()) => {}
                Ok(value) => self.fault(format!("{key} is {:?}", value.map(|value| value.len()))),
                Err(error) => self.fault(format!("GET {key}: {error}")),
            }
            round += 1;
        }
        self.tally
    }

    fn fault(&mut self, what: String) {
        self.tally.faults.push(what);
    }

    fn ask<T: testbed::redis::FromRedisValue>(&mut self, command: &str, key: &str) -> Result<T, RedisError> {
        let mut at = self.known.get(key).copied().unwrap_or(self.home);
        let mut asking = false;
        let mut redirects = 0;
        loop {
            let link = self.link(at)?;
            if asking {
                cmd("ASKING").exec(link)?;
            }
            let error = match cmd(command).arg(key).query(link) {
                Ok(answer) => {
                    self.tally.answers += 1;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let to = error.redirect_node().and_then(|(to, _)| to.parse().ok());
            let (Some(to), true) = (to, redirects < 100) else {
                self.links.remove(&at);
                return Err(error);
            };
            redirects += 1;
            self.tally.redirects += 1;
            at = to;
            asking = error.code() == Some("ASK");
            if !asking {
                self.known.insert(key.to_owned(), at);
            }
            if redirects > 2 {
                // Two that send us to each other have not heard of each other yet.
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn link(&mut self, at: SocketAddr) -> Result<&mut Connection, RedisError> {
        if !self.links.contains_key(&at) {
            let mut link =
                Client::open(format!("redis://{at}"))?.get_connection_with_timeout(Duration::from_secs(5))?;
            link.set_read_timeout(Some(Duration::from_secs(10)))?;
            if let Some(password) = &self.password {
                cmd("AUTH").arg(password).exec(&mut link)?;
            }
            self.links.insert(at, link);
        }
        Ok(self.links.get_mut(&at).expect("it was just put there"))
    }
}
