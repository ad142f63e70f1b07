//! Loopback networks, one to a test.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u8 = 64;
const COUNT: u32 = 64 * 256;
const LEASE_HOST: u8 = 255;
const LEASE_PORT: u16 = 6378;

/// 127.A.B.0/24 with A from 64 to 127, ours as long as the value lives.
#[derive(Debug)]
pub struct Subnet {
    second: u8,
    third: u8,
    /// The lease itself: two cannot listen on one address, and the kernel ends it whatever kills us.
    _lease: TcpListener,
}

impl Subnet {
    /// A network nobody else on this machine leases at the moment. Panics when all are taken.
    pub fn lease() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // The factor is odd, so that neighbouring pids start far apart and all networks are reached.
        let start = process::id().wrapping_mul(7919);
        (0..COUNT)
            .find_map(|_| {
                let index = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
                let [.., high, third] = index.to_be_bytes();
                let second = FIRST + high;
                let lease = Ipv4Addr::new(127, second, third, LEASE_HOST);
                let lease = TcpListener::bind((lease, LEASE_PORT)).ok()?;
                Some(Self { second, third, _lease: lease })
            })
            .expect("all loopback networks from 127.64 to 127.127 are leased")
    }

    /// Address `n` of the network; the one at 255 is the lease's.
    pub fn host(&self, n: u8) -> Ipv4Addr {
        assert_ne!(n, LEASE_HOST, "the lease holds that address");
        Ipv4Addr::new(127, self.second, self.third, n)
    }
}
