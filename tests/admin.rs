//! The probes over HTTP: what is answered, to whom, and what nobody can do to it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::redis::cmd;
use testbed::{Crowd, Ended, Subnet, Testbed, Valkey, wait_for};
use tokio::sync::{oneshot, watch};
use valkeeper::admin::{Admin, Exposition, Health};
use valkeeper::command::probe::{OwnHealth, Told};
use valkeeper::config::Credentials;
use valkeeper::topology::probe::{Life, Probe, Reconciliation, Verdict};
use valkeeper::valkey::Server;

const LIMIT: Duration = Duration::from_secs(30);
/// The second that a server has, and what a busy machine needs.
const SOON: Duration = Duration::from_secs(6);
/// For servers that answer: on a busy machine that may take a while.
const PATIENT: Duration = Duration::from_secs(20);

/// A place that answers in a thread of its own, until the value is dropped.
struct Serving {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    fn of<H: Health>(at: SocketAddr, health: impl FnOnce() -> H + Send + 'static) -> Self {
        let (told, tell) = (mpsc::channel(), oneshot::channel());
        let (sender, stopped) = (told.0, tell.1);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let admin = Admin::bind(at).await.unwrap();
                sender.send(admin.address()).unwrap();
                tokio::select! {
                    never = admin.serve(health()) => never,
                    _ = stopped => {}
                }
            });
        });
        Self { address: told.1.recv_timeout(LIMIT).unwrap(), stop: Some(tell.0), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, SOON).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Sends this, and reads until the other side is done.
    fn send(&self, request: &str) -> String {
        let mut stream = self.connect();
        // One that is turned away may be so before it has said what it wants.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    /// The status and the JSON of an answer.
    fn get(&self, path: &str) -> (u16, Value) {
        parsed(&self.send(&request("GET", path)))
    }

    /// A readiness probe's verdict.
    fn is_ready(&self) -> bool {
        let (status, body) = self.get("/readyz");
        assert_eq!(body["pass"], status == 200, "{body}");
        status == 200
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "serving ended in a panic");
    }
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: pod\r\n\r\n")
}

