//! That our password is where it has to be, and nowhere else: every command is run with one that is easy to find, and
//! then it is looked for in all that they print and write, and in what the machine shows of processes.

#[path = "secrets/onlooker.rs"]
mod onlooker;

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use onlooker::{Onlooker, files_below, holds};
use rustix::process::{Pid, Signal, getuid, kill_process};
use testbed::redis::{Client, IntoConnectionInfo as _, RedisConnectionInfo, cmd};
use testbed::{Ended, Testbed, Valkey, die_with_parent, http_get, wait_for};
use valkeeper::config::Secret;

const LIMIT: Duration = Duration::from_secs(90);
const BINARY: &str = env!("CARGO_BIN_EXE_valkeeper");
/// Our password; no server, library or user would say this.
const MARKER: &str = "m4rk3r5tr1ng";
/// That of tests that give it to programs other than the server, which may show it; nobody looks on there.
const OTHER_MARKER: &str = "m4rk3r-0th3r";
/// What both begin with.
const MARK: &str = "m4rk3r";
const PORT: u16 = 8080;

/// Runs a command to its end and looks through all that it has said; the code must be one of these.
#[track_caller]
fn silent(what: &str, command: &mut Command, codes: &[i32]) -> Ended {
    let ended = Ended::of(command, LIMIT).unwrap();
    assert!(ended.code.is_some_and(|code| codes.contains(&code)), "{what}: {ended}");
    assert!(!holds(ended.to_string().as_bytes(), MARK), "{what} tells the password: {ended}");
    ended
}

/// What a command says that goes on until it is interrupted, once it has said something.
fn watched(command: &mut Command) -> Vec<u8> {
    let output = tempfile::NamedTempFile::new().unwrap();
    let file = || output.reopen().unwrap();
    die_with_parent(command);
    let mut child =
        command.stdout(file()).stderr(fs::File::options().append(true).open(output.path()).unwrap()).spawn().unwrap();
    let said = || fs::read(output.path()).unwrap();
    wait_for("a word", LIMIT, || Ok(holds(&said(), "STATE").then_some(()))).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap();
    said()
}

/// The command with our password in its environment, logging all there is.
fn told(mut command: Command, format: &str) -> Command {
    command.env("VALKEY_PASSWORD", MARKER).args(["--log-level", "trace", "--log-format", format]);
    command
}

fn write_keys(bed: &Testbed) {
    for pod in bed.pods() {
        let info = (pod.addr().to_string(), pod.port()).into_connection_info().unwrap();
        let info = info.set_redis_settings(RedisConnectionInfo::default().set_password(MARKER));
        let mut connection = Client::open(info).unwrap().get_connection_with_timeout(LIMIT).unwrap();
        // Those of other nodes are turned away.
        (0..2_000).for_each(|key| drop(cmd("SET").arg(key).arg("value").exec(&mut connection)));
    }
}

