//! Processes that have lost their parent.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testbed::wait_for;

use crate::running::{IN_TIME, Place, Running, children};
use crate::{PLACES, UNTIL_OVER, send};

#[test]
fn a_thousand_orphans_are_reaped_and_none_is_left() -> Result<()> {
    const MAKE: &str = "i=0; while [ $i -lt 1000 ]; do (sleep 0.01 &); i=$((i+1)); done";
    for place in PLACES {
        let mut run = Running::script(place, &[], &format!("{MAKE}; trap 'over=42' TERM; {UNTIL_OVER}"))?;
        run.wait_printed("ready")?;
        let program = run.program()?;
        wait_for("nobody but the server to be left", IN_TIME, || {
            let left = children(program).len();
            ensure!(left == 1, "{left} are left");
            Ok(Some(()))
        })
        .with_context(|| run.show())?;
        let reaped = run.logged().matches("reaped an orphan").count();
        assert_eq!(reaped, 1000, "{place:?}");
        send(&run, Signal::TERM)?;
        run.ends(42)?;
    }
    Ok(())
}

#[test]
fn the_server_s_exit_status_is_not_lost_among_orphans() -> Result<()> {
    for place in PLACES {
        let mut reaped = 0;
        for code in 1..=100 {
            let storm = format!("i=0; while [ $i -lt 20 ]; do (: &); i=$((i+1)); done; exit {code}");
            let mut run = Running::script(place, &[], &storm)?;
            run.ends(code).with_context(|| format!("{place:?}"))?;
            reaped += run.logged().matches("reaped an orphan").count();
        }
        ensure!(reaped > 100, "{place:?}: that was no storm: {reaped} orphans");
    }
    Ok(())
}

#[test]
fn orphans_that_outlive_the_server_end_with_us() -> Result<()> {
    for place in PLACES {
        let family = "(sh -c 'sleep 100 & echo $!; echo $$; wait' &)";
        let mut run = Running::script(place, &[], &format!("{family}; trap 'over=4' TERM; {UNTIL_OVER}"))?;
        run.wait_printed("ready")?;
        wait_for("the orphans to run", IN_TIME, || Ok((run.printed().lines().count() == 3).then_some(())))?;
        send(&run, Signal::TERM)?;
        run.ends(4).with_context(|| format!("{place:?}"))?;
        // The pids in a namespace are those of others here.
        for orphan in run.printed().lines().filter(|line| place == Place::Here && *line != "ready") {
            assert!(!fs::exists(format!("/proc/{orphan}"))?, "{orphan} is left: {}", run.show());
        }
    }
    Ok(())
}

#[test]
fn an_orphan_that_ends_later_is_reaped_when_it_does() -> Result<()> {
    let mut run =
        Running::script(Place::Here, &[], &format!("(sleep 100 & echo $!); trap 'over=5' TERM; {UNTIL_OVER}"))?;
    run.wait_printed("ready")?;
    let orphan: i32 = run.printed().lines().next().context("pid")?.parse()?;
    kill_process(Pid::from_raw(orphan).context("pid")?, Signal::KILL)?;
    wait_for("the orphan to be gone", IN_TIME, || Ok((!fs::exists(format!("/proc/{orphan}"))?).then_some(())))?;
    send(&run, Signal::TERM)?;
    run.ends(5)
}
