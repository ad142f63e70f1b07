//! What the server is told on standard input, and who gets to know it.

use std::fs;
use std::time::Duration;

use testbed::redis::{Client, Connection, IntoConnectionInfo as _, RedisConnectionInfo, cmd};
use testbed::{Ended, Server, Testbed, Valkey};

use crate::tools::{LIMIT, ask, each, populate, setting, standalone, stop, supervised};

#[test]
fn the_server_announces_what_we_know_of_its_pod() {
    each(Valkey::all(), |valkey| {
        let bed = supervised(&valkey, &[]).build().unwrap();
        let is = |name| setting(&bed, 0, name);
        assert_eq!(is("cluster-announce-ip"), bed.pod(0).addr().to_string());
        assert_eq!(is("cluster-announce-hostname"), bed.host_name(0).trim_end_matches('.'));
        let service = bed.service().trim_end_matches('.');
        assert_eq!(is("cluster-announce-human-nodename"), format!("{service}/valkey-0"));
        let net = if valkey.version.starts_with("8.") { "default" } else { "failover" };
        assert_eq!(is("shutdown-on-sigterm"), net);
        assert_eq!(is("availability-zone"), "");
    });
}

#[test]
fn the_server_is_told_its_zone_and_a_label_that_is_not_there_is_none() {
    each(Valkey::all(), |valkey| {
        for zone in ["eu-1a", ""] {
            let bed = supervised(&valkey, &[]).start_servers(false).build().unwrap();
            bed.pod(0).set_run_env("VALKEEPER_ZONE", Some(zone));
            bed.pod(0).start().unwrap();
            assert_eq!(setting(&bed, 0, "availability-zone"), zone);
        }
    });
}

#[test]
fn what_the_configuration_says_of_the_pod_is_left_as_it_is() {
    const GIVEN: [(&str, &str); 4] = [
        ("cluster-announce-ip", "127.1.2.3"),
        ("cluster-announce-hostname", "mine.example"),
        ("cluster-announce-human-nodename", "mine"),
        ("shutdown-on-sigterm", "nosave"),
    ];
    each(Valkey::all(), |valkey| {
        let bed = GIVEN.iter().fold(supervised(&valkey, &[]), |bed, (name, value)| bed.config(name, value));
        let bed = bed.build().unwrap();
        for (name, value) in GIVEN {
            assert_eq!(setting(&bed, 0, name), value, "{name}");
        }
    });
}

fn logged_in(bed: &Testbed, pod: usize, user: Option<&str>, password: &str) -> anyhow::Result<Connection> {
    let settings = RedisConnectionInfo::default().set_skip_set_lib_name().set_password(password);
    let settings = match user {
        Some(user) => settings.set_username(user),
        None => settings,
    };
    let info = (bed.pod(pod).addr().to_string(), bed.pod(pod).port()).into_connection_info()?;
    Ok(Client::open(info.set_redis_settings(settings))?.get_connection_with_timeout(LIMIT)?)
}

/// Two pods that log in as told form a shard, whose replica gets a key.
#[track_caller]
fn replicates(bed: &Testbed, user: Option<&str>, password: &str) {
    let args = ["bootstrap", "--shards", "1", "--replicas", "1"];
    let as_user: Vec<&str> = user.iter().flat_map(|user| ["--username", user]).collect();
    let mut bootstrap = bed.valkeeper(&[&args[..], &as_user].concat());
    Ended::of(bootstrap.env("VALKEY_PASSWORD", password), LIMIT).unwrap().expect(0, &[]);
    cmd("SET").arg("key").arg("value").exec(&mut logged_in(bed, 0, user, password).unwrap()).unwrap();
    bed.wait_for("the replica to hold the key", LIMIT, || {
        let keys: u64 = cmd("DBSIZE").query(&mut logged_in(bed, 1, user, password)?)?;
        Ok((keys == 1).then_some(()))
    })
    .unwrap();
}

