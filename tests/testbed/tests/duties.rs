//! What supervision makes of duties that fail, panic and hang: the server comes first, and its end is told truly.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use testbed::{die_with_parent, wait_for};

const IN_TIME: Duration = Duration::from_secs(30);

/// A server that ends with 5 at SIGTERM and with 0 when a drain tells it to.
const SERVER: &str = "trap 'over=5' TERM; trap 'over=0' USR1
    echo $$ >pid
    sleep 100 & sleeper=$!
    echo ready
    while [ -z \"$over\" ]; do wait $sleeper; done
    kill $sleeper; wait $sleeper
    exit $over";

struct Run {
    child: Child,
    dir: TempDir,
}

impl Run {
    fn start(duties: &[&str], server: &str) -> Result<Self> {
        let dir = TempDir::new()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_scripted_duties"));
        command
            .args(duties)
            .args(["--", "sh", "-c", server, "sh"])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("stdout"))?)
            .stderr(File::create(dir.path().join("stderr"))?);
        die_with_parent(&mut command);
        Ok(Self { child: command.spawn()?, dir })
    }

    /// Starts the server that can be stopped, and waits for it.
    fn ready(duties: &[&str]) -> Result<Self> {
        let run = Self::start(duties, SERVER)?;
        run.wait_printed("ready")?;
        Ok(run)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(Path::join(self.dir.path(), name)).unwrap_or_default()
    }

    fn show(&self) -> String {
        format!("it printed:\n{}and logged:\n{}", self.text("stdout"), self.text("stderr"))
    }

    fn wait_printed(&self, line: &str) -> Result<()> {
        let is_printed = || Ok(self.text("stdout").lines().any(|printed| printed == line).then_some(()));
        wait_for(line, IN_TIME, is_printed).with_context(|| self.show())
    }

    fn stop(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    fn kill_server(&self) -> Result<()> {
        let pid = Pid::from_raw(self.text("pid").trim().parse()?).context("pid")?;
        Ok(kill_process_group(pid, Signal::KILL)?)
    }

    fn ends(&mut self, code: i32) -> Result<()> {
        let ended = wait_for("the end", IN_TIME, || Ok(self.child.try_wait()?)).with_context(|| self.show())?;
        ensure!(ended.code() == Some(code), "{ended} instead of {code}: {}", self.show());
        Ok(())
    }

    fn says(&self, texts: &[&str]) -> Result<()> {
        let said = self.show();
        for text in texts {
            ensure!(said.contains(text), "no {text:?}: {said}");
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_starts_only_when_its_guard_lets_it() -> Result<()> {
    for (guard, code, said) in [("refuse", 76, "it would be unsafe"), ("panic", 70, "guard panics")] {
        let mut run = Run::start(&[&format!("guard={guard}")], "echo started")?;
        run.ends(code)?;
        run.says(&[said])?;
        ensure!(!run.show().contains("started"), run.show());
    }
    Ok(())
}

#[test]
fn a_stop_signal_ends_a_guard_that_hangs() -> Result<()> {
    let mut run = Run::start(&["guard=hang"], "echo started")?;
    run.wait_printed("Guarding")?;
    run.stop()?;
    run.ends(0)
}

#[test]
fn what_the_guard_gives_is_read_on_standard_input_and_said_nowhere() -> Result<()> {
    let mut run = Run::start(&["guard=input"], "echo \"arguments $*\"; cat >read; exit 6")?;
    run.ends(6)?;
    run.says(&["arguments -\n"])?;
    assert_eq!(run.text("read"), "requirepass hunter2\n");
    ensure!(!run.show().contains("hunter2"), run.show());

    let mut none = Run::start(&[], "echo \"arguments $*\"; cat >read; exit 6")?;
    none.ends(6)?;
    none.says(&["arguments \n"])?;
    assert_eq!(none.text("read"), "");
    Ok(())
}

#[test]
fn a_server_that_reads_nothing_holds_nothing_up() -> Result<()> {
    let mut run = Run::ready(&["guard=big-input"])?;
    run.stop()?;
    run.ends(5)
}

#[test]
fn a_drain_says_whether_everything_is_saved() -> Result<()> {
    for (drain, code) in [("clean", 0), ("unfinished", 75), ("ok", 5), ("error", 5), ("panic", 5)] {
        let mut run = Run::ready(&[&format!("drain={drain}")])?;
        run.stop()?;
        run.ends(code).with_context(|| drain.to_owned())?;
        run.says(&["Draining"])?;
    }
    Ok(())
}

#[test]
fn a_second_stop_signal_cuts_the_drain() -> Result<()> {
    for (drain, waits, code) in [("wait", "drain waits", 75), ("hang", "Draining", 5)] {
        let mut run = Run::ready(&[&format!("drain={drain}")])?;
        run.stop()?;
        run.wait_printed(waits)?;
        run.stop()?;
        run.ends(code)?;
    }
    Ok(())
}

#[test]
fn a_drain_that_is_not_done_in_the_last_second_is_unfinished() -> Result<()> {
    let mut run = Run::ready(&["drain=hang", "grace=1500"])?;
    run.stop()?;
    run.ends(75)?;
    run.says(&["is killed"])
}

#[test]
fn the_heir_is_asked_before_the_code_of_a_dead_server_is_told() -> Result<()> {
    for (handover, said) in [
        ("ok", "handover is done"),
        ("error", "handover fails"),
        ("panic", "handover panics"),
        ("hang", "no heir has taken over"),
    ] {
        let mut run = Run::ready(&[&format!("handover={handover}"), "handover-timeout=200"])?;
        run.kill_server()?;
        run.ends(137)?;
        run.says(&[said])?;
    }
    let mut stopped = Run::ready(&["handover=hang", "handover-timeout=1000"])?;
    stopped.kill_server()?;
    stopped.wait_printed("HandingOver")?;
    stopped.stop()?;
    stopped.ends(137)
}

#[test]
fn what_goes_on_beside_the_server_cannot_end_it() -> Result<()> {
    for company in ["error", "panic"] {
        let mut run = Run::ready(&[&format!("company={company}"), "drain=clean"])?;
        run.stop()?;
        run.ends(0)?;
        let said = match company {
            "error" => "company fails",
            _ => "company panics",
        };
        run.says(&[said])?;
    }
    Ok(())
}

#[test]
fn a_bug_of_the_loop_leaves_the_server_its_signals_and_its_exit_code() -> Result<()> {
    let mut started = Run::ready(&["bug=sh starts"])?;
    started.stop()?;
    started.ends(5)?;
    started.says(&["this is a bug", "the server goes on"])?;

    // The stop signal that was heard last is not lost.
    let mut stopping = Run::ready(&["bug=asked to stop"])?;
    stopping.stop()?;
    stopping.ends(5)?;

    let mut dead = Run::ready(&["bug=the server has ended"])?;
    dead.kill_server()?;
    dead.ends(137)
}