#[test]
fn no_command_shows_the_password_to_anybody() {
    for valkey in Valkey::all() {
        let onlooker = Onlooker::of(MARKER);
        let bed = Testbed::builder(&valkey)
            .binary(BINARY)
            .supervised(true)
            .pods(4)
            .start_servers(false)
            .config("loglevel", "debug")
            .build()
            .unwrap();
        let file = bed.dir().join("password");
        fs::write(&file, format!("{MARKER}\n")).unwrap();
        for pod in bed.pods() {
            let listen = format!("{}:{PORT}", pod.addr());
            let shape = ["--shards", "4", "--replicas", "0", "--listen", &listen, "--log-level", "trace"];
            let rest = match pod.ordinal() {
                0 => vec!["--password-file", file.to_str().unwrap()],
                _ => vec!["--log-format", "json"],
            };
            pod.set_run_args(&[&shape[..], &rest].concat());
            match pod.ordinal() {
                0 => {}
                1 => pod.set_run_env("VALKEYCLI_AUTH", Some(MARKER)),
                _ => pod.set_run_env("VALKEY_PASSWORD", Some(MARKER)),
            }
            pod.start().unwrap();
        }

        let shape = ["--shards", "4", "--replicas", "0"];
        let json = |args: &[&str]| told(bed.valkeeper(&[args, &["-o", "json"]].concat()), "json");
        let text = |args: &[&str]| told(bed.valkeeper(args), "text");
        silent("bootstrap", &mut json(&[&["bootstrap"], &shape[..]].concat()), &[0]);
        write_keys(&bed);
        silent("bootstrap", &mut json(&[&["bootstrap", "--dry-run"], &shape[..]].concat()), &[0]);
        silent("status", &mut text(&["status"]), &[0, 1]);
        assert!(!holds(&watched(&mut text(&["status", "--watch"])), MARK), "status --watch tells the password");
        silent("status", &mut json(&["status"]), &[0, 1]);
        silent("doctor", &mut text(&["doctor"]), &[0, 1]);
        silent("doctor", &mut json(&["doctor"]), &[0, 1]);
        silent("evacuate", &mut json(&["evacuate", "valkey-3", "--shards", "3"]), &[0]);
        silent("rebalance", &mut text(&["rebalance", "--dry-run"]), &[0]);
        silent("rebalance", &mut json(&["rebalance"]), &[0]);
        for role in ["run", "watch"] {
            silent("acl", &mut text(&["acl", "--username", "app", "--role", role]), &[0]);
        }
        let volume = tempfile::tempdir().unwrap();
        silent("install", &mut text(&["install", volume.path().to_str().unwrap()]), &[0]);
        for probe in ["startup", "liveness", "readiness"] {
            silent(probe, &mut told(bed.valkeeper_in(0, &["probe", probe]), "text"), &[0, 1]);
        }
        for path in ["/metrics", "/readyz", "/livez", "/startupz", "/"] {
            let (_, body) = http_get((bed.pod(0).addr(), PORT).into(), path).unwrap();
            assert!(!holds(body.as_bytes(), MARKER), "{path} tells the password");
        }
        silent("drain", &mut told(bed.valkeeper_in(0, &["drain", "-o", "json"]), "json"), &[0]);
        // One that is wrong is no less a secret.
        let wrong = format!("{MARKER}, but wrong");
        for args in [
            &["status"][..],
            &["doctor"],
            &["bootstrap", "--timeout", "2s"],
            &["rebalance", "--timeout", "2s"],
            &["evacuate", "valkey-3", "--timeout", "2s"],
        ] {
            for mut command in [text(args), json(args)] {
                silent(args[0], command.env("VALKEY_PASSWORD", &wrong), &[1, 64, 69, 75, 76]);
            }
        }
        for args in [&["drain"][..], &["drain", "-o", "json"], &["probe", "liveness"], &["probe", "readiness"]] {
            let mut command = told(bed.valkeeper_in(1, args), "text");
            silent(args[0], command.env("VALKEY_PASSWORD", &wrong), &[0, 1, 64]);
        }
        for pod in bed.pods() {
            // One server dies, and is handed over from.
            match pod.ordinal() {
                1 => pod.kill_server().unwrap(),
                _ => pod.terminate().unwrap(),
            }
            pod.wait_end(LIMIT).unwrap();
            let log = pod.run_log();
            assert!(log.contains("TRACE") && !holds(log.as_bytes(), MARKER), "the log of {} tells it", pod.name());
        }

        for path in files_below(bed.dir()).into_iter().filter(|path| *path != file) {
            assert!(!holds(&fs::read(&path).unwrap(), MARKER), "{} holds the password", path.display());
            if path.file_name().unwrap().to_string_lossy().starts_with("valkeeper-") {
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "others may open {}", path.display());
            }
        }
        let saw = onlooker.saw();
        assert!(saw.is_empty(), "{}: anybody can see the password: {saw:?}", valkey.version);
    }
}

