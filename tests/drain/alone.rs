//! Servers that nobody can take over from: what they have must be on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testbed::redis::cmd;
use testbed::{Ended, Testbed, Valkey};

use crate::tools::{LIMIT, alone, ask, builder, command, drain, drained, each, info, write};

const STANDALONE: [&str; 2] = ["--mode", "standalone"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    STANDALONE.into_iter().chain(more.iter().copied()).collect()
}

fn dbsize(bed: &Testbed) -> usize {
    ask(bed, 0, &["DBSIZE"]).unwrap()
}

/// Sets keys until it is told to stop; says how many were acknowledged, and every error. Whoever gets no answer tries
/// again over another connection.
fn write_on(bed: &Testbed, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut written, mut errors) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut connection) = bed.connection(0) else { continue };
        connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        while !stop.load(Ordering::Relaxed) {
            match cmd("SET").arg(format!("on{written}")).arg(1).query::<()>(&mut connection) {
                Ok(()) => written += 1,
                Err(error) => {
                    errors.push(error.to_string());
                    break;
                }
            }
        }
    }
    (written, errors)
}

#[test]
fn a_lone_primary_holds_writes_back_and_saves_so_that_nothing_acknowledged_is_lost() {
    each(Valkey::all(), |valkey| {
        let bed = alone(&valkey, &[]);
        assert_eq!(write(&bed, "key", 2_000), 2_000);
        let stop = AtomicBool::new(false);
        let (written, _) = thread::scope(|scope| {
            let writer = scope.spawn(|| write_on(&bed, &stop));
            let report = drained(&bed, 0, &STANDALONE);
            assert!(report["save"]["outcome"] == "saved" && report["save"]["writes_paused"] == true, "{report}");
            assert_eq!(ask::<String>(&bed, 0, &["GET", "key1"]).unwrap(), "value 1");
            assert_eq!(
                ask::<(String, String)>(&bed, 0, &["CONFIG", "GET", "stop-writes-on-bgsave-error"]).unwrap().1,
                "yes"
            );
            stop.store(true, Ordering::Relaxed);
            assert!(bed.pod(0).stop().unwrap().success());
            writer.join().unwrap()
        });
        bed.pod(0).start().unwrap();
        assert_eq!(dbsize(&bed), 2_000 + written, "{}", valkey.version);
    });
}

#[test]
fn an_append_only_file_is_enough_unless_an_rdb_is_wished_for() {
    for valkey in [Valkey::all().remove(0), Valkey::newest()] {
        let bed = alone(&valkey, &[("appendonly", "yes")]);
        write(&bed, "key", 2_000);
        assert_eq!(drained(&bed, 0, &STANDALONE)["save"]["outcome"], "append-only file");
        assert_eq!(drained(&bed, 0, &with(&["--save", "never"]))["save"]["outcome"], "not wanted");
        assert_eq!(info(&bed, 0, "rdb_saves"), "0");
        assert_eq!(drained(&bed, 0, &with(&["--save", "always"]))["save"]["outcome"], "saved");
        assert_eq!(info(&bed, 0, "rdb_saves"), "1");
        bed.pod(0).kill().unwrap();
        bed.pod(0).start().unwrap();
        assert_eq!(dbsize(&bed), 2_000);
    }
}

#[test]
fn where_no_save_is_wanted_none_is_done_and_no_write_is_held_back() {
    let bed = alone(&Valkey::newest(), &[]);
    assert_eq!(write(&bed, "key", 100), 100);
    let report = drained(&bed, 0, &with(&["--save", "never"]));
    assert!(report["save"]["outcome"] == "not wanted" && report["save"]["writes_paused"] == false, "{report}");
    assert_eq!((write(&bed, "more", 100), info(&bed, 0, "rdb_saves")), (100, "0".to_owned()));
}

