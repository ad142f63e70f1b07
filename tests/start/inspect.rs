//! Directories over which a server is not started.

use std::path::PathBuf;

use valkeeper::topology::Version;
use valkeeper::topology::parse::{Arguments, RdbFormat, RdbMagic, ServerConfig, directives};
use valkeeper::topology::start::{DataFile, NodesConf, OnDisk, StartRefusal, inspect};

use super::{data, entries, line};

fn config(text: &str) -> ServerConfig {
    let mut config = ServerConfig::default();
    directives(text.as_bytes()).unwrap().into_iter().for_each(|directive| config.push(directive));
    config
}

fn disk(nodes_conf: bool, rdb: bool, aof: bool) -> OnDisk {
    let entries = entries(&line(1, "myself,master", None, 5, "0-100"));
    OnDisk {
        nodes_conf: if nodes_conf { NodesConf::Nodes(entries) } else { NodesConf::Missing },
        rdb: rdb.then(|| data(1)),
        aof: aof.then(|| DataFile { path: PathBuf::from("/data/appendonlydir/appendonly.aof.manifest"), ..data(1) }),
    }
}

const CLUSTER: &str = "cluster-enabled yes\n";
const CLUSTER_AOF: &str = "cluster-enabled yes\nappendonly yes\n";

#[test]
fn a_directory_that_the_server_reads_whole_is_not_refused() {
    for (text, disk) in [
        (CLUSTER, disk(true, true, false)),
        (CLUSTER, disk(true, true, true)),
        (CLUSTER, disk(false, false, false)),
        (CLUSTER_AOF, disk(true, true, true)),
        (CLUSTER_AOF, disk(true, false, true)),
        (CLUSTER_AOF, disk(true, false, false)),
        ("", disk(false, true, false)),
        ("appendonly yes", disk(false, false, true)),
    ] {
        assert_eq!(inspect(&disk, &config(text), Some(Version::new(8, 0, 1)), false), Ok(()), "{text}");
    }
}

#[test]
fn an_rdb_that_the_server_would_pass_over_is_refused_unless_it_is_converted() {
    for text in [CLUSTER_AOF, "appendonly yes"] {
        let refusal = inspect(&disk(true, true, false), &config(text), None, false).unwrap_err();
        assert!(matches!(refusal, StartRefusal::RdbWithoutAof { .. }), "{refusal}");
        assert!(
            refusal.to_string().contains("/data/dump.rdb") && refusal.remedy().contains("--aof-from-rdb"),
            "{refusal}"
        );
        assert_eq!(inspect(&disk(true, true, false), &config(text), None, true), Ok(()));
        let mut empty = disk(true, true, false);
        empty.rdb = Some(DataFile { empty: true, ..data(1) });
        assert_eq!(inspect(&empty, &config(text), None, false), Ok(()));
    }
}

#[test]
fn append_only_files_that_the_server_would_pass_over_are_refused() {
    let refusal = inspect(&disk(true, false, true), &config(CLUSTER), None, false).unwrap_err();
    assert!(
        matches!(refusal, StartRefusal::AofIgnored { .. }) && refusal.remedy().contains("appendonly yes"),
        "{refusal}"
    );
}

#[test]
fn data_without_nodes_conf_is_refused_in_a_cluster_only() {
    for (text, disk) in [(CLUSTER, disk(false, true, false)), (CLUSTER_AOF, disk(false, false, true))] {
        let refusal = inspect(&disk, &config(text), None, true).unwrap_err();
        assert!(matches!(refusal, StartRefusal::DataWithoutNodesConf { .. }), "{refusal}");
        assert!(refusal.to_string().contains("delete") && refusal.remedy().contains("nodes.conf back"), "{refusal}");
    }
    let mut empty = disk(false, true, false);
    empty.rdb = Some(DataFile { empty: true, ..data(1) });
    assert_eq!(inspect(&empty, &config(CLUSTER), None, false), Ok(()));
}

#[test]
fn a_nodes_conf_that_cannot_be_read_is_refused_by_name_and_line() {
    let unreadable = NodesConf::Unreadable { line: 7, why: "cannot read a line".to_owned() };
    let disk = OnDisk { nodes_conf: unreadable, rdb: None, aof: None };
    let refusal = inspect(&disk, &config("cluster-enabled yes\ndir /data"), None, false).unwrap_err();
    assert!(refusal.to_string().starts_with("/data/nodes.conf line 7"), "{refusal}");
    assert_eq!(inspect(&disk, &config(""), None, false), Ok(()), "a server alone does not read it");
}

#[test]
fn an_rdb_that_the_server_cannot_read_is_refused() {
    use RdbMagic::{Redis, Valkey};
    let reads = |server, magic, version, more: &str| {
        let mut disk = disk(true, true, false);
        disk.rdb = Some(DataFile { format: Some(RdbFormat { magic, version }), ..data(1) });
        let found = inspect(&disk, &config(&format!("{CLUSTER}{more}")), server, false);
        assert!(matches!(found, Ok(()) | Err(StartRefusal::ForeignRdb { .. })), "{found:?}");
        found.is_ok()
    };
    let [v7, v80, v81, v9] = [(7, 2), (8, 0), (8, 1), (9, 1)].map(|(major, minor)| Some(Version::new(major, minor, 1)));
    for server in [v7, v80, v81, v9] {
        assert!(reads(server, Redis, 6, "") && reads(server, Redis, 11, ""), "{server:?}");
        assert!(
            !reads(server, Redis, 12, "") && !reads(server, Redis, 80, "") && !reads(server, Valkey, 81, ""),
            "{server:?}"
        );
    }
    assert!(!reads(v80, Valkey, 80, "") && !reads(v81, Valkey, 80, "") && reads(v9, Valkey, 80, ""));
    let relaxed = "rdb-version-check relaxed";
    assert!(reads(v9, Redis, 12, relaxed) && reads(v9, Valkey, 81, relaxed) && !reads(v9, Redis, 80, relaxed));
    assert!(reads(v81, Valkey, 80, relaxed) && !reads(v81, Redis, 12, relaxed));
    for unknown in [None, Some(Version::new(9, 2, 0)), Some(Version::new(10, 0, 0))] {
        assert!(reads(unknown, Valkey, 99, ""), "{unknown:?}");
    }
}

#[test]
fn the_append_only_base_counts_where_it_is_what_is_read() {
    let mut disk = disk(true, true, true);
    if let Some(aof) = &mut disk.aof {
        aof.format = Some(RdbFormat { magic: RdbMagic::Valkey, version: 80 });
    }
    let server = Some(Version::new(8, 0, 1));
    assert_eq!(inspect(&disk, &config(CLUSTER), server, false), Ok(()));
    let refusal = inspect(&disk, &config(CLUSTER_AOF), server, false).unwrap_err();
    assert!(refusal.to_string().contains("VALKEY080, which Valkey 8.0.1 does not read"), "{refusal}");
    assert!(refusal.remedy().contains("newer"), "{}", refusal.remedy());
}

#[test]
fn no_debug_form_of_the_configuration_shows_a_secret() {
    let arguments = Arguments::parse(&["--requirepass", "hunter2"]);
    let config = config("requirepass hunter2\nuser a on >hunter2 ~*");
    assert!(!format!("{arguments:?} {config:?}").contains("hunter2"));
}
