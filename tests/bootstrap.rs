//! `valkeeper bootstrap` as people and Jobs run it, on real servers of every version.

use std::fs;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use testbed::redis::cmd;
use testbed::{Answer, Ended, Fault, Server, ServerOptions, Testbed, Valkey, wait_for};

const LIMIT: Duration = Duration::from_secs(90);

fn bed(valkey: &Valkey, pods: u8) -> Testbed {
    Testbed::builder(valkey).pods(pods).binary(env!("CARGO_BIN_EXE_valkeeper")).build().unwrap()
}

fn bootstrap(bed: &Testbed, args: &[&str]) -> Ended {
    let args: Vec<&str> = ["bootstrap"].into_iter().chain(args.iter().copied()).collect();
    Ended::of(&mut bed.valkeeper(&args), LIMIT).unwrap()
}

fn spawn(bed: &Testbed, args: &[&str]) -> Child {
    let mut command = bed.valkeeper(&["bootstrap"]);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn node_timeout(bed: &Testbed, pod: usize) -> String {
    let get = ["GET", "cluster-node-timeout"];
    let (_, value): (String, String) =
        cmd("CONFIG").arg(get.as_slice()).query(&mut bed.connection(pod).unwrap()).unwrap();
    value
}

/// Lets so much time go by; what happens meanwhile is what the test is about.
fn pass(time: Duration) {
    let _ = wait_for("nothing", time, || Ok(None::<()>));
}

/// One cluster that valkey-cli finds no fault with, and no setting left lowered.
fn assert_stands(bed: &Testbed) {
    bed.wait_for("valkey-cli to find nothing wrong", LIMIT, || bed.cli_check(0).map(Some)).unwrap();
    for pod in 0..bed.pods().len() {
        assert_eq!(node_timeout(bed, pod), "15000");
    }
}

#[test]
fn a_finished_cluster_is_left_alone_and_that_is_said() {
    for valkey in Valkey::all() {
        let bed = bed(&valkey, 6);
        bootstrap(&bed, &[])
            .expect(0, &["announce", "epochs", "meet", "slots", "replicate", "restore", "the cluster stands after"]);
        assert_stands(&bed);
        let again = bootstrap(&bed, &[]);
        again.expect(0, &["the cluster stands already; nothing was changed"]);
        assert!(again.stdout.contains("16384 of 16384 slots served"), "{again}");
    }
}

#[test]
fn one_run_sees_dns_answer_nothing_then_half_then_all() {
    for (pods, shards, replicas) in [(3, "3", "0"), (6, "3", "1"), (12, "4", "2")] {
        let bed = bed(&Valkey::newest(), pods);
        bed.dns().fault_all(Fault::Silent);
        let mut run = spawn(&bed, &["--shards", shards, "--replicas", replicas, "--timeout", "80s"]);
        let asked = bed.dns().queries_total();
        bed.wait_for("the run to ask in vain", LIMIT, || Ok((bed.dns().queries_total() > asked).then_some(())))
            .unwrap();
        for pod in pods / 2..pods {
            bed.dns().pod_gone(bed.pod(pod.into()).name());
        }
        bed.dns().heal_all();
        bed.dns().forget_queries();
        bed.wait_for("the run to ask again", LIMIT, || Ok((bed.dns().queries_total() > 0).then_some(()))).unwrap();
        for pod in pods / 2..pods {
            let pod = bed.pod(pod.into());
            bed.dns().pod_moved(pod.name(), pod.addr());
        }
        assert!(run.wait().unwrap().success(), "{pods} pods");
        assert_stands(&bed);
    }
}

#[test]
fn pods_that_come_late_and_move_meanwhile_are_waited_for() {
    for valkey in Valkey::all() {
        let bed = Testbed::builder(&valkey)
            .pods(6)
            .start_servers(false)
            .binary(env!("CARGO_BIN_EXE_valkeeper"))
            .build()
            .unwrap();
        let mut run = spawn(&bed, &["--timeout", "80s"]);
        for pod in [5, 1, 3, 0, 4] {
            bed.pod(pod).start().unwrap();
        }
        bed.pod(1).restart_at(bed.spare_addr()).unwrap();
        bed.pod(2).start().unwrap();
        bed.pod(3).restart_at(bed.spare_addr()).unwrap();
        assert!(run.wait().unwrap().success());
        assert_stands(&bed);
    }
}

#[test]
fn a_server_that_hangs_is_waited_for() {
    let bed = bed(&Valkey::newest(), 3);
    bed.pod(1).pause().unwrap();
    bootstrap(&bed, &["--replicas", "0", "--timeout", "3s"]).expect(69, &["valkey-1 (", "no answer in time"]);
    let mut run = spawn(&bed, &["--replicas", "0"]);
    bed.wait_for("the run to ask in vain", LIMIT, || Ok((bed.dns().queries_total() > 20).then_some(()))).unwrap();
    bed.pod(1).resume().unwrap();
    assert!(run.wait().unwrap().success());
    assert_stands(&bed);
}

#[test]
fn a_cluster_forms_over_ipv6_with_the_ports_that_srv_records_name() {
    let bed = Testbed::builder(&Valkey::newest())
        .pods(1)
        .start_servers(false)
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .build()
        .unwrap();
    bed.dns().auto(false);
    let (mut servers, mut records, mut ports) = (Vec::new(), Vec::new(), free_ports());
    for pod in 0..3 {
        let name = format!("valkey-{pod}.{}", bed.service());
        let port = ports.next().unwrap();
        let mut server = Server::start(ServerOptions {
            valkey: bed.valkey().clone(),
            addr: Ipv6Addr::LOCALHOST.into(),
            port,
            dir: bed.dir().join(format!("six-{pod}")),
            config: Vec::new(),
        })
        .unwrap();
        server.wait_ready(LIMIT).unwrap();
        bed.dns().set(&name, vec![Answer::Aaaa(Ipv6Addr::LOCALHOST)]);
        records.push(Answer::Srv(name, port));
        servers.push(server);
    }
    bed.dns().set(&format!("_valkey._tcp.{}", bed.service()), records);
    let ended = bootstrap(&bed, &["--replicas", "0"]);
    ended.expect(0, &["the cluster stands after"]);
    for server in &servers {
        assert!(ended.stdout.contains(&format!("[::1]:{}", server.options().port)), "{ended}");
    }
}

/// Ports that nobody listens on at the moment, whose bus port is free, too.
fn free_ports() -> impl Iterator<Item = u16> {
    let free = |port: u16| TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok();
    (20_000..40_000).step_by(7).filter(move |port| free(*port) && free(*port + 10_000))
}

#[test]
fn a_run_killed_at_any_moment_leaves_what_the_next_one_completes() {
    for valkey in Valkey::all() {
        let bed = bed(&valkey, 6);
        // Denser than the stages are long: announce to slots takes some 100 ms, the wait for ok some 500 ms.
        for moment in (1..=30).map(|step| Duration::from_millis(step * 23)) {
            let mut run = spawn(&bed, &[]);
            pass(moment);
            run.kill().unwrap();
            run.wait().unwrap();
        }
        bootstrap(&bed, &[]).expect(0, &["the cluster stands"]);
        assert_stands(&bed);
    }
}

#[test]
fn two_runs_at_once_do_no_harm_at_any_distance() {
    let valkey = Valkey::newest();
    for distance in [0, 10, 30, 90, 300] {
        let bed = bed(&valkey, 6);
        let runs = thread::scope(|scope| {
            let first = scope.spawn(|| bootstrap(&bed, &[]));
            pass(Duration::from_millis(distance));
            let second = scope.spawn(|| bootstrap(&bed, &[]));
            [first.join().unwrap(), second.join().unwrap()]
        });
        for run in runs {
            run.expect(0, &["the cluster stands"]);
        }
        assert_stands(&bed);
    }
}

#[test]
fn a_run_that_is_told_to_stop_puts_settings_back() {
    let bed = bed(&Valkey::newest(), 6);
    let mut run = spawn(&bed, &[]);
    bed.wait_for("a lowered timeout", LIMIT, || Ok((node_timeout(&bed, 0) == "500").then_some(()))).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&run), rustix::process::Signal::TERM).unwrap();
    let code = run.wait().unwrap().code();
    assert!(code == Some(75) || code == Some(0), "{code:?}");
    for pod in 0..6 {
        assert_eq!(node_timeout(&bed, pod), "15000");
    }
}

