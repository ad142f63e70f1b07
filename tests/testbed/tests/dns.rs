//! Every fault of the DNS server shows on the wire, as a resolver would meet it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;
use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData};
use testbed::{Answer, DnsServer, Fault, RecordType, Subnet, Transport};

const SERVICE: &str = "valkey-headless.test.svc.cluster.local.";
const SRV: &str = "_valkey._tcp.valkey-headless.test.svc.cluster.local.";
const SOON: Duration = Duration::from_millis(200);
const IN_TIME: Duration = Duration::from_secs(10);

struct Bed {
    server: DnsServer,
    _subnet: Subnet,
}

fn bed(pods: u8) -> Bed {
    let subnet = Subnet::lease();
    let server = DnsServer::start(IpAddr::V4(subnet.host(250)), SERVICE, 6379).unwrap();
    for pod in 0..pods {
        let addr = Ipv4Addr::new(10, 0, 0, pod + 1);
        server.handle().pod_moved(&format!("valkey-{pod}"), addr);
    }
    Bed { server, _subnet: subnet }
}

impl Bed {
    fn ask(&self, name: &str, record: RecordType, transport: Transport, patience: Duration) -> Result<Message> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name)?, record));
        message.edns = Some(Edns::new());
        let query = message.to_vec()?;
        let addr = self.server.handle().addr();
        let mut answer = vec![0; 65535];
        match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind(("127.0.0.1", 0))?;
                socket.set_read_timeout(Some(patience))?;
                socket.send_to(&query, addr)?;
                let (length, _) = socket.recv_from(&mut answer)?;
                answer.truncate(length);
            }
            Transport::Tcp => {
                let mut stream = TcpStream::connect(addr)?;
                stream.set_read_timeout(Some(patience))?;
                stream.write_all(&u16::try_from(query.len())?.to_be_bytes())?;
                stream.write_all(&query)?;
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                answer.truncate(u16::from_be_bytes(length).into());
                stream.read_exact(&mut answer)?;
            }
        }
        Ok(Message::from_vec(&answer)?)
    }

    fn udp(&self, name: &str, record: RecordType) -> Message {
        self.ask(name, record, Transport::Udp, IN_TIME).unwrap()
    }

    fn code(&self, name: &str) -> ResponseCode {
        self.udp(name, RecordType::A).metadata.response_code
    }

    fn addresses(&self, name: &str) -> Vec<Ipv4Addr> {
        let answers = self.udp(name, RecordType::A).answers;
        let addresses = answers.iter().filter_map(|record| match &record.data {
            RData::A(addr) => Some(addr.0),
            _ => None,
        });
        addresses.collect()
    }
}

#[test]
fn a_headless_service_names_its_pods() {
    let bed = bed(3);
    let addresses: Vec<_> = (1..=3).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
    assert_eq!(bed.addresses(SERVICE), addresses);
    assert_eq!(bed.addresses(&format!("VALKEY-1.{SERVICE}")), addresses[1..2]);
    let srv = bed.udp(SRV, RecordType::SRV).answers;
    let RData::SRV(first) = &srv[0].data else { panic!("{srv:?}") };
    assert_eq!((srv.len(), first.port), (3, 6379));
    assert_eq!(first.target.to_string(), format!("valkey-0.{SERVICE}"));
    // A name without records of the type exists all the same, and its absence may be believed so long.
    let none = bed.udp(SERVICE, RecordType::AAAA);
    assert_eq!(none.metadata.response_code, ResponseCode::NoError);
    assert_eq!((none.answers.len(), none.authorities.len()), (0, 1));

    let dns = bed.server.handle();
    dns.srv(false);
    assert_eq!(bed.code(SRV), ResponseCode::NXDomain);
    dns.pod_gone("valkey-1");
    assert_eq!(bed.code(&format!("valkey-1.{SERVICE}")), ResponseCode::NXDomain);
    dns.auto(false);
    dns.pod_moved("valkey-0", Ipv4Addr::new(10, 0, 0, 9));
    assert_eq!(bed.addresses(SERVICE), [addresses[0], addresses[2]]);
    let stale = [addresses[0], addresses[0], addresses[1]];
    dns.set(SERVICE, stale.map(Answer::A).to_vec());
    assert_eq!(bed.addresses(SERVICE), stale);
}

#[test]
fn each_fault_shows_and_heals() {
    let bed = bed(3);
    let dns = bed.server.handle();
    for (fault, code) in [
        (Fault::ServFail, ResponseCode::ServFail),
        (Fault::NxDomain, ResponseCode::NXDomain),
        (Fault::Refused, ResponseCode::Refused),
    ] {
        dns.fault(SERVICE, fault);
        assert_eq!(bed.code(SERVICE), code);
        assert_eq!(bed.code(&format!("valkey-0.{SERVICE}")), ResponseCode::NoError);
    }
    dns.fault(SERVICE, Fault::Partial(2));
    assert_eq!(bed.addresses(SERVICE).len(), 2);
    let wrong = Ipv4Addr::new(192, 0, 2, 1);
    dns.fault(SERVICE, Fault::Wrong(wrong.into()));
    assert_eq!(bed.addresses(SERVICE), [wrong]);
    dns.heal(SERVICE);
    assert_eq!(bed.addresses(SERVICE).len(), 3);

    dns.fault_all(Fault::Silent);
    for transport in [Transport::Udp, Transport::Tcp] {
        assert!(bed.ask(SERVICE, RecordType::A, transport, SOON).is_err());
    }
    dns.fault_all(Fault::Late(SOON));
    let start = Instant::now();
    assert_eq!(bed.addresses(SERVICE).len(), 3);
    assert!(start.elapsed() >= SOON);
    dns.heal_all();
}

#[test]
fn a_truncated_answer_is_whole_over_tcp_and_counted() {
    let bed = bed(3);
    let dns = bed.server.handle();
    dns.fault(SERVICE, Fault::Truncate);
    let udp = bed.udp(SERVICE, RecordType::A);
    assert!(udp.metadata.truncation && udp.answers.is_empty());
    let tcp = bed.ask(SERVICE, RecordType::A, Transport::Tcp, IN_TIME).unwrap();
    assert!(!tcp.metadata.truncation);
    assert_eq!(tcp.answers.len(), 3);
    assert_eq!(dns.queries(SERVICE, RecordType::A, Transport::Udp), 1);
    assert_eq!(dns.queries(SERVICE, RecordType::A, Transport::Tcp), 1);
    assert_eq!(dns.queries(SERVICE, RecordType::SRV, Transport::Udp), 0);
    assert_eq!(dns.queries_total(), 2);
}

#[test]
fn an_answer_too_long_for_udp_is_truncated_without_a_fault() {
    let bed = bed(200);
    assert!(bed.udp(SERVICE, RecordType::A).metadata.truncation);
    let tcp = bed.ask(SERVICE, RecordType::A, Transport::Tcp, IN_TIME).unwrap();
    assert_eq!(tcp.answers.len(), 200);
}
