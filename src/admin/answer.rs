//! From a request to its answer.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Exposition, Health, SLACK};
use crate::topology::probe::{Probe, Reconciliation, Verdict};

/// The probes that can be asked for.
const PROBES: [(&str, Probe); 3] =
    [("/startupz", Probe::Startup), ("/livez", Probe::Liveness), ("/readyz", Probe::Readiness)];
const METRICS: &str = "/metrics";

/// What is asked for.
enum Wanted {
    Probe(Probe),
    Metrics,
}

/// The JSON of an answer. Fields are only ever added.
#[derive(Serialize)]
struct Body {
    #[serde(flatten)]
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconciliation: Option<Reconciliation>,
}

/// The answer to a request.
pub(super) async fn to(request: Request<Incoming>, health: &impl Health) -> Result<Response<String>, Infallible> {
    let Some(wanted) = wanted(request.uri().path()) else {
        let known: Vec<&str> = PROBES.iter().map(|(path, _)| *path).chain([METRICS]).collect();
        return Ok(json(StatusCode::NOT_FOUND, &json!({ "paths": known })));
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "methods": ["GET", "HEAD"] }));
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(answer);
    }
    let probe = match wanted {
        Wanted::Probe(probe) => probe,
        Wanted::Metrics => return Ok(answer(StatusCode::OK, Exposition::CONTENT_TYPE, health.metrics().into_text())),
    };
    let verdict = timeout(health.patience() + SLACK, health.ask(probe)).await;
    let verdict = verdict.unwrap_or_else(|_| Verdict::fail("this process is too busy to answer"));
    let status = if verdict.pass { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(json(status, &json!(Body { verdict, reconciliation: health.reconciliation() })))
}

/// Says that there is no room, as far as that can be said without waiting.
pub(super) fn turn_away(stream: &TcpStream) {
    const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 52\r\n\
        connection: close\r\n\r\n{\"pass\":false,\"reason\":\"too many requests at once\"}\n";
    // What was asked is read, as far as it has come: unread, it would have the kernel take the answer back.
    let _ = stream.try_read(&mut [0; 1024]);
    let _ = stream.try_write(BUSY);
}

fn wanted(path: &str) -> Option<Wanted> {
    match path {
        METRICS => Some(Wanted::Metrics),
        path => PROBES.into_iter().find(|(known, _)| *known == path).map(|(_, probe)| Wanted::Probe(probe)),
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<String> {
    answer(status, "application/json", format!("{body}\n"))
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