#[track_caller]
fn nobody_else_knows(bed: &Testbed, secret: &str) {
    // The part that no quoting changes.
    let core = secret.split(['"', '\\', '\'', ' ']).max_by_key(|part| part.len()).unwrap();
    for pod in bed.pods() {
        let (run, server) = (pod.pid().unwrap(), pod.server_pid().unwrap());
        for file in [format!("{run}/cmdline"), format!("{server}/cmdline"), format!("{server}/environ")] {
            let text = fs::read(format!("/proc/{file}")).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(!text.contains(core), "/proc/{file} shows the password: {text}");
        }
        let text = pod.run_log();
        assert!(text.contains("TRACE") && !text.contains(core), "the log shows the password:\n{text}");
        assert!(!pod.log_tail().contains(core), "the server's log shows the password");
    }
}

#[test]
fn any_password_reaches_the_server_and_nobody_else() {
    const PASSWORDS: [&str; 3] =
        [r#"with "double" and 'single' quotes"#, r"back\slashes\n and \x41 spaces ", "пароль #{}$ 🔑 ünïcödé"];
    let cases = Valkey::all().into_iter().cycle().zip(PASSWORDS.into_iter().zip([false, true, true]));
    each(cases.take(PASSWORDS.len()), |(valkey, (password, by_file))| {
        let bed = supervised(&valkey, &[]).pods(2).start_servers(false).build().unwrap();
        let file = bed.dir().join("password");
        fs::write(&file, format!("{password}\n")).unwrap();
        for pod in bed.pods() {
            let trace = ["--log-level", "trace"];
            match by_file {
                true => pod.set_run_args(&[&trace[..], &["--password-file", file.to_str().unwrap()]].concat()),
                false => {
                    pod.set_run_args(&trace);
                    pod.set_run_env("VALKEY_PASSWORD", Some(password));
                }
            }
            pod.start().unwrap();
        }
        assert!(cmd("PING").exec(&mut bed.connection(0).unwrap()).is_err(), "a password is asked for");
        replicates(&bed, None, password);
        nobody_else_knows(&bed, password);
        stop(&bed, 0).expect(0, &["drained: {"]);
    });
}

#[test]
fn an_acl_user_is_used_for_replication_too() {
    each(Valkey::all(), |valkey| {
        let bed = supervised(&valkey, &["--username", "app"])
            .pods(2)
            .config("user", "default off")
            .config("user", "app on >secret ~* &* +@all")
            .start_servers(false)
            .build()
            .unwrap();
        for pod in bed.pods() {
            pod.set_run_env("VALKEY_PASSWORD", Some("secret"));
            pod.start().unwrap();
        }
        replicates(&bed, Some("app"), "secret");
        stop(&bed, 0).expect(0, &["drained: {"]);
    });
}

/// `run` with a command of the test's own, in pod 0, until a key is saved by a drain.
fn run_own(bed: &Testbed, args: &[&str], port: u16) -> Ended {
    let mut run = bed.valkeeper_in(0, &[&["run", "--mode", "standalone"], args].concat());
    run.env("VALKEY_PASSWORD", "secret");
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| Ended::of(&mut run, LIMIT).unwrap());
        let info = (bed.pod(0).addr().to_string(), port).into_connection_info().unwrap();
        let info = info.set_redis_settings(RedisConnectionInfo::default().set_password("secret"));
        let client = Client::open(info).unwrap();
        let pid: u32 = bed
            .wait_for("the server to take a key", LIMIT, || {
                if ended.is_finished() {
                    return Ok(Some(0));
                }
                let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
                cmd("SET").arg("key").arg("value").exec(&mut connection)?;
                let info: String = cmd("INFO").arg("server").query(&mut connection)?;
                Ok(info.lines().find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok()))
            })
            .unwrap();
        if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
            assert!(std::process::Command::new("kill").arg(parent).status().unwrap().success());
        }
        ended.join().unwrap()
    })
}

#[test]
fn port_and_directory_are_the_server_s_where_its_configuration_names_none() {
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &[]).start_servers(false).build().unwrap();
        let (addr, server) = (bed.pod(0).addr().to_string(), valkey.server.display().to_string());
        let data = bed.dir().join("of our own");
        fs::create_dir(&data).unwrap();
        let data = data.to_str().unwrap();
        let options = ["--port", "7001", "--data-dir", data, "--", &server, "--bind", &addr, "--save", ""];
        run_own(&bed, &options, 7001).expect(0, &["drained: {"]);
        assert!(fs::exists(format!("{data}/dump.rdb")).unwrap(), "nothing is in {data}");
    });
}