#[test]
fn a_save_that_was_cut_off_is_done_again() {
    let bed = alone(&Valkey::newest(), &[("rdb-key-save-delay", "1000")]);
    write(&bed, "key", 2_000);
    thread::scope(|scope| {
        let run = scope.spawn(|| drained(&bed, 0, &STANDALONE));
        bed.wait_for("the save", LIMIT, || Ok((info(&bed, 0, "rdb_bgsave_in_progress") == "1").then_some(()))).unwrap();
        ask::<()>(&bed, 0, &["CONFIG", "SET", "rdb-key-save-delay", "0"]).unwrap();
        ask::<String>(&bed, 0, &["BGSAVE", "CANCEL"]).unwrap();
        assert_eq!(run.join().unwrap()["save"]["outcome"], "saved");
    });
    assert_eq!(
        (info(&bed, 0, "rdb_saves"), info(&bed, 0, "rdb_changes_since_last_save")),
        ("2".to_owned(), "0".to_owned())
    );
}

#[test]
fn a_server_that_is_loading_needs_nothing() {
    let bed =
        alone(&Valkey::newest(), &[("key-load-delay", "1000"), ("loading-process-events-interval-bytes", "1024")]);
    write(&bed, "key", 20_000);
    drained(&bed, 0, &STANDALONE);
    bed.pod(0).stop().unwrap();
    bed.pod(0).spawn().unwrap();
    bed.wait_for("the server to load", LIMIT, || {
        let answer = cmd("GET").arg("key1").query::<()>(&mut bed.connection(0)?);
        Ok(answer.is_err_and(|error| error.code() == Some("LOADING")).then_some(()))
    })
    .unwrap();
    let ended = drain(&bed, 0, &STANDALONE);
    ended.expect(0, &[]);
    assert!(ended.took < Duration::from_secs(3), "{ended}");
}

#[test]
fn what_is_wrong_is_told_with_an_exit_code_and_no_secret() {
    let bed = builder(&Valkey::newest(), 1)
        .config("cluster-enabled", "no")
        .config("requirepass", "default-secret")
        .config("user", "keeper on >keeper-secret ~* &* +@all")
        .build()
        .unwrap();
    let run = |args: &[&str], environment: &[(&str, &str)]| {
        let mut command = command(&bed, 0, &with(args));
        command.args(["--log-level", "trace"]).envs(environment.iter().copied());
        let ended = Ended::of(&mut command, LIMIT).unwrap();
        assert!(!ended.to_string().contains("-secret"), "{ended}");
        ended
    };
    run(&[], &[]).expect(0, &["drained: {"]);
    run(&["--username", "keeper"], &[("VALKEY_PASSWORD", "keeper-secret")]).expect(0, &["drained: {"]);
    run(&[], &[("VALKEY_PASSWORD", "wrong-secret")]).expect(64, &["nothing is drained", "WRONGPASS"]);
    run(&["--grace-period", "3s"], &[]).expect(64, &["too short"]);
    bed.pod(0).stop().unwrap();
    run(&[], &[]).expect(69, &["nothing is drained", "connection refused"]);
}

#[test]
fn a_grace_period_too_short_for_the_save_is_said_in_time_and_leaves_the_old_file() {
    let bed = alone(&Valkey::newest(), &[]);
    write(&bed, "old", 100);
    drained(&bed, 0, &STANDALONE);
    ask::<()>(&bed, 0, &["CLIENT", "UNPAUSE"]).unwrap();
    let old = fs::read(bed.pod(0).dir().join("dump.rdb")).unwrap();
    write(&bed, "new", 20_000);
    ask::<()>(&bed, 0, &["CONFIG", "SET", "rdb-key-save-delay", "1000"]).unwrap();
    let ended = drain(&bed, 0, &with(&["--grace-period", "8s"]));
    ended.expect(75, &["it will not be complete", "terminationGracePeriodSeconds", "20000 writes", "the save was at"]);
    let (_, rest) = ended.stderr.split_once("but only ").unwrap();
    let left: u64 = rest.split(' ').next().unwrap().parse().unwrap();
    assert!(left >= 3, "said when {left} s were left: {ended}");
    assert_eq!(fs::read(bed.pod(0).dir().join("dump.rdb")).unwrap(), old);
}