fn parsed(answer: &str) -> (u16, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(length.parse(), Ok(body.len()), "{answer}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// Answers at once, hangs or breaks, each by what is asked.
struct Odd;

impl Health for Odd {
    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn ask(&self, probe: Probe) -> Verdict {
        match probe {
            Probe::Liveness => Verdict::pass("fine"),
            Probe::Readiness => std::future::pending().await,
            Probe::Startup => panic!("on purpose"),
        }
    }

    fn reconciliation(&self) -> Option<Reconciliation> {
        None
    }
}

fn odd(subnet: &Subnet) -> Serving {
    Serving::of(SocketAddr::new(subnet.host(1).into(), 0), || Odd)
}

/// The health of a pod's server, which has so long to answer, and the sender of its life.
fn own(bed: &Testbed, patience: Duration) -> (Serving, watch::Sender<Life>) {
    let (sender, life) = watch::channel(Life::Running);
    let told = Told { life, reconciliation: watch::channel(None).1 };
    let server =
        Server::at(SocketAddr::new(bed.pod(0).addr().into(), bed.pod(0).port()), Credentials::default(), false);
    let at = SocketAddr::new(bed.spare_addr().into(), 0);
    (Serving::of(at, move || OwnHealth::with_patience(patience, told, server, false, None)), sender)
}

fn alone(valkey: &Valkey, pods: u8) -> Testbed {
    let builder = Testbed::builder(valkey).binary(env!("CARGO_BIN_EXE_valkeeper")).pods(pods);
    builder.config("cluster-enabled", "no").config("repl-diskless-sync-delay", "0").build().unwrap()
}

fn number(bed: &Testbed, pod: usize, field: &str) -> u64 {
    let info: String = cmd("INFO").query(&mut bed.connection(pod).unwrap()).unwrap();
    let value = info.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap();
    value.trim().parse().unwrap()
}

/// Has the thread to itself for a moment when it is asked for metrics, as a busy process has.
struct Busy(mpsc::Sender<()>);

impl Health for Busy {
    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn ask(&self, _: Probe) -> Verdict {
        Verdict::pass("fine")
    }

    fn reconciliation(&self) -> Option<Reconciliation> {
        None
    }

    fn metrics(&self) -> Exposition {
        self.0.send(()).unwrap();
        thread::sleep(Duration::from_secs(1));
        Exposition::default()
    }
}

#[test]
fn a_probe_that_has_said_what_it_wants_is_answered_though_hundreds_come_after_it_at_once() {
    let subnet = Subnet::lease();
    let (sender, busy) = mpsc::channel();
    let serving = Serving::of(SocketAddr::new(subnet.host(1).into(), 0), || Busy(sender));
    let mut metrics = serving.connect();
    metrics.write_all(request("GET", "/metrics").as_bytes()).unwrap();
    busy.recv_timeout(LIMIT).unwrap();
    let mut probe = serving.connect();
    probe.write_all(request("GET", "/livez").as_bytes()).unwrap();
    let crowd: Vec<_> = (0..200).map(|_| serving.connect()).collect();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    assert_eq!(parsed(&answer).0, 200, "{answer}");
    drop(crowd);
}

#[test]
fn each_path_answers_with_its_verdict_and_what_is_no_path_names_those_that_are() {
    let subnet = Subnet::lease();
    let serving = odd(&subnet);
    let (status, body) = serving.get("/livez");
    assert_eq!((status, body), (200, serde_json::json!({"pass": true, "reason": "fine"})));
    assert_eq!(serving.get("/livez?verbose").0, 200);
    let (status, body) = serving.get("/");
    assert_eq!((status, body), (404, serde_json::json!({"paths": ["/startupz", "/livez", "/readyz", "/metrics"]})));
    let post = serving.send(&request("POST", "/livez"));
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD\r\n"), "{post}");
    let head = serving.send(&request("HEAD", "/livez"));
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(serving.send("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let started = Instant::now();
    assert_eq!(serving.get("/readyz").0, 503);
    assert!(started.elapsed() < SOON, "an answer that never comes took {:?}", started.elapsed());
}

#[test]
fn a_fault_in_one_answer_ends_no_other() {
    let subnet = Subnet::lease();
    let serving = odd(&subnet);
    let mut waiting = serving.connect();
    waiting.write_all(request("GET", "/readyz").as_bytes()).unwrap();
    assert_eq!(serving.send(&request("GET", "/startupz")), "");
    assert_eq!(serving.get("/livez").0, 200);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert_eq!(parsed(&answer).0, 503);
}

#[test]
fn clients_that_are_slow_or_silent_hold_nobody_up_and_are_gone_soon() {
    let subnet = Subnet::lease();
    let serving = odd(&subnet);
    let mut crowd: Vec<_> = (0..200).map(|_| serving.connect()).collect();
    for (number, slow) in crowd.iter_mut().enumerate().filter(|(number, _)| number % 2 == 0) {
        // Those that have lost their place already may notice.
        let _ = slow.write_all(&b"GET /livez HTTP/1.1\r\nhost: "[..number % 20]);
    }
    for _ in 0..50 {
        assert_eq!(serving.get("/livez").0, 200);
    }
    let mut last = crowd.pop().unwrap();
    last.set_read_timeout(Some(LIMIT)).unwrap();
    let (started, mut rest) = (Instant::now(), Vec::new());
    let _ = last.read_to_end(&mut rest);
    assert!(started.elapsed() < Duration::from_secs(11), "it was waited for {:?}", started.elapsed());
}

#[test]
fn a_probe_is_answered_while_a_hundred_clients_are_slow_or_broken() {
    let subnet = Subnet::lease();
    let serving = odd(&subnet);
    let crowd = Crowd::around(serving.address, 100);
    // Longer than a head may take, so that those of the beginning are thrown out meanwhile.
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut answered = 0;
    while started.elapsed() < Duration::from_secs(7) {
        let asked = Instant::now();
        assert_eq!(serving.get("/livez").0, 200);
        slowest = slowest.max(asked.elapsed());
        answered += 1;
    }
    println!("{answered} probes beside {} clients, the slowest in {slowest:?}", crowd.connected());
    // The others have just been thrown out and are on their way back.
    assert!(crowd.connected() >= 50, "only {} clients are there", crowd.connected());
    // What is promised is for the bench; this is what a busy machine needs.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn no_request_is_read_for_longer_than_its_head_may_be() {
    let subnet = Subnet::lease();
    let serving = odd(&subnet);
    let long = "y".repeat(100_000);
    for (request, status) in [
        (format!("GET /livez HTTP/1.1\r\nhost: {long}\r\n\r\n"), "431"),
        (format!("GET /livez?{long} HTTP/1.1\r\nhost: pod\r\n\r\n"), "4"),
        (format!("GET /livez HTTP/1.1\r\nhost: pod\r\n{}\r\n", "a: b\r\n".repeat(2_000)), "431"),
        // What follows the head is not waited for.
        ("GET /livez HTTP/1.1\r\nhost: pod\r\ncontent-length: 999999999\r\n\r\nabc".to_owned(), "200"),
        ("GET /livez HTTP/1.1\r\nhost: pod\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), "200"),
    ] {
        let (started, answer) = (Instant::now(), serving.send(&request));
        let shown = &request[..request.len().min(80)];
        // The kernel takes an answer back whose client has sent more than was read.
        assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown}: {answer}");
        assert!(answer.len() < 1_000 && started.elapsed() < SOON, "{shown}: {:?}", started.elapsed());
    }
    assert_eq!(serving.get("/livez").0, 200);
}

#[test]
fn whoever_comes_when_all_places_are_being_answered_is_told_so() {
    let subnet = Subnet::lease();
    let serving = odd(&subnet);
    let ask = |_| {
        let mut stream = serving.connect();
        stream.write_all(request("GET", "/readyz").as_bytes()).unwrap();
        stream
    };
    let turned_away = wait_for("somebody to be turned away", LIMIT, || {
        let crowd: Vec<_> = (0..64).map(ask).collect();
        let answer = serving.send(&request("GET", "/livez"));
        drop(crowd);
        Ok(answer.starts_with("HTTP/1.1 503 ").then_some(answer))
    });
    let (_, body) = parsed(&turned_away.unwrap());
    assert_eq!(body["reason"], "too many requests at once");
    wait_for("a place", LIMIT, || {
        Ok(serving.send(&request("GET", "/livez")).starts_with("HTTP/1.1 200 ").then_some(()))
    })
    .unwrap();
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named_with_the_remedy() {
    let subnet = Subnet::lease();
    let serving = odd(&subnet);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failure = runtime.block_on(Admin::bind(serving.address)).unwrap_err().to_string();
    let address = serving.address.to_string();
    assert!(failure.contains(&address) && failure.contains("--listen") && failure.contains("in use"), "{failure}");
}

#[test]
fn the_supervisor_says_how_far_it_is_and_the_server_the_rest() {
    for valkey in Valkey::all() {
        let bed = alone(&valkey, 1);
        let (serving, life) = own(&bed, PATIENT);
        let statuses = || ["/startupz", "/livez", "/readyz"].map(|path| serving.get(path).0);
        assert_eq!(statuses(), [200, 200, 200]);
        life.send(Life::Guarding("valkey-1 to take over".to_owned())).unwrap();
        assert_eq!(statuses(), [503, 200, 503]);
        assert!(serving.get("/startupz").1["reason"].as_str().unwrap().contains("waiting for valkey-1 to take over"));
        life.send(Life::Draining).unwrap();
        assert_eq!(statuses(), [200, 200, 503]);
        bed.pod(0).kill().unwrap();
        assert_eq!(statuses(), [200, 200, 503]);
        life.send(Life::Ended).unwrap();
        assert_eq!(statuses(), [503, 200, 503]);
        life.send(Life::Running).unwrap();
        assert_eq!(statuses(), [503, 503, 503]);
        // The connection that was kept led to another life.
        bed.pod(0).start().unwrap();
        assert_eq!(statuses(), [200, 200, 200]);
        cmd("CLIENT").arg(["KILL", "TYPE", "normal"].as_slice()).exec(&mut bed.connection(0).unwrap()).unwrap();
        assert_eq!(serving.get("/livez").0, 200);
        assert_eq!(statuses(), [200, 200, 200]);
    }
}

#[test]
fn a_server_that_hangs_is_told_of_within_about_a_second_to_everybody_who_asks() {
    for valkey in Valkey::all() {
        let bed = alone(&valkey, 1);
        let (serving, _life) = own(&bed, PATIENT);
        assert!(serving.is_ready());
        let before = number(&bed, 0, "total_connections_received");
        ask_at_once(&serving, 200);
        // One is that of the question itself.
        assert!(number(&bed, 0, "total_connections_received") <= before + 1, "requests opened connections");
        let (hasty, _life) = own(&bed, Duration::from_secs(1));
        bed.pod(0).pause().unwrap();
        for _ in 0..2 {
            let started = Instant::now();
            ask_at_once(&hasty, 503);
            assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        }
        bed.pod(0).resume().unwrap();
        ask_at_once(&serving, 200);
    }
}

/// Thirty clients at once, each of which must be told this status.
fn ask_at_once(serving: &Serving, status: u16) {
    thread::scope(|scope| {
        for path in ["/startupz", "/livez", "/readyz"].repeat(10) {
            scope.spawn(move || {
                let (seen, body) = serving.get(path);
                assert_eq!(seen, status, "{path}: {body}");
            });
        }
    });
}

#[test]
fn once_ready_stays_ready_and_the_command_agrees() {
    for valkey in Valkey::all() {
        let bed = alone(&valkey, 2);
        let (serving, _life) = own(&bed, PATIENT);
        let by_command = |pod| {
            let mut probe = bed.valkeeper_in(pod, &["probe", "readiness", "--mode", "standalone", "--timeout", "20s"]);
            Ended::of(&mut probe, LIMIT).unwrap().code == Some(0)
        };
        let follow = || {
            let primary = bed.pod(1).addr().to_string();
            cmd("REPLICAOF").arg(primary).arg(6379).exec(&mut bed.connection(0).unwrap()).unwrap();
        };
        follow();
        bed.wait_for("the replica to be ready", LIMIT, || Ok(serving.is_ready().then_some(()))).unwrap();
        let note = bed.pod(0).dir().join("valkeeper-ready");
        assert!(fs::read_to_string(&note).is_ok_and(|noted| noted.trim_end().len() == 40));
        bed.pod(1).kill().unwrap();
        bed.wait_for("the link to be down", LIMIT, || {
            let info: String = cmd("INFO").arg("replication").query(&mut bed.connection(0)?)?;
            Ok(info.contains("master_link_status:down").then_some(()))
        })
        .unwrap();
        assert!(serving.is_ready() && by_command(0));
        fs::remove_file(&note).unwrap();
        assert!(serving.is_ready() && !by_command(0), "the one remembers, the other cannot");
        // Another life is not known to have been ready.
        bed.pod(0).restart_same_address().unwrap();
        follow();
        assert!(!serving.is_ready() && !by_command(0));
        bed.pod(1).start().unwrap();
        bed.wait_for("the replica to be ready", LIMIT, || Ok(by_command(0).then_some(()))).unwrap();
        bed.pod(1).kill().unwrap();
        assert!(serving.is_ready(), "what the command noted counts over HTTP");
    }
}
