//! From a query on the wire to the reply on the wire.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, LowerQuery, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{SOA, SRV};
use hickory_server::proto::rr::{Name, RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::zone::{Answer, Reply, Transport, Zone};
use crate::locked::locked;

/// What a cluster's DNS gives by default, in seconds. A client that caches shows it in a test.
const TTL: u32 = 30;

pub(super) struct Handler {
    zone: Arc<Mutex<Zone>>,
}

impl Handler {
    pub(super) fn new(zone: Arc<Mutex<Zone>>) -> Self {
        Self { zone }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut respond: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let unsent = ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        let Some(query) = request.queries.queries().first() else {
            return unsent;
        };
        let transport = match request.protocol() {
            Protocol::Udp => Transport::Udp,
            _ => Transport::Tcp,
        };
        let asked = query.name().to_string();
        let (late, reply) = locked(&self.zone).query(&asked, query.query_type(), transport);
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        metadata.authoritative = true;
        let (code, records) = match reply {
            Reply::Silence => return unsent,
            Reply::Records(answers) => (ResponseCode::NoError, answers),
            Reply::NxDomain => (ResponseCode::NXDomain, Vec::new()),
            Reply::ServFail => (ResponseCode::ServFail, Vec::new()),
            Reply::Refused => (ResponseCode::Refused, Vec::new()),
            Reply::Truncated => {
                metadata.truncation = true;
                (ResponseCode::NoError, Vec::new())
            }
        };
        metadata.response_code = code;
        let records: Vec<Record> = records.into_iter().map(|one| record(query, one)).collect();
        // Says for how long the absence may be believed, and is what a resolver takes it from.
        let negative = code == ResponseCode::NXDomain
            || (code == ResponseCode::NoError && records.is_empty() && !metadata.truncation);
        let soa = negative.then(soa);
        let mut edns = Edns::new();
        edns.set_max_payload(request.max_payload());
        let mut response = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            response.edns(&edns);
        }
        let response = response.build(metadata, &records, [], &soa, []);
        respond.send_response(response).await.unwrap_or(unsent)
    }
}

fn record(query: &LowerQuery, answer: Answer) -> Record {
    let data = match answer {
        Answer::A(addr) => RData::A(addr.into()),
        Answer::Aaaa(addr) => RData::AAAA(addr.into()),
        Answer::Srv(host, port) => RData::SRV(SRV::new(0, 100, port, name(&host))),
    };
    Record::from_rdata(query.original().name().clone(), TTL, data)
}

fn soa() -> Record {
    let zone = name("cluster.local.");
    let (host, mail) = (name("ns.dns.cluster.local."), name("mail.cluster.local."));
    let data = SOA::new(host, mail, 1, 7200, 1800, 86400, TTL);
    Record::from_rdata(zone, TTL, RData::SOA(data))
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a test's domain name is valid")
}