/// A disk that can be full.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Disk {
    /// A small file system of its own, where we may mount one.
    Tmpfs,
    /// A limit on the size of files, everywhere else.
    Limit,
}

struct Mount(PathBuf);

impl Mount {
    fn at(dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(dir).output().ok()?;
        mount.status.success().then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the server in it ends later.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Disk {
    fn fill(self, bed: &Testbed) {
        match self {
            Self::Tmpfs => {
                // Until nothing more fits.
                let _ = fs::write(filler(bed), vec![1; 16 << 20]);
            }
            Self::Limit => limit(bed, Some(256 << 10)),
        }
    }

    fn free(self, bed: &Testbed) {
        match self {
            Self::Tmpfs => fs::remove_file(filler(bed)).unwrap(),
            Self::Limit => limit(bed, None),
        }
    }
}

fn filler(bed: &Testbed) -> PathBuf {
    bed.pod(0).dir().join("filler")
}

fn limit(bed: &Testbed, bytes: Option<u64>) {
    let pid = Pid::from_raw(bed.pod(0).pid().unwrap().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_full_disk_leaves_the_old_file_and_is_told_and_a_disk_freed_in_time_is_used() {
    each([Disk::Limit, Disk::Tmpfs], |disk| {
        let bed = builder(&Valkey::newest(), 1)
            .config("cluster-enabled", "no")
            .config("rdbcompression", "no")
            // Without save points no failed save would stop writes.
            .config("save", "3600 1")
            .start_servers(false)
            .build()
            .unwrap();
        let mount = (disk == Disk::Tmpfs).then(|| Mount::at(bed.pod(0).dir()));
        if matches!(mount, Some(None)) {
            eprintln!("no file system may be mounted here; the limit on files stands for it");
            return;
        }
        bed.pod(0).start().unwrap();
        write(&bed, "old", 100);
        drained(&bed, 0, &STANDALONE);
        ask::<()>(&bed, 0, &["CLIENT", "UNPAUSE"]).unwrap();
        let rdb = bed.pod(0).dir().join("dump.rdb");
        let old = fs::read(&rdb).unwrap();
        assert_eq!(write(&bed, "new", 20_000), 20_000);
        disk.fill(&bed);
        let stop = AtomicBool::new(false);
        let (ended, errors) = thread::scope(|scope| {
            let writer = scope.spawn(|| write_on(&bed, &stop));
            let ended = drain(&bed, 0, &with(&["--grace-period", "7s"]));
            ask::<()>(&bed, 0, &["CLIENT", "UNPAUSE"]).unwrap();
            stop.store(true, Ordering::Relaxed);
            (ended, writer.join().unwrap().1)
        });
        ended.expect(75, &["the save failed", "is the disk full", "writes are not on disk", "not everything is saved"]);
        assert_eq!(fs::read(&rdb).unwrap(), old, "{disk:?}");
        assert!(!errors.iter().any(|error| error.contains("MISCONF")), "{disk:?}: {errors:?}");

        let keys = dbsize(&bed);
        let ended = thread::scope(|scope| {
            let run = scope.spawn(|| drain(&bed, 0, &STANDALONE));
            let saves = || info(&bed, 0, "rdb_saves").parse::<u32>().unwrap();
            let before = saves();
            bed.wait_for("another save to fail", LIMIT, || Ok((saves() > before).then_some(()))).unwrap();
            disk.free(&bed);
            run.join().unwrap()
        });
        ended.expect(0, &["drained: {"]);
        bed.pod(0).kill().unwrap();
        bed.pod(0).start().unwrap();
        assert_eq!(dbsize(&bed), keys, "{disk:?}");
    });
}