#[test]
fn a_node_that_somebody_opened_by_hand_gets_the_rest_of_its_settings_back() {
    let bed = bed(&Valkey::newest(), 3);
    bootstrap(&bed, &["--replicas", "0"]).expect(0, &[]);
    let mark = "valkey-headless.test.svc.cluster.local/valkey-1/15000-0-10-5";
    let set = ["SET", "cluster-announce-human-nodename", mark, "cluster-node-timeout", "500"];
    cmd("CONFIG").arg(set.as_slice()).query::<()>(&mut bed.connection(1).unwrap()).unwrap();
    bootstrap(&bed, &["--replicas", "0"]).expect(0, &["restore", "the cluster stands after"]);
    assert_stands(&bed);
}

#[test]
fn a_dry_run_says_what_comes_next_and_does_nothing() {
    let bed = bed(&Valkey::newest(), 6);
    let dry = bootstrap(&bed, &["--dry-run"]);
    dry.expect(0, &[]);
    assert!(
        dry.stdout.contains("the next stage would be announce") && dry.stdout.contains("valkey-5 is named"),
        "{dry}"
    );
    let name = ["GET", "cluster-announce-human-nodename"];
    let (_, name): (String, String) =
        cmd("CONFIG").arg(name.as_slice()).query(&mut bed.connection(0).unwrap()).unwrap();
    assert_eq!(name, "");
    bootstrap(&bed, &[]).expect(0, &[]);
    let dry = bootstrap(&bed, &["--dry-run"]);
    assert!(dry.stdout.contains("the cluster stands"), "{dry}");
    bootstrap(&bed, &["--dry-run", "--shards", "2", "--replicas", "2"]).expect(76, &["What to do"]);
}