/// A user of its own, mutual TLS, and a password that becomes another.
#[test]
fn neither_a_password_that_changes_nor_a_private_key_is_shown_to_anybody() {
    const NEXT: &str = "m4rk3r-n3xt";
    const APP: &str = "app";
    for valkey in Valkey::all() {
        let (onlooker, next_onlooker) = (Onlooker::of(MARKER), Onlooker::of(NEXT));
        let hash = Secret::new(MARKER).hash();
        let mut bed = Testbed::builder(&valkey)
            .binary(BINARY)
            .supervised(true)
            .tls(true)
            .pods(2)
            .start_servers(false)
            .users((APP, MARKER), (APP, MARKER))
            .config("user", "default off")
            .config("user", &format!("{APP} on #{} ~* &* +@all", hash.as_str()))
            .build()
            .unwrap();
        let files: Vec<_> = (0..2).map(|pod| bed.dir().join(format!("password-{pod}"))).collect();
        for (pod, file) in bed.pods().iter().zip(&files) {
            fs::write(file, MARKER).unwrap();
            let args = ["--username", APP, "--password-file", file.to_str().unwrap(), "--password-overlap", "0s"];
            pod.set_run_args(&[&args[..], &["--shards", "1", "--replicas", "1", "--log-level", "trace"]].concat());
            pod.start().unwrap();
        }
        bed.form(1, 1).unwrap();
        files.iter().for_each(|file| fs::write(file, NEXT).unwrap());
        bed.wait_for("the former password to be refused", LIMIT, || {
            let is_over = |pod: &testbed::Pod| pod.run_log().contains("refuses the former password");
            Ok(bed.pods().iter().all(is_over).then_some(()))
        })
        .unwrap();
        bed.set_password(NEXT);
        let status = silent("status", bed.valkeeper(&["status"]).args(["--log-level", "trace"]), &[0, 1]);
        let key = fs::read_to_string(bed.tls().mount(0).key()).unwrap();
        let key = key.lines().nth(1).unwrap();
        for pod in bed.pods() {
            pod.stop().unwrap();
            let log = pod.run_log();
            let is_silent = ![MARK, key].iter().any(|secret| holds(log.as_bytes(), secret));
            assert!(log.contains("TRACE") && is_silent, "the log of {} tells a secret", pod.name());
        }
        assert!(!holds(status.to_string().as_bytes(), key));
        let told = |path: &PathBuf| !files.contains(path) && !path.starts_with(bed.dir().join("certificates"));
        for path in files_below(bed.dir()).into_iter().filter(told) {
            let text = fs::read(&path).unwrap();
            assert!(![MARK, key].iter().any(|secret| holds(&text, secret)), "{} holds a secret", path.display());
        }
        assert_eq!((onlooker.saw(), next_onlooker.saw()), Default::default());
    }
}

#[test]
fn the_onlooker_sees_what_is_shown() {
    const SHOWN: &str = "5h0wn-t0-4ll";
    for by_argument in [false, true] {
        let onlooker = Onlooker::of(SHOWN);
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1; :", if by_argument { SHOWN } else { "" }]);
        command.env("SHOWN", if by_argument { "" } else { SHOWN });
        assert!(command.status().unwrap().success());
        let saw = onlooker.saw();
        let file = if by_argument { "cmdline" } else { "environ" };
        assert!(saw.contains(&format!("{file} of sh")), "{saw:?}");
    }
}

#[test]
fn a_local_cluster_is_not_told_a_password_that_is_not_its_own() {
    let onlooker = Onlooker::of(MARKER);
    let dir = tempfile::tempdir().unwrap();
    let output = fs::File::create(dir.path().join("output")).unwrap();
    let server = Valkey::newest().server;
    let (data, port) = (dir.path().join("data"), "6390");
    let mut command = told(Command::new(BINARY), "text");
    command.args(["local", "--shards", "3", "--replicas", "0", "--port", port]).arg("--data-dir").arg(&data);
    command.arg("--server").arg(server).stdout(output.try_clone().unwrap()).stderr(output);
    die_with_parent(&mut command);
    let mut local = command.spawn().unwrap();
    let said = || fs::read_to_string(dir.path().join("output")).unwrap_or_default();
    let stands = wait_for("the cluster to stand", LIMIT, || Ok(said().contains("Ctrl-C stops it").then_some(())));
    kill_process(Pid::from_child(&local), Signal::INT).unwrap();
    local.wait().unwrap();
    stands.unwrap_or_else(|error| panic!("{error:#}\n{}", said()));
    for path in files_below(dir.path()) {
        assert!(!holds(&fs::read(&path).unwrap(), MARKER), "{} holds the password", path.display());
    }
    assert!(onlooker.saw().is_empty());
}

