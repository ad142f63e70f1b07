//! What is found in directories that real servers wrote.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use testbed::redis::cmd;
use testbed::{Ended, Testbed, Valkey};
use valkeeper::datadir::{look, read_config};
use valkeeper::process::version::server_version;
use valkeeper::topology::parse::{Arguments, RdbFormat, RdbMagic, ServerConfig};
use valkeeper::topology::start::{DataFile, Former, NodesConf, OnDisk, StartRefusal, inspect};
use valkeeper::topology::{SlotSet, Version};

const LIMIT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

fn config(dir: &Path, more: &[&str]) -> ServerConfig {
    let arguments = [&["--dir", dir.to_str().unwrap(), "--cluster-enabled", "yes"], more].concat();
    read_config(&Arguments::parse(&arguments), b"").unwrap()
}

/// A node of its own with every slot; with a key in it if wanted, saved, and killed, so that nothing is written on the way out.
fn left_behind(valkey: &Valkey, appendonly: bool, key: bool) -> Testbed {
    let bed = Testbed::builder(valkey).config("appendonly", if appendonly { "yes" } else { "no" }).build().unwrap();
    let mut connection = bed.connection(0).unwrap();
    cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"]).query::<()>(&mut connection).unwrap();
    if key {
        bed.wait_for("the node to take writes", LIMIT, || {
            Ok(cmd("SET").arg("key").arg("value").query::<()>(&mut connection).ok())
        })
        .unwrap();
    }
    cmd("SAVE").query::<()>(&mut connection).unwrap();
    bed.pod(0).kill().unwrap();
    bed
}

fn format(valkey: &Valkey) -> RdbFormat {
    match valkey.version.as_str() {
        "8.0" | "8.1" => RdbFormat { magic: RdbMagic::Redis, version: 11 },
        _ => RdbFormat { magic: RdbMagic::Valkey, version: 80 },
    }
}

fn is_fresh(data: &DataFile) -> bool {
    data.age.is_some_and(|age| age < LIMIT)
}

fn version(valkey: &Valkey) -> Option<Version> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(server_version(&valkey.server))
}

/// Every file below a folder, its content and its time.
fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(everything(&path)),
            false => {
                let modified = path.metadata().unwrap().modified().unwrap();
                found.push((path.clone(), fs::read(&path).unwrap(), modified));
            }
        }
    }
    found.sort();
    found
}

/// [`look`], which leaves everything as it was.
fn looked(config: &ServerConfig) -> OnDisk {
    let before = everything(&config.dir());
    let disk = look(config).unwrap();
    assert_eq!(everything(&config.dir()), before, "looking changes nothing");
    disk
}

#[test]
fn an_rdb_file_is_known_by_its_format_its_age_and_whether_it_holds_keys() {
    for valkey in Valkey::all() {
        for key in [true, false] {
            let bed = left_behind(&valkey, false, key);
            let config = config(bed.pod(0).dir(), &[]);
            let disk = looked(&config);
            let rdb = disk.rdb.as_ref().unwrap();
            assert_eq!((rdb.format, rdb.empty), (Some(format(&valkey)), !key), "{}", valkey.version);
            assert!(is_fresh(rdb) && rdb.size > 50 && disk.aof.is_none(), "{rdb:?}");
            assert_eq!(inspect(&disk, &config, version(&valkey), false), Ok(()));
            let NodesConf::Nodes(nodes) = &disk.nodes_conf else { panic!("{disk:?}") };
            assert_eq!(Former::of(nodes).unwrap().slots, SlotSet::ALL);
        }
    }
}

#[test]
fn a_copy_from_a_backup_is_as_old_as_what_is_in_it() {
    let bed = left_behind(&Valkey::newest(), false, true);
    let config = config(bed.pod(0).dir(), &[]);
    let mut bytes = fs::read(config.rdb()).unwrap();
    let place = bytes.windows(5).position(|window| window == b"ctime").unwrap() + 6;
    let begun = u32::from_le_bytes(bytes[place..place + 4].try_into().unwrap()) - 3600;
    bytes[place..place + 4].copy_from_slice(&begun.to_le_bytes());
    fs::write(config.rdb(), &bytes).unwrap();
    let age = looked(&config).rdb.unwrap().age.unwrap();
    assert!(age >= HOUR && age < HOUR + LIMIT, "{age:?}");
}

#[test]
fn append_only_files_count_together() {
    for valkey in Valkey::all() {
        for key in [true, false] {
            let bed = left_behind(&valkey, true, key);
            let config = config(bed.pod(0).dir(), &["--appendonly", "yes"]);
            let disk = looked(&config);
            let aof = disk.aof.as_ref().unwrap();
            assert_eq!((aof.format, aof.empty), (Some(format(&valkey)), !key), "{}: {aof:?}", valkey.version);
            assert!(is_fresh(aof), "{aof:?}");
            assert_eq!(disk.loaded(&config), Some(aof));
            assert_eq!(inspect(&disk, &config, version(&valkey), false), Ok(()));
        }
    }
}

#[test]
fn the_single_append_only_file_of_old_servers_counts() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &["--appendonly", "yes", "--appendfilename", "old.aof"]);
    assert!(looked(&config).aof.is_none());
    fs::write(dir.path().join("old.aof"), "").unwrap();
    assert!(looked(&config).aof.unwrap().empty);
    fs::write(dir.path().join("old.aof"), "*1\r\n$4\r\nPING\r\n").unwrap();
    let aof = looked(&config).aof.unwrap();
    assert!(!aof.empty && aof.format.is_none() && is_fresh(&aof), "{aof:?}");
}

