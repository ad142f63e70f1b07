//! What comes over sockets: requests to us, and answers of name servers and of servers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::{Builder, Runtime};
use valkeeper::admin::{Admin, Exposition, Health};
use valkeeper::config::{Credentials, Reach, Service};
use valkeeper::discovery::Discovery;
use valkeeper::topology::probe::{Probe, Reconciliation, Verdict};
use valkeeper::valkey::{Candidate, Fleet, Server};

use crate::engine::fuzz;
use crate::{fixtures, owned};

const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const LIMIT: Duration = Duration::from_secs(20);
/// More than the longest answer has.
const ANSWER: usize = 4 << 10;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

struct Fine;

impl Health for Fine {
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
        let mut metrics = Exposition::default();
        metrics.flag("fine", "Always.", true);
        metrics
    }
}

/// Sends bytes and reads what comes, until the other side is done. With `last` nothing more is going to be sent: what is
/// not a whole request is not waited for, and one that is may be given up.
fn http(address: SocketAddr, request: &[u8], last: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    // Who is turned away early may be so in the middle of its words.
    let _ = stream.write_all(request);
    if last {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.take(1 << 20).read_to_end(&mut answer) {
        assert!(
            !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "it is neither answered nor closed"
        );
    }
    answer
}

#[test]
fn requests_over_http() {
    let corpus = owned(&[
        "GET /livez HTTP/1.1\r\nhost: pod\r\nuser-agent: kube-probe/1.33\r\naccept: */*\r\nconnection: close\r\n\r\n",
        "GET /metrics?a=b HTTP/1.1\r\nhost: pod\r\naccept-encoding: gzip\r\n\r\n",
        "HEAD /readyz HTTP/1.0\r\n\r\n",
        "POST /startupz HTTP/1.1\r\nhost: pod\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\nhello",
        "GET http://pod/livez HTTP/1.1\r\nhost: pod\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "CONNECT pod:80 HTTP/1.1\r\nhost: pod\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]);
    let (sender, address) = mpsc::channel();
    let serving = thread::spawn(move || {
        runtime().block_on(async {
            let admin = Admin::bind(ANYWHERE.into()).await.unwrap();
            sender.send(admin.address()).unwrap();
            admin.serve(Fine).await
        })
    });
    let address = address.recv().unwrap();
    let mut tried = 0_u64;
    fuzz("requests", &corpus, |bytes| {
        let answer = http(address, bytes, true);
        let shown = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || shown.starts_with("HTTP/1."), "{shown}");
        assert!(answer.len() < ANSWER, "{} bytes", answer.len());
        assert_eq!(
            shown.matches("HTTP/1.").count(),
            usize::from(!answer.is_empty()),
            "one answer a connection: {shown}"
        );
        tried += 1;
        if tried.is_multiple_of(64) {
            let answer = http(address, b"GET /livez HTTP/1.1\r\nhost: pod\r\n\r\n", false);
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
        }
    });
    assert!(!serving.is_finished(), "nobody listens any more");
}

/// An answer without its id, and without the question that it repeats after the first ten bytes.
fn dns_answer(records: &[(u16, &[u8])]) -> Vec<u8> {
    let mut answer = vec![0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
    for (kind, data) in records {
        // The name is a pointer to that of the question.
        answer.extend([0xc0, 0x0c]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 30]);
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(*data);
    }
    answer
}

#[test]
fn answers_of_name_servers() {
    const A: u16 = 1;
    const CNAME: u16 = 5;
    const SOA: u16 = 6;
    const TXT: u16 = 16;
    const AAAA: u16 = 28;
    const SRV: u16 = 33;
    let target =
        |label: &[u8]| [&[0, 0, 0, 0, 0x18, 0xeb, label.len() as u8][..], label, b"\x03svc\x04test\0"].concat();
    let (first, second) = (target(b"valkey-0"), target(b"valkey-1"));
    let corpus = [
        dns_answer(&[(A, &[127, 0, 0, 1]), (A, &[127, 0, 0, 2])]),
        dns_answer(&[(AAAA, &[0; 16])]),
        dns_answer(&[(SRV, &first), (SRV, &second)]),
        dns_answer(&[(CNAME, b"\x05other\xc0\x0c"), (A, &[10, 0, 0, 1])]),
        dns_answer(&[(TXT, b"\x03abc"), (SOA, b"\0\0\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01")]),
        // No such name; not served; cut off, ask over TCP.
        vec![0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0],
        vec![0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0],
        vec![0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0],
    ];
    fuzz("name servers", &corpus, |bytes| {
        // The clock stands while anything happens, and jumps over every wait: nobody waits for what is passed over.
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let socket = UdpSocket::bind(ANYWHERE).await.unwrap();
            let reach = Reach {
                service: Service::Names(vec!["svc.test".to_owned()]),
                statefulset: Some("valkey".to_owned()),
                port: 6379,
                dns_servers: vec![socket.local_addr().unwrap()],
                cluster: None,
                credentials: Credentials::default(),
            };
            let discovery = Discovery::new(&reach, 2).unwrap();
            let found = tokio::select! {
                found = tokio::time::timeout(Duration::from_secs(600), discovery.round()) => found.expect("an end"),
                never = answer_dns(&socket, bytes) => match never {},
            };
            // Each record has ten bytes at least, and every answer is the same.
            assert!(found.candidates.len() <= 2 * bytes.len(), "{} candidates", found.candidates.len());
            assert!(found.trouble.iter().all(|why| why.len() < 32 << 10), "{:?}", found.trouble);
        });
    });
}