#[test]
fn every_way_to_log_in_works_and_no_secret_is_shown() {
    for valkey in Valkey::all() {
        let acl = Testbed::builder(&valkey)
            .pods(3)
            .config("user", "default on >replication-secret ~* &* +@all")
            .config("user", "keeper on >keeper-secret ~* &* +@all")
            .config("requirepass", "replication-secret")
            .binary(env!("CARGO_BIN_EXE_valkeeper"))
            .build()
            .unwrap();
        let file = acl.dir().join("password");
        fs::write(&file, "keeper-secret\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        let file = file.display().to_string();
        let run = |args: &[&str], environment: &[(&str, &str)]| {
            let mut command = acl.valkeeper(&["bootstrap", "--replicas", "0", "--log-level", "trace"]);
            command.args(args).env_remove("VALKEY_PASSWORD").envs(environment.iter().copied());
            let ended = Ended::of(&mut command, LIMIT).unwrap();
            assert!(!ended.to_string().contains("-secret"), "{ended}");
            ended.expect(0, &["the cluster stands"]);
        };
        run(&["--username", "keeper", "--password-file", &file], &[]);
        run(&["--username", "keeper"], &[("VALKEY_PASSWORD_FILE", &file)]);
        run(&[], &[("VALKEEPER_USERNAME", "keeper"), ("VALKEEPER_PASSWORD_FILE", &file)]);
        run(&["--username", "keeper"], &[("VALKEY_PASSWORD", "keeper-secret")]);
        run(&[], &[("VALKEYCLI_AUTH", "replication-secret")]);
    }
}

#[test]
fn the_cluster_is_printed_as_json_too() {
    let bed = bed(&Valkey::newest(), 3);
    let ended = bootstrap(&bed, &["--replicas", "0", "-o", "json"]);
    ended.expect(0, &[]);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((json["state"].as_str(), json["slots_served"].as_u64()), (Some("ok"), Some(16_384)), "{ended}");
}
