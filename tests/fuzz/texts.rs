//! What servers say and what lies on disks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use testbed::Authority;
use valkeeper::tls::{self, Files, Names, Pair, Tls, Use};
use valkeeper::topology::changeover::{PasswordHash, Wanted, accepts, with_passwords};
use valkeeper::topology::drain::DrainReport;
use valkeeper::topology::electorate::Electorate;
use valkeeper::topology::identity::{ClusterId, Mark, PodName, SiteName};
use valkeeper::topology::node::{Moving, NodeId};
use valkeeper::topology::observation::View;
use valkeeper::topology::parse::{
    Arguments, ClusterInfo, Info, RdbHead, ServerConfig, directive, directives, manifest, nodes, nodes_conf,
};
use valkeeper::topology::start::{Former, with_addresses_of_pods, with_shard_ids_of_primaries};
use valkeeper::topology::{NodeEntry, Role, SLOT_COUNT, Version};

use crate::engine::fuzz;
use crate::{fixtures, owned};

/// Addresses that the fixtures have.
const OWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 92, 109, 3)), 6379);
const OTHER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 92, 109, 4)), 6379);

/// No sentence of ours is longer, whatever it is about.
const SENTENCE: usize = 4_096;

#[test]
fn the_nodes_of_a_cluster() {
    fuzz("nodes", &fixtures(&[".nodes", ".nodes.conf"]), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (from_server, from_disk) = (nodes(&text), nodes_conf(&text));
        assert_eq!(from_server.as_ref().ok(), from_disk.as_ref().ok());
        if let Some(mended) = with_shard_ids_of_primaries(&text) {
            assert!(!mended.nodes.is_empty() && mended.text.lines().count() == text.lines().count());
            assert_eq!(with_shard_ids_of_primaries(&mended.text), None, "{}", mended.text);
        }
        let pods = [("valkey-1", OWN), ("valkey-2", OTHER)];
        let pods: BTreeMap<_, _> = pods.iter().filter_map(|(pod, ip)| Some((PodName::new(pod)?, *ip))).collect();
        for pods in [BTreeMap::new(), pods] {
            let Some(mended) = with_addresses_of_pods(&text, OWN, &pods) else { continue };
            assert!(!mended.nodes.is_empty() && mended.text.lines().count() == text.lines().count());
            assert_eq!(with_addresses_of_pods(&mended.text, OWN, &pods), None, "{}", mended.text);
        }
        match from_server {
            Ok(entries) => read_entries(&entries),
            Err(error) => assert!(error.to_string().len() < SENTENCE, "{error}"),
        }
    });
}

fn read_entries(entries: &[NodeEntry]) {
    let printed: String = entries.iter().map(line).collect();
    assert_eq!(nodes(&printed).as_deref(), Ok(entries), "{printed}");
    for entry in entries {
        let slots = entry.slot_set();
        assert!(slots.len() <= usize::from(SLOT_COUNT) && slots.ranges().len() <= slots.len());
        assert_eq!(
            entry.endpoint().is_some(),
            entry.endpoint().is_some_and(|endpoint| endpoint.to_string().len() < 100)
        );
    }
    let _ = Former::of(entries);
    if let Some(view) = View::new(entries.to_vec()) {
        let own = view.myself().id;
        assert!(view.get(own).is_some());
        assert!(view.others().count() < entries.len() && view.lost().count() <= entries.len());
        let _ = Electorate::of(&view, Some(own), &[own]).can_elect();
    }
}

/// An entry as the server writes it.
fn line(entry: &NodeEntry) -> String {
    let flags = [
        ("myself", entry.flags.myself),
        ("fail?", entry.flags.suspected),
        ("fail", entry.flags.failed),
        ("handshake", entry.flags.handshake),
        ("noaddr", entry.flags.without_address),
        ("nofailover", entry.flags.no_failover),
    ];
    let (role, primary) = match entry.role {
        Role::Primary => ("primary", None),
        Role::Replica(primary) => ("replica", primary),
    };
    let flags: Vec<&str> = flags.iter().filter(|(_, is)| *is).map(|(name, _)| *name).chain([role]).collect();
    let mut line = format!(
        "{} {}:{}@{},{}{} {} {} 0 0 {} {}",
        entry.id,
        entry.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        entry.port,
        entry.bus_port,
        entry.hostname.as_deref().unwrap_or_default(),
        entry.tls_port.map(|port| format!(",tls-port={port}")).unwrap_or_default(),
        flags.join(","),
        primary.map_or("-".to_owned(), |id| id.to_string()),
        entry.config_epoch,
        if entry.connected { "connected" } else { "disconnected" },
    );
    for range in &entry.slots {
        write!(line, " {}-{}", range.first().number(), range.last().number()).unwrap();
    }
    for moving in &entry.moving {
        match moving {
            Moving::To(slot, id) => write!(line, " [{}->-{}]", slot.number(), id).unwrap(),
            Moving::From(slot, id) => write!(line, " [{}-<-{}]", slot.number(), id).unwrap(),
        }
    }
    line + "\n"
}