#[test]
fn what_is_wrong_with_an_option_is_told_without_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("not text");
    fs::write(&broken, [OTHER_MARKER.as_bytes(), b"\xff"].concat()).unwrap();
    let broken = broken.to_str().unwrap();
    for args in [
        &["--help"][..],
        &[],
        &["nonsense"],
        &["bootstrap"],
        &["bootstrap", "--help"],
        &["run", "--help"],
        &["run", "--", "/no/such/program"],
        &["run", "--grace-period", "1s", "--", "true"],
        &["run", "--mode", "standalone", "--", "valkey-server", "/no/such/file"],
        &["run", "--listen", "nowhere", "--", "true"],
        &["drain", "--timeout", "never"],
        &["probe", "nonsense"],
        &["probe", "readiness", "--password-file", broken],
        &["probe", "readiness", "--password-file", "/no/such/file"],
        &["status", "--service", "a b"],
        &["status", "--service", "127.0.0.1", "--port", "1", "--timeout", "1s"],
        &["status", "--service", "x.", "--dns-server", "nobody"],
        &["doctor", "--service", "x.", "--cluster-id", "a b"],
        &["rebalance", "--weight", "heavy", "--service", "x."],
        &["evacuate", "--service", "x."],
        &["local", "--server", "/no/such/server"],
    ] {
        for variable in ["VALKEY_PASSWORD", "VALKEYCLI_AUTH"] {
            let mut command = Command::new(BINARY);
            command.args(args).env(variable, OTHER_MARKER).env("VALKEEPER_LOG_LEVEL", "trace");
            silent(&format!("{args:?}"), &mut command, &[0, 1, 64, 69, 71, 76, 127]);
        }
    }
    // A variable that is no text is passed over, and shown to nobody.
    let bytes = std::ffi::OsString::from_vec([OTHER_MARKER.as_bytes(), b"\xff"].concat());
    let mut command = Command::new(BINARY);
    command.args(["status", "--service", "127.0.0.1", "--port", "1", "--timeout", "1s"]).env("VALKEY_PASSWORD", bytes);
    silent("status", &mut command, &[1, 64, 69]);
}

/// As root everything may be looked at: another user shows the difference.
const NOBODY: u32 = 65_534;

/// O_NONBLOCK.
const NONBLOCK: i32 = 0o4000;

/// Each command reads the password from a pipe that nobody writes to, and so can be looked at before it has it.
#[test]
fn of_no_command_anybody_but_root_may_read_environment_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&pipe).status().unwrap().success());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for args in [
        &["bootstrap", "--service", "x."][..],
        &["run", "--mode", "standalone", "--", "sleep", "60"],
        &["drain"],
        &["probe", "startup"],
        &["status", "--service", "x."],
        &["doctor", "--service", "x."],
        &["rebalance", "--service", "x."],
        &["evacuate", "valkey-3", "--service", "x."],
        &["acl", "--username", "app"],
    ] {
        let mut command = Command::new(BINARY);
        command.args(args).env("VALKEEPER_PASSWORD_FILE", &pipe).stderr(Stdio::null()).stdout(Stdio::null());
        if getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        die_with_parent(&mut command);
        let mut child = command.spawn().unwrap();
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        // It can be opened once somebody reads it, who then waits for what is written.
        let writer = || fs::File::options().write(true).custom_flags(NONBLOCK).open(&pipe).ok();
        let reads = wait_for(&format!("{args:?} to read the password"), LIMIT, || Ok(writer()));
        let owner = fs::metadata(proc.join("environ")).map(|file| file.uid());
        child.kill().unwrap();
        child.wait().unwrap();
        drop(reads.unwrap());
        assert_eq!(owner.unwrap(), 0, "{args:?}");
    }
}

#[test]
fn we_leave_no_core_and_only_root_may_look_at_us() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let user = if getuid().is_root() { NOBODY } else { getuid().as_raw() };
    let script =
        format!("ulimit -c unlimited; exec {BINARY} run --mode standalone -- sh -c 'echo $$ >pid; exec sleep 60'");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(dir.path()).env("VALKEY_PASSWORD", OTHER_MARKER).stderr(Stdio::null());
    if getuid().is_root() {
        command.uid(user).gid(user);
    }
    die_with_parent(&mut command);
    let mut run = command.spawn().unwrap();
    let server = wait_for("the server to run", LIMIT, || {
        let said = fs::read_to_string(dir.path().join("pid")).unwrap_or_default();
        Ok(said.strip_suffix('\n').map(str::to_owned))
    });
    let server = server.unwrap();
    let owner = |pid: &str| fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    assert_eq!(owner(&run.id().to_string()), 0, "its own user can read our environment and memory");
    assert_eq!(owner(&server), user, "the server keeps its own setting");
    kill_process(Pid::from_child(&run), Signal::ABORT).unwrap();
    let status = run.wait().unwrap();
    assert!(status.signal().is_some() && !status.core_dumped(), "{status}");
    assert!(files_below(dir.path()).iter().all(|path| path.ends_with("pid")), "{:?}", files_below(dir.path()));
}
