//! Two networks: what is cut off is silent, and not refused; and processes live where the thread is that starts them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;
use testbed::{Networks, Testbed, Valkey};

const BRIEFLY: Duration = Duration::from_millis(500);

#[test]
fn what_is_cut_off_is_silent_in_both_directions_until_the_cut_is_mended() {
    let (here, there) = (Ipv4Addr::new(127, 1, 2, 3), Ipv4Addr::new(127, 1, 2, 4));
    Networks::with(|networks| {
        networks.share(&[here], &[there])?;
        let port = 7000;
        let _here = TcpListener::bind((here, port))?;
        let _there = networks.there(|| Ok(TcpListener::bind((there, port))?))?;
        let reach = |address: Ipv4Addr, port| TcpStream::connect_timeout(&(address, port).into(), BRIEFLY);
        let is_open = || -> Result<[bool; 2]> {
            Ok([reach(there, port).is_ok(), networks.there(|| Ok(reach(here, port).is_ok()))?])
        };
        assert_eq!(is_open()?, [true, true]);
        assert_eq!(reach(there, port + 1).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        networks.cut()?;
        assert_eq!(is_open()?, [false, false]);
        assert_eq!(reach(there, port + 1).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        networks.mend()?;
        assert_eq!(is_open()?, [true, true]);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_server_lives_in_the_network_of_the_thread_that_starts_it() {
    Networks::with(|networks| {
        let bed = Testbed::builder(&Valkey::newest()).pods(2).start_servers(false).build()?;
        networks.share(&[bed.pod(0).addr()], &[bed.pod(1).addr()])?;
        bed.pod(0).start()?;
        networks.there(|| bed.pod(1).start())?;
        assert_eq!((bed.keys(0)?, bed.keys(1)?), (0, 0));
        networks.cut()?;
        assert!(bed.keys(0).is_ok() && bed.keys(1).is_err());
        assert!(networks.there(|| Ok(bed.keys(1).is_ok() && bed.keys(0).is_err()))?);
        Ok(())
    })
    .unwrap();
}