#[test]
fn what_an_included_file_says_counts() {
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &[]).start_servers(false).build().unwrap();
        let (addr, server) = (bed.pod(0).addr(), valkey.server.display().to_string());
        let dir = bed.dir().display();
        let [main, more] = ["main.conf", "more.conf"].map(|name| bed.dir().join(name).display().to_string());
        fs::write(&main, format!("bind {addr}\ninclude {more}\nsave \"\"\n")).unwrap();
        fs::write(&more, format!("port 7002\ndir {dir}\nrequirepass secret\n")).unwrap();
        run_own(&bed, &["--", &server, &main], 7002).expect(0, &["drained: {"]);
        assert!(bed.dir().join("dump.rdb").exists());
    });
}

#[test]
fn a_script_that_becomes_the_server_is_warned_about_gets_our_password_and_is_drained() {
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &[]).start_servers(false).build().unwrap();
        let (addr, dir) = (bed.pod(0).addr(), bed.dir().display());
        let script = format!(
            "exec {} --bind {addr} --dir {dir} --save '' --requirepass \"$VALKEY_PASSWORD\"",
            valkey.server.display()
        );
        run_own(&bed, &["--", "sh", "-c", &script], 6379)
            .expect(0, &["the command is not valkey-server itself", "drained: {"]);
        assert!(bed.dir().join("dump.rdb").exists());
    });
}

#[test]
fn a_server_that_is_to_read_standard_input_is_refused() {
    let bed = standalone(&Valkey::newest(), &[]).start_servers(false).build().unwrap();
    let server = bed.valkey().server.display().to_string();
    let ended = Ended::of(&mut bed.valkeeper_in(0, &["run", "--", &server, "-"]), LIMIT).unwrap();
    ended.expect(64, &["name a file instead of -"]);
}

#[test]
fn a_password_in_the_configuration_is_not_replaced_by_ours() {
    let bed = standalone(&Valkey::newest(), &[]).config("requirepass", "theirs").start_servers(false).build().unwrap();
    bed.pod(0).set_run_env("VALKEY_PASSWORD", Some("ours"));
    bed.pod(0).start().unwrap();
    populate(&bed, 0, 10, "key");
    assert_eq!(ask::<String>(&bed, 0, &["PING"]), "PONG");
}

/// Servers before 9.0 leave such a file behind when they end before a shard's members have heard of each other.
#[test]
fn a_shard_with_two_ids_in_nodes_conf_does_not_keep_a_server_down() {
    each(Valkey::all(), |valkey| {
        let bed = supervised(&valkey, &[]).pods(2).build().unwrap();
        bed.form(1, 1).unwrap();
        bed.pods().iter().rev().for_each(|pod| assert!(!pod.kill().unwrap().success()));
        for pod in bed.pods() {
            let text = fs::read_to_string(pod.nodes_conf()).unwrap();
            let lines = text.lines().map(|line| match line.split_once("shard-id=") {
                Some((before, after)) if line.contains("slave") => {
                    format!("{before}shard-id={}{}\n", "0".repeat(40), &after[40..])
                }
                _ => format!("{line}\n"),
            });
            let torn: String = lines.collect();
            assert!(torn.contains("shard-id=0000"), "{text}");
            fs::write(pod.nodes_conf(), torn).unwrap();
            if valkey.version.starts_with("8.") {
                let mut bare = Server::start(pod.options()).unwrap();
                bare.wait_ready(LIMIT).unwrap_err();
                assert!(fs::read_to_string(pod.options().log()).unwrap().contains("corrupted cluster config"));
            }
        }
        bed.pods().iter().try_for_each(testbed::Pod::spawn).unwrap();
        bed.wait_in_sync(LIMIT).unwrap();
        for pod in bed.pods() {
            assert!(pod.run_log().contains("had another shard id than the primary"), "{}", pod.run_log());
        }
    });
}
