//! The reader of the server's configuration: what real servers make of it, and any bytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use testbed::redis::{Cmd, cmd};
use testbed::{Server, ServerOptions, Subnet, Valkey};
use valkeeper::datadir::read_config;
use valkeeper::topology::parse::{Arguments, ServerConfig, directive, directives};

fn config(text: impl AsRef<[u8]>) -> ServerConfig {
    let mut config = ServerConfig::default();
    directives(text.as_ref()).unwrap().into_iter().for_each(|directive| config.push(directive));
    config
}

fn options(arguments: &[&str]) -> ServerConfig {
    read_config(&Arguments::parse(arguments), b"").unwrap()
}

fn saves(config: &ServerConfig) -> Vec<(u64, u64)> {
    config.save_points().iter().map(|point| (point.after.as_secs(), point.changes)).collect()
}

#[test]
fn where_nothing_is_said_the_servers_defaults_count() {
    let config = config("# port 1\n\n   \nsyslog-ident x");
    assert_eq!(config.port(), 6379);
    assert_eq!(config.dir(), Path::new("./"));
    assert_eq!(config.rdb(), Path::new("./dump.rdb"));
    assert_eq!(config.nodes_conf(), Path::new("./nodes.conf"));
    assert_eq!(config.old_aof(), Path::new("./appendonly.aof"));
    assert_eq!(config.aof_manifest(), Path::new("./appendonlydir/appendonly.aof.manifest"));
    assert!(!config.appendonly() && !config.cluster_enabled() && !config.reads_any_rdb());
    assert_eq!(saves(&config), [(3600, 1), (300, 100), (60, 10_000)]);
}

#[test]
fn what_is_said_last_counts() {
    let config = config("port 1\nPORT 2\ndir /data\ndir sub\ndbfilename a.rdb\nAppendOnly YES\nappendfilename 'x y'");
    assert_eq!(config.port(), 2);
    assert_eq!(config.rdb(), Path::new("/data/sub/a.rdb"), "the server goes to each directory as it reads");
    assert!(config.appendonly());
    assert_eq!(config.aof_manifest(), Path::new("/data/sub/appendonlydir/x y.manifest"));
}

#[test]
fn save_points_add_up_and_an_empty_one_begins_anew() {
    for (text, points) in [
        ("save 10 1\nsave 20 2", vec![(10, 1), (20, 2)]),
        ("save 10 1 20 2", vec![(10, 1), (20, 2)]),
        ("save 10 1\nsave \"\"\nsave 20 2", vec![(20, 2)]),
        ("save ''", vec![]),
    ] {
        assert_eq!(saves(&config(text)), points, "{text}");
    }
    assert_eq!(config("save 10 1").save_points()[0].after, Duration::from_secs(10));
}

#[test]
fn old_and_new_names_of_a_directive_are_one() {
    let config = config("masterauth a\nmin-slaves-to-write 1\nslaveof no one\ncluster-slave-no-failover yes");
    for name in ["masterauth", "primaryauth", "min-replicas-to-write", "replicaof", "CLUSTER-REPLICA-NO-FAILOVER"] {
        assert!(config.is_given(name), "{name}");
    }
    assert!(!config.is_given("primaryuser") && !config.is_given("masteruser"));
    assert_eq!(config.text("primaryauth"), Some("a"));
}

