//! `valkeeper install`: the binary in a volume that other containers see.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use testbed::Ended;

const LIMIT: Duration = Duration::from_secs(30);
const BINARY: &str = env!("CARGO_BIN_EXE_valkeeper");

fn install(dir: &Path) -> Ended {
    Ended::of(Command::new(BINARY).arg("install").arg(dir), LIMIT).unwrap()
}

/// Into a folder of a mount namespace of its own, which ends with the command. Takes root.
fn install_into_tmpfs(options: &str, dir: &Path) -> Ended {
    const SCRIPT: &str =
        r#"mount -t tmpfs -o "$1" none "$2" && { "$0" install "$2"; code=$?; ls -A "$2" >&2; exit $code; }"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, BINARY, options]).arg(dir);
    Ended::of(&mut command, LIMIT).unwrap()
}

#[test]
fn what_is_installed_is_this_binary_and_everybody_may_run_it() {
    let dir = tempfile::tempdir().unwrap();
    let installed = dir.path().join("valkeeper");
    // A killed one has left its draft, which is not to be run.
    fs::write(dir.path().join(".valkeeper.new"), "half").unwrap();
    install(dir.path()).expect(0, &["installed", installed.to_str().unwrap()]);
    assert!(fs::read(&installed).unwrap() == fs::read(BINARY).unwrap());
    assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    Ended::of(Command::new(&installed).arg("--version"), LIMIT).unwrap().expect(0, &[]);
}

#[test]
fn one_that_runs_is_replaced_and_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let installed = dir.path().join("valkeeper");
    install(dir.path()).expect(0, &[]);
    let first = fs::metadata(&installed).unwrap().ino();
    let mut running = Command::new(&installed);
    running.args(["run", "--mode", "standalone", "--", "sleep", "1000"]).stdin(Stdio::null()).stderr(Stdio::null());
    testbed::die_with_parent(&mut running);
    let mut running = running.spawn().unwrap();
    install(dir.path()).expect(0, &[]);
    assert_ne!(fs::metadata(&installed).unwrap().ino(), first);
    assert_eq!(running.try_wait().unwrap(), None);
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn two_at_once_do_not_write_into_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let folder = File::open(dir.path()).unwrap();
    flock(&folder, FlockOperation::LockExclusive).unwrap();
    install(dir.path()).expect(71, &["another install", "run this again"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(folder);
    install(dir.path()).expect(0, &[]);
}

#[test]
fn where_it_cannot_be_put_or_run_the_folder_is_named_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    install(&dir.path().join("missing")).expect(71, &["no folder", "missing", "mount a volume"]);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    install(&file).expect(71, &["file", "Not a directory"]);
    let empty = tempfile::tempdir().unwrap();
    let full = install_into_tmpfs("size=1m", empty.path());
    full.expect(71, &[empty.path().to_str().unwrap(), "No space left"]);
    assert!(!full.to_string().contains(".valkeeper.new"), "{full}");
    install_into_tmpfs("ro", empty.path()).expect(71, &["Read-only file system"]);
    install_into_tmpfs("noexec", empty.path()).expect(71, &["mounted noexec"]);
    install_into_tmpfs("size=500m", empty.path()).expect(0, &["installed"]);
}