#[test]
fn what_a_server_says_of_itself() {
    let mut corpus = fixtures(&[".info", ".cluster-info"]);
    // What decisions are made of, of a server that is at work; none of the others was.
    corpus.extend(owned(&[
        "valkey_version:8.1.1\r\nrun_id:abc\r\nuptime_in_seconds:7\r\nused_memory:1000\r\nrole:slave\r\nmaster_link_status:down\r\n\
         master_sync_in_progress:1\r\nmaster_link_down_since_seconds:3\r\nmaster_last_io_seconds_ago:2\r\nslave_repl_offset:70\r\n\
         db0:keys=5,expires=0,avg_ttl=0\r\ndb1:keys=6,expires=0\r\n",
        "loading:1\r\nloading_loaded_bytes:5\r\nloading_total_bytes:9\r\nloading_eta_seconds:3\r\n",
        "rdb_changes_since_last_save:5\r\nrdb_bgsave_in_progress:1\r\nrdb_last_save_time:1700000000\r\n\
         rdb_current_bgsave_time_sec:4\r\ncurrent_save_keys_processed:5\r\ncurrent_save_keys_total:9\r\n\
         aof_enabled:1\r\naof_base_size:0\r\naof_buffer_length:3\r\naof_pending_bio_fsync:1\r\nrdb_saves:2\r\n",
        "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:6\r\n",
    ]));
    fuzz("info", &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let info = Info::parse(&text);
        let _ = (info.version(), info.keys(), info.used_memory(), info.replication(), info.uptime());
        assert!(info.run_id().len() <= text.len());
        if let Some(loading) = info.loading() {
            assert!(loading.percent() <= 100);
        }
        if let Some(saving) = info.persistence().saving {
            assert!(saving.percent() <= 100);
            for taken in [Duration::ZERO, Duration::from_secs(5), saving.elapsed, Duration::MAX] {
                let _ = saving.eta(taken);
            }
        }
        if let Err(error) = ClusterInfo::parse(&text) {
            assert!(error.to_string().len() < SENTENCE, "{error}");
        }
    });
}

#[test]
fn the_configuration_of_a_server() {
    let corpus = owned(&[
        "# a comment\nport 6379\ndir /data\nsave 900 1 300 10\nappendonly yes\ncluster-enabled yes\ninclude /etc/more.conf\n",
        "bind 10.0.0.1 ::1\nrequirepass \"with \\\"quotes\\\" and \\x41\\n\"\nmasterauth 'it\\'s'\nsave \"\"\nsave 60 10000\n",
        "slaveof 10.0.0.2 6379\nuser app on >secret ~* &* +@all\nappenddirname aof\nappendfilename \"a b.aof\"\n\
         cluster-config-file nodes.conf\ndbfilename dump.rdb\nrdb-version-check relaxed\nrepl-diskless-sync-delay 0\n",
        "/etc/valkey.conf --port 7000 --save --appendonly no - --dir 'a b'",
    ]);
    fuzz("configuration", &corpus, |bytes| {
        let words: Vec<OsString> =
            bytes.split(|byte| *byte == b' ').map(|word| OsString::from_vec(word.to_vec())).collect();
        let _ = Arguments::parse(&words);
        let Ok(found) = directives(bytes) else { return };
        let mut config = ServerConfig::default();
        for one in &found {
            let _ = one.include();
            config.push(one.clone());
            let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let [value] = one.values.as_slice() else { continue };
            if !one.name.is_empty() && is_plain(&one.name) {
                assert_eq!(directives(directive(&one.name, value).as_bytes()).unwrap(), std::slice::from_ref(one));
            }
        }
        let paths = [
            config.dir(),
            config.rdb(),
            config.old_aof(),
            config.aof_dir(),
            config.aof_manifest(),
            config.nodes_conf(),
        ];
        assert!(paths.iter().all(|path| path.as_os_str().len() <= 2 * bytes.len() + SENTENCE));
        assert!(config.save_points().len() <= bytes.len() + 3);
        let _ = (config.port(), config.appendonly(), config.cluster_enabled(), config.reads_any_rdb());
    });
}

#[test]
fn names_and_marks() {
    let corpus = owned(&[
        "valkey-headless.prod.svc.cluster.local/valkey-0",
        "valkey-headless.prod.svc.cluster.local/valkey-0/15000-0-10-5",
        "valkey-headless.prod.svc.cluster.local/valkey-0//eu-1a/node-7",
        "a.b/valkey-12/500-2147483647-10-0/z/h",
        "9a5e00112114a2d9855d2f4679c566f51a977cd0",
        "9.1.2-rc1",
        "Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=384b3c0d511f998a\n",
    ]);
    fuzz("names", &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Some(mark) = Mark::parse(&text) {
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }
        if let Some(id) = ClusterId::new(&text) {
            assert_eq!(ClusterId::new(id.as_str()), Some(id));
        }
        if let Some(pod) = PodName::new(&text) {
            let _ = pod.ordinal();
            assert_eq!(PodName::new(pod.as_str()), Some(pod));
        }
        if let Some(id) = NodeId::parse(&text) {
            assert_eq!(NodeId::parse(&id.to_string()), Some(id));
        }
        if let Some(version) = Version::parse(&text) {
            assert_eq!(Version::parse(&version.to_string()), Some(version));
        }
        let _ = (SiteName::new(&text), Version::announced(&text));
    });
}