#[test]
fn what_a_server_would_ignore_or_delete_is_refused_and_left_as_it_is() {
    for valkey in Valkey::all() {
        let bed = left_behind(&valkey, false, true);
        let dir = bed.pod(0).dir();
        let before = everything(dir);
        let refusal = |more: &[&str]| {
            let config = config(dir, more);
            inspect(&look(&config).unwrap(), &config, version(&valkey), false).unwrap_err()
        };
        assert!(matches!(refusal(&["--appendonly", "yes"]), StartRefusal::RdbWithoutAof { .. }));
        assert!(matches!(refusal(&["--cluster-config-file", "no.conf"]), StartRefusal::DataWithoutNodesConf { .. }));
        assert_eq!(everything(dir), before);
        fs::write(bed.pod(0).nodes_conf(), "").unwrap();
        assert!(matches!(refusal(&[]), StartRefusal::DataWithoutNodesConf { .. }), "an empty nodes.conf is none");
    }
}

/// What the server itself does over the same files: the rule and the server agree.
#[test]
fn a_server_reads_the_rdb_file_exactly_when_it_is_not_refused() {
    let written: Vec<_> = Valkey::all()
        .iter()
        .map(|valkey| {
            let bed = left_behind(valkey, false, true);
            fs::read(bed.pod(0).dir().join("dump.rdb")).unwrap()
        })
        .collect();
    for valkey in Valkey::all() {
        for rdb in written.iter().flat_map(|rdb| [rdb.clone(), [b"REDIS0012", &rdb[9..]].concat()]) {
            let bed = Testbed::builder(&valkey).start_servers(false).build().unwrap();
            let pod = bed.pod(0);
            fs::create_dir_all(pod.dir()).unwrap();
            fs::write(pod.dir().join("dump.rdb"), &rdb).unwrap();
            let config = config(pod.dir(), &["--cluster-enabled", "no"]);
            let judged = inspect(&look(&config).unwrap(), &config, version(&valkey), false);
            let started = pod.start();
            assert_eq!(
                judged.is_ok(),
                started.is_ok(),
                "{} {:?}: {judged:?} {started:?}",
                valkey.version,
                String::from_utf8_lossy(&rdb[..9])
            );
            if judged.is_err() {
                assert!(
                    pod.log_tail().contains("Can't handle RDB format") || pod.log_tail().contains("Wrong signature")
                );
            }
        }
    }
}

#[test]
fn a_nodes_conf_that_is_cut_off_is_named_by_line() {
    let bed = left_behind(&Valkey::newest(), false, false);
    let config = config(bed.pod(0).dir(), &[]);
    let text = fs::read_to_string(config.nodes_conf()).unwrap();
    for (cut, at) in [(&text[..60], 1), ("\nvars currentEpoch 1 lastVoteEpoch 0\n", 2)] {
        fs::write(config.nodes_conf(), cut).unwrap();
        let disk = looked(&config);
        assert!(matches!(disk.nodes_conf, NodesConf::Unreadable { line, .. } if line == at), "{disk:?}");
        let refusal = inspect(&disk, &config, None, false).unwrap_err();
        let shown = config.nodes_conf().display().to_string();
        assert!(refusal.to_string().contains(&format!("{shown} line {at}")), "{refusal}");
    }
}

#[test]
fn a_directory_that_is_not_there_is_an_empty_one() {
    let disk = look(&config(Path::new("/no/such/folder"), &["--appendonly", "yes"])).unwrap();
    assert!(disk.nodes_conf == NodesConf::Missing && disk.rdb.is_none() && disk.aof.is_none());
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("nodes.conf")).unwrap();
    let error = look(&config(dir.path(), &[])).unwrap_err().to_string();
    assert!(error.contains("nodes.conf"), "{error}");
    fs::remove_dir(dir.path().join("nodes.conf")).unwrap();
    fs::create_dir(dir.path().join("appendonlydir")).unwrap();
    fs::write(dir.path().join("appendonlydir/appendonly.aof.manifest"), "file a seq").unwrap();
    let error = look(&config(dir.path(), &[])).unwrap_err().to_string();
    assert!(error.contains("appendonly.aof.manifest") && error.contains("file a seq"), "{error}");
}

#[test]
fn a_program_that_is_no_server_has_no_version() {
    for valkey in Valkey::all() {
        let found = version(&valkey).unwrap();
        assert_eq!(format!("{}.{}", found.major, found.minor), valkey.version);
    }
    for other in ["/bin/true", "/no/such/program"] {
        let server = PathBuf::from(other);
        assert_eq!(version(&Valkey { server, ..Valkey::newest() }), None, "{other}");
    }
}

/// A restored backup often belongs to root, and the server to nobody in particular.
#[test]
fn a_nodes_conf_that_the_server_could_not_write_is_named_before_it_starts() {
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("valkeeper");
    fs::copy(env!("CARGO_BIN_EXE_valkeeper"), &binary).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let nodes_conf = data.join("nodes.conf");
    fs::write(&nodes_conf, "").unwrap();
    fs::set_permissions(&nodes_conf, fs::Permissions::from_mode(0o444)).unwrap();
    let mut run = Command::new(&binary);
    run.args(["run", "--data-dir"]).arg(&data).args(["--", "valkey-server", "--cluster-enabled", "yes"]);
    if rustix::process::geteuid().is_root() {
        chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        run.uid(NOBODY).gid(NOBODY);
    }
    let ended = Ended::of(&mut run, LIMIT).unwrap();
    assert_eq!(ended.code, Some(71), "{ended}");
    let said = format!("cannot write {}, which has to belong to the user", nodes_conf.display());
    assert!(ended.stderr.contains(&said) && ended.stderr.contains("Permission denied"), "{ended}");
}