/// Answers whatever is asked with these bytes.
async fn answer_dns(socket: &UdpSocket, bytes: &[u8]) -> std::convert::Infallible {
    const HEAD: usize = 12;
    let mut query = [0; 2_048];
    loop {
        let (length, from) = socket.recv_from(&mut query).await.unwrap();
        // The question is a name, which ends in an empty label, and four bytes more.
        let name = query[HEAD..length].iter().position(|byte| *byte == 0).unwrap_or(0);
        let question = &query[HEAD..HEAD + name + 5];
        let (head, records) = bytes.split_at(bytes.len().min(10));
        let answer = [&query[..2], head, question, records].concat();
        // What is too long for a datagram is lost.
        let _ = socket.send_to(&answer, from).await;
    }
}

/// Between the texts of an input that is to be put into the form of an answer.
const BETWEEN: u8 = 0x1e;
const SETTINGS: &str = "cluster-announce-human-nodename svc.test/valkey-0 cluster-node-timeout 15000 min-replicas-to-write 0 \
    min-replicas-max-lag 10 repl-diskless-sync-delay 5 cluster-replica-no-failover no stop-writes-on-bgsave-error yes dir /data";

/// Texts as a server sends them, and a map in the place of the settings.
fn framed(texts: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat();
    let framed = texts.split(|byte| *byte == BETWEEN).map(|part| match part.starts_with(b"cluster-announce") {
        true => {
            let words: Vec<&[u8]> = part.split(|byte| *byte == b' ').collect();
            let framed: Vec<u8> = words.iter().flat_map(|word| text(word)).collect();
            [format!("*{}\r\n", words.len()).as_bytes(), &framed].concat()
        }
        false => text(part),
    });
    framed.flatten().collect()
}

/// What real servers say when a fleet asks them, and when `run` asks its own.
fn reports() -> Vec<Vec<u8>> {
    let said = |state: &str, kind: &str| fixtures(&[&format!("{state}.{kind}")]);
    let of = |state: &str| {
        let (nodes, cluster, info) = (said(state, "nodes"), said(state, "cluster-info"), said(state, "info"));
        let (settings, between) = (SETTINGS.as_bytes().to_vec(), [BETWEEN]);
        let reports = nodes.into_iter().zip(cluster).zip(info).flat_map(|((nodes, cluster), info)| {
            [
                [&nodes, &cluster, &info, &settings].map(Vec::clone).join(&between[..]),
                [&info, &settings, &nodes, &cluster].map(Vec::clone).join(&between[..]),
            ]
        });
        reports.collect::<Vec<_>>()
    };
    ["formed", "replica", "troubled"].into_iter().flat_map(of).collect()
}

#[test]
fn answers_of_servers() {
    let mut corpus =
        owned(&["-NOAUTH Authentication required.\r\n", "-LOADING x\r\n", "+OK\r\n:7\r\n_\r\n", "*-1\r\n$-1\r\n"]);
    corpus.extend(reports().iter().map(|report| framed(report)));
    corpus.push([&corpus[4][..], b"*1\r\n*4\r\n$4\r\nname\r\n$1\r\nx\r\n$5\r\nstate\r\n$7\r\nsuccess\r\n"].concat());
    ask_servers("server answers", &corpus, <[u8]>::to_vec);
}

#[test]
fn what_servers_report() {
    ask_servers("server reports", &reports(), framed);
}

fn ask_servers(name: &'static str, corpus: &[Vec<u8>], answer: impl Fn(&[u8]) -> Vec<u8>) {
    let runtime = runtime();
    let listener = runtime.block_on(TcpListener::bind(ANYWHERE)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut understood = 0_u64;
    fuzz(name, corpus, |bytes| {
        let answer = answer(bytes);
        runtime.block_on(async {
            let asking = async {
                let own = Server::at(address, Credentials::default(), true).report().await;
                let peers = Fleet::new(Credentials::default()).observe(&[Candidate { pod: None, address }]).await;
                (own, peers)
            };
            let (own, peers) = tokio::select! {
                asked = tokio::time::timeout(LIMIT, asking) => asked.expect("an end"),
                never = answer_server(&listener, &answer) => match never {},
            };
            let shown = format!("{own:?}{peers:?}");
            assert!(shown.len() < 64 * answer.len() + (1 << 20), "{} bytes", shown.len());
            understood += u64::from(own.is_ok()) + u64::from(peers.iter().any(|peer| peer.answer.is_ok()));
        });
    });
    println!("{name}: {understood} were understood");
}

/// Answers the first question of every connection with these bytes, and hangs up.
async fn answer_server(listener: &TcpListener, bytes: &[u8]) -> std::convert::Infallible {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = [0; 4_096];
        let _ = stream.read(&mut question).await;
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
    }
}