#[test]
fn words_are_quoted_as_the_server_does() {
    let config = config(r#"user a "b\x20\"\n\r\t\b\a\q" 'c\'d \x41' e"f g""#);
    let values: Vec<&[u8]> = config.values("user").unwrap().iter().map(Vec::as_slice).collect();
    assert_eq!(values, [b"a".as_slice(), b"b \"\n\r\t\x08\x07q", b"c'd \\x41", b"ef g"]);
}

#[test]
fn a_line_that_the_server_refuses_is_named_and_not_shown() {
    for line in ["requirepass \"hunter2", "requirepass 'hunter2", "requirepass \"hunter2\"x"] {
        let error = directives(format!("port 1\n{line}\n").as_bytes()).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn the_command_line_is_read_as_the_server_does() {
    let read = |arguments: &[&str]| {
        let found = Arguments::parse(arguments);
        (found.file, found.stdin, String::from_utf8(found.options).unwrap())
    };
    let file = Some(PathBuf::from("a.conf"));
    assert_eq!(read(&[]), (None, false, String::new()));
    assert_eq!(read(&["a.conf"]), (file.clone(), false, String::new()));
    assert_eq!(read(&["-"]), (None, true, String::new()));
    assert_eq!(read(&["a.conf", "--port", "1", "-"]), (file.clone(), true, "port \"1\" ".to_owned()));
    assert_eq!(read(&["-", "--port", "1"]), (None, true, "port \"1\" ".to_owned()));
    let config = options(&["--port", "7", "--save", "--client-output-buffer-limit", "normal", "0", "--dir", "--odd"]);
    assert_eq!((config.port(), saves(&config)), (7, vec![]));
    assert_eq!(config.values("client-output-buffer-limit").unwrap().len(), 2);
    assert_eq!(config.dir(), Path::new("./--odd"), "an option has one value at least");
    assert_eq!(options(&["--port 8", "--appendonly", "yes"]).port(), 8);
    assert_eq!(saves(&options(&["--save", "5", "6", "--save", ""])), []);
}

#[test]
fn includes_are_read_in_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("b.conf"), "port 3\ndbfilename b.rdb").unwrap();
    std::fs::write(path("a.conf"), "port 2").unwrap();
    std::fs::write(path("main"), format!("port 1\ndir {}\ninclude *.conf\ntimeout 9", dir.path().display())).unwrap();
    let main = path("main");
    let arguments = Arguments::parse(&[main.to_str().unwrap(), "--timeout", "1"]);
    let config = read_config(&arguments, b"port 4\ntimeout 5").unwrap();
    assert_eq!((config.port(), config.text("timeout")), (4, Some("1")));
    assert_eq!(config.rdb(), path("b.rdb"));

    std::fs::write(&main, format!("include {}", main.display())).unwrap();
    let error = read_config(&arguments, b"").unwrap_err().to_string();
    assert!(error.contains("levels deep"), "{error}");
    std::fs::write(&main, "include /no/such/file").unwrap();
    let error = read_config(&arguments, b"").unwrap_err().to_string();
    assert!(error.contains("/no/such/file"), "{error}");
    std::fs::write(&main, "port 1\nport \"").unwrap();
    let error = read_config(&arguments, b"").unwrap_err().to_string();
    assert!(error.contains("main") && error.contains("line 2"), "{error}");
}

/// What is read here, and what a server makes of the same text.
#[test]
fn every_server_reads_the_same() {
    const PASSWORD: &[u8] = b"a\" 'b\\x41\t\xff#";
    for valkey in Valkey::all() {
        let subnet = Subnet::lease();
        let folder = tempfile::tempdir().unwrap();
        let (data, included) = (folder.path().join("a b"), folder.path().join("more.conf"));
        std::fs::create_dir_all(data.join("sub")).unwrap();
        std::fs::write(&included, "timeout 7\nsave 30 3\nTCP-keepalive \"\\x31\\x32\"\n").unwrap();
        let more = [
            ("dir", "sub".to_owned()),
            ("timeout", "3".to_owned()),
            ("save", "10 1 20 2".to_owned()),
            ("include", included.display().to_string()),
            ("min-slaves-to-write", "2".to_owned()),
            ("dbfilename", "'it\\'s.rdb'".to_owned()),
        ];
        let quoted = directive("dir", data.to_str().unwrap());
        let mut config_lines = vec![("dir".to_owned(), quoted.split_once(' ').unwrap().1.to_owned())];
        config_lines.extend(more.map(|(name, value)| (name.to_owned(), value)));
        let secret = directive("requirepass", PASSWORD);
        config_lines.push(("requirepass".to_owned(), secret.split_once(' ').unwrap().1.to_owned()));
        let options = ServerOptions {
            valkey: valkey.clone(),
            addr: subnet.host(1).into(),
            port: 6379,
            dir: folder.path().join("home"),
            config: config_lines,
        };
        // The test bed's own `save ""` gives way to ours.
        let text = options.config_text();
        let mut server = Server::start(options.clone()).unwrap();
        server.wait_ready(Duration::from_secs(30)).unwrap();
        let client = testbed::redis::Client::open(format!("redis://{}/", subnet.host(1))).unwrap();
        let mut connection = client.get_connection().unwrap();
        cmd("AUTH").arg(PASSWORD).query::<()>(&mut connection).unwrap();
        let mut said = |name: &str| -> String {
            let (_, value): (String, String) =
                Cmd::new().arg("CONFIG").arg("GET").arg(name).query(&mut connection).unwrap();
            value
        };
        let config = read_config(&Arguments::parse(&["-"]), text.as_bytes()).unwrap();
        let version = &valkey.version;
        for name in ["timeout", "tcp-keepalive", "dbfilename", "min-replicas-to-write", "port"] {
            assert_eq!(config.text(name).map(str::to_owned), Some(said(name)), "{version}: {name}");
        }
        assert_eq!(config.dir(), Path::new(&said("dir")), "{version}");
        let points: Vec<_> = saves(&config).iter().map(|(after, changes)| format!("{after} {changes}")).collect();
        assert_eq!(points.join(" "), said("save"), "{version}");
        assert_eq!(config.values("requirepass").unwrap(), [PASSWORD], "{version}");
    }
}

proptest! {
    #[test]
    fn whatever_is_quoted_reads_back_as_it_was(value in proptest::collection::vec(any::<u8>(), 0..60)) {
        let line = directive("requirepass", &value);
        prop_assert!(line.is_ascii() && !line.contains(['\n', '\r', '\0']));
        let found = directives(format!("port 1\n{line}\nport 2").as_bytes()).unwrap();
        prop_assert_eq!(found.len(), 3);
        prop_assert_eq!(&found[1].values, &vec![value]);
    }

    #[test]
    fn whatever_is_given_as_an_option_is_one_value(value in "[ -~\n\t]{0,40}") {
        prop_assume!(!value.starts_with("--"));
        let config = options(&["--port", "1", "--requirepass", &value, "--timeout", "2"]);
        prop_assert_eq!(config.values("requirepass").unwrap(), &[value.into_bytes()][..]);
        prop_assert_eq!(config.text("timeout"), Some("2"));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(found) = directives(&text) {
            let mut config = ServerConfig::default();
            found.into_iter().for_each(|directive| config.push(directive));
            let _ = (config.port(), config.save_points(), config.nodes_conf(), config.aof_manifest());
        }
    }
}