#[test]
fn files_beside_the_data() {
    let rdb: Vec<u8> = [
        &b"REDIS0011\xfa\x09redis-ver\x058.0.2\xfa\x05ctime\xc2\x01\x02\x03\x04\xfa\x08used-mem\xc1\x10\x00\xff"[..],
        b"\0\0\0\0\0\0\0\0",
    ]
    .concat();
    let report = r#"{"outcome":"clean","grace_ms":30000,"used_ms":120,"phases":[{"phase":"saving","from_ms":0,"took_ms":7}],
        "handover":{"heir":"valkey-1","took_ms":50,"attempts":1},
        "save":{"outcome":"saved","keys":5,"took_ms":9,"writes_paused":false}}"#;
    let aof = "file appendonly.aof.1.base.rdb seq 1 type b\nfile \"append only.aof.1.incr.aof\" seq 1 type i\n# end\n";
    let mut corpus = owned(&[report, aof]);
    corpus.extend([rdb, b"VALKEY080\xfa\x40\x05ctime\xc0\x07\xfe\x00".to_vec()]);
    fuzz("files", &corpus, |bytes| {
        if let Some(head) = RdbHead::read(bytes) {
            let format = head.format.to_string();
            let again = RdbHead::read(format.as_bytes()).map(|head| head.format);
            assert!(format.len() != 9 || again == Some(head.format), "{format}");
        }
        match manifest(bytes) {
            Ok(files) => assert!(files.iter().map(|file| file.name.len() + 1).sum::<usize>() <= bytes.len() + 1),
            Err(error) => assert!(error.to_string().len() < SENTENCE, "{error}"),
        }
        if let Ok(report) = serde_json::from_slice::<DrainReport>(bytes) {
            let printed = serde_json::to_vec(&report).unwrap();
            assert_eq!(serde_json::from_slice::<DrainReport>(&printed).unwrap(), report);
        }
    });
}

#[test]
fn users_of_a_server() {
    let hash = |name: char| PasswordHash::of_digest(&[name as u8; 32]);
    let known = |text: &str| hash(text.chars().next().unwrap_or('-'));
    let digits = hash('1').as_str().to_owned();
    let corpus = owned(&[
        &format!("user default off\nuser app on >1 #{digits} ~* &* +@all\nuser other on nopass\n"),
        &format!("user app on resetpass !{digits} <2 >3 (+get ~a:*) -debug resetchannels\r\n\n"),
        "user app on >1 >2 >3\nuser app reset",
    ]);
    let (mine, accepted, retired) = (hash('3'), [hash('3'), hash('2')], [hash('1')]);
    let wanted = Wanted { mine: &mine, accepted: &accepted, retired: &retired };
    fuzz("users", &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = accepts(text.split(' '), known);
        if let Some(changed) = with_passwords(&text, "app", &wanted, known) {
            assert_eq!(with_passwords(&changed, "app", &wanted, known), None, "{changed}");
            assert!(changed.lines().count() == text.lines().count() && changed.len() > text.len(), "{changed}");
        }
    });
}

/// Their keys are made anew each time, so that a finding is played again by its bytes and not by its number.
#[test]
fn certificates_and_keys() {
    const BETWEEN: &[u8] = b"\n=\n";
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let files = Files { ca: Some(file("ca.crt")), pair: Some(Pair { cert: file("tls.crt"), key: file("tls.key") }) };
    let authority = Authority::new("an authority");
    let issued = authority.issue(&["valkey-0.valkey"]);
    let parts = [authority.certificate(), &issued.certificate, &issued.key].map(str::as_bytes);
    fuzz("certificates", &[parts.join(BETWEEN)], |bytes| {
        let mut parts =
            bytes.windows(BETWEEN.len()).enumerate().filter(|(_, window)| *window == BETWEEN).map(|(at, _)| at);
        let (first, second) = (parts.next().unwrap_or(bytes.len()), parts.next().unwrap_or(bytes.len()));
        let from = |at: usize| (at + BETWEEN.len()).min(bytes.len());
        fs::write(file("ca.crt"), &bytes[..first]).unwrap();
        fs::write(file("tls.crt"), &bytes[from(first).min(second)..second]).unwrap();
        fs::write(file("tls.key"), &bytes[from(second)..]).unwrap();
        if let Err(error) = tls::check(&files, &[Use::Server, Use::Client]) {
            assert!(format!("{error:#}").len() < SENTENCE, "{error:#}");
        }
        if let Ok(tls) = Tls::new(files.clone(), Names::PodsOf(vec!["valkey".to_owned()]), false) {
            let _ = tls.expires().map(tls::left);
            for pod in [PodName::new("valkey-0"), None] {
                if let Err(error) = tls.check_server(&files, pod.as_ref(), None) {
                    assert!(format!("{error:#}").len() < SENTENCE + bytes.len(), "{error:#}");
                }
            }
        }
    });
}
