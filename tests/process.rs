//! `valkeeper run` on real processes: signals, exit codes, and what is left behind, which is nothing.

#[path = "process/orphans.rs"]
mod orphans;
#[path = "process/running.rs"]
mod running;
#[path = "process/server.rs"]
mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testbed::{from_a_bad_parent, wait_for};

use running::{IN_TIME, Place, Running, runs};

const PLACES: [Place; 2] = [Place::Here, Place::Namespace];

/// A shell that runs until it is killed or `$over` is set; a signal wakes it up. Nothing of it stays.
const UNTIL_OVER: &str = "
    sleep 100 & sleeper=$!
    echo ready
    while [ -z \"$over\" ]; do wait $sleeper; done
    kill $sleeper; wait $sleeper
    exit $over";

#[test]
fn the_server_s_end_is_ours() -> Result<()> {
    for place in PLACES {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 1", 1),
            ("exit 3", 3),
            ("exit 255", 255),
            ("kill -KILL $$", 137),
            ("kill -TERM $$", 143),
            ("kill -SEGV $$", 139),
            ("kill -ABRT $$", 134),
            // A real-time signal.
            ("kill -40 $$", 168),
        ] {
            Running::script(place, &[], script)?.ends(code).with_context(|| format!("{place:?}: {script}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_program_that_cannot_run_is_named_with_a_remedy() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    for (program, code, remedy) in [
        ("/no/such/server", 127, "PATH"),
        ("no-such-server", 127, "PATH"),
        (script.to_str().context("path")?, 127, "interpreter"),
        ("/etc/passwd", 126, "may execute"),
        ("/etc", 126, "may execute"),
    ] {
        let mut command = Place::Here.run();
        command.args(["--", program]);
        let mut run = Running::start(command)?;
        run.ends(code)?;
        let logged = run.logged();
        ensure!(logged.contains(&format!("cannot start {program}")) && logged.contains(remedy), "{logged}");
    }
    Ok(())
}

#[test]
fn each_stop_signal_stops_the_server_with_sigterm() -> Result<()> {
    for place in PLACES {
        for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
            let mut run = Running::script(place, &[], &format!("trap 'over=7' TERM; {UNTIL_OVER}"))?;
            run.wait_printed("ready")?;
            send(&run, signal)?;
            run.ends(7).with_context(|| format!("{place:?}: {signal:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn other_signals_reach_the_server_and_stop_nothing() -> Result<()> {
    const TRAPS: &str = "
        trap 'echo HUP' HUP; trap 'echo USR1' USR1; trap 'echo USR2' USR2; trap 'echo WINCH' WINCH
        trap 'over=7' TERM";
    for place in PLACES {
        let mut run = Running::script(place, &[], &format!("{TRAPS}; {UNTIL_OVER}"))?;
        run.wait_printed("ready")?;
        let signals = [(Signal::HUP, "HUP"), (Signal::USR1, "USR1"), (Signal::USR2, "USR2"), (Signal::WINCH, "WINCH")];
        for (signal, name) in signals {
            send(&run, signal)?;
            run.wait_printed(name)?;
        }
        send(&run, Signal::TERM)?;
        run.ends(7)?;
        assert_eq!(run.printed(), "ready\nHUP\nUSR1\nUSR2\nWINCH\n");
    }
    Ok(())
}

#[test]
fn a_second_stop_signal_reaches_the_server_and_a_third_does_not() -> Result<()> {
    const TRAPS: &str = "trap 'count=x$count; echo TERM$count' TERM; trap 'over=9' HUP";
    let mut run = Running::script(Place::Here, &[], &format!("{TRAPS}; {UNTIL_OVER}"))?;
    run.wait_printed("ready")?;
    send(&run, Signal::TERM)?;
    run.wait_printed("TERMx")?;
    send(&run, Signal::INT)?;
    run.wait_printed("TERMxx")?;
    send(&run, Signal::TERM)?;
    wait_for("the third stop signal to be heard", IN_TIME, || {
        Ok((run.logged().matches("asked to stop").count() == 3).then_some(()))
    })?;
    // What is sent later is seen later.
    send(&run, Signal::HUP)?;
    run.ends(9)?;
    assert_eq!(run.printed(), "ready\nTERMx\nTERMxx\n");
    Ok(())
}

#[test]
fn a_signal_that_came_before_we_could_listen_is_heard() -> Result<()> {
    let mut command = Place::Here.run();
    command.args(["--", "sh", "-c", "echo started; exit 3"]);
    from_a_bad_parent(&mut command, &[Signal::TERM]);
    let mut run = Running::start(command)?;
    run.ends(0)?;
    ensure!(run.printed().is_empty() && run.logged().contains("asked to stop"), run.show());
    Ok(())
}

#[test]
fn a_stop_signal_is_heard_from_the_server_s_first_breath() -> Result<()> {
    for place in PLACES {
        for _ in 0..20 {
            let script = "kill -TERM $PPID; exec sleep 100";
            Running::script(place, &[], script)?.ends(143).with_context(|| format!("{place:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn the_server_starts_clean_whatever_our_parent_has_blocked() -> Result<()> {
    const REAL: u64 = (1 << 31) - 1;
    for hostile in [false, true] {
        let mut command = Place::Here.run();
        command.args(["--", "cat", "/proc/self/status"]);
        if hostile {
            from_a_bad_parent(&mut command, &[]);
        }
        let mut run = Running::start(command)?;
        run.ends(0)?;
        let status = run.printed();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|line| line.split_whitespace().last().unwrap_or_default().to_owned())
        };
        for mask in ["SigBlk", "SigIgn", "SigPnd", "ShdPnd"] {
            let signals = u64::from_str_radix(&field(mask).context("mask")?, 16)?;
            // Whether one of the C library's own real-time signals is ignored is its business.
            assert_eq!(signals & REAL, 0, "{mask}: {status}");
        }
        assert_eq!(field("NSpgid"), field("Pid"), "{status}");
        assert_ne!(field("Pid"), None, "{status}");
    }
    Ok(())
}

#[test]
fn other_commands_still_end_by_a_signal_whatever_our_parent_has_blocked() -> Result<()> {
    let mut command = std::process::Command::new(running::BINARY);
    let nobody = ["bootstrap", "--service", "127.127.255.254", "--cluster-id", "nobody", "--timeout", "50s"];
    command.args(nobody).env_clear();
    from_a_bad_parent(&mut command, &[Signal::TERM]);
    let mut run = Running::start(command)?;
    run.ends(75)?;
    ensure!(run.logged().contains("stopped by a signal"), run.show());
    Ok(())
}

#[test]
fn a_server_that_ignores_sigterm_is_killed_in_the_last_second_only() -> Result<()> {
    const GRACE: Duration = Duration::from_secs(5);
    let mut run = Running::script(Place::Here, &["--grace-period", "5s"], &format!("trap '' TERM; {UNTIL_OVER}"))?;
    run.wait_printed("ready")?;
    let asked = Instant::now();
    send(&run, Signal::TERM)?;
    // Whatever it had to save is not saved.
    run.ends(75)?;
    let took = asked.elapsed();
    // Never early; how late it is also depends on what else the machine does.
    ensure!(took >= GRACE - Duration::from_secs(1) && took < 3 * GRACE, "killed after {took:?}");
    Ok(())
}

#[test]
fn a_server_whose_supervisor_is_killed_is_asked_to_stop() -> Result<()> {
    let script = format!("echo $$; trap 'echo TERM; over=0' TERM; {UNTIL_OVER}");
    let mut run = Running::script(Place::Here, &[], &script)?;
    run.wait_printed("ready")?;
    let server = run.printed().lines().next().context("pid")?.parse()?;
    run.child.kill()?;
    run.child.wait()?;
    run.wait_printed("TERM")?;
    wait_for("the end of the server", IN_TIME, || Ok((!runs(server)).then_some(())))
}

fn send(run: &Running, signal: Signal) -> Result<()> {
    let program = Pid::from_raw(run.program()?.try_into()?).context("pid")?;
    Ok(kill_process(program, signal)?)
}
