//! What the probes say, given what the server said.

use std::time::Duration;

use valkeeper::topology::observation::{Silence, View};
use valkeeper::topology::parse::{self, ReplicaLink, Replication};
use valkeeper::topology::probe::{Answer, Life, Pace, Probe, STALL, Verdict, liveness, readiness, startup};
use valkeeper::topology::server::{ClusterView, Loading, Persistence, ServerReport};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A server on its own, which has nothing to complain of.
fn report() -> ServerReport {
    ServerReport {
        version: None,
        run_id: "1".to_owned(),
        uptime: Duration::from_secs(60),
        loading: None,
        replication: Replication::default(),
        persistence: Persistence::default(),
        keys: 0,
        cluster: None,
        leaving: false,
        guards_writes: true,
        migrations: 0,
    }
}

fn node(lines: &[String], ok: bool, link: Option<(bool, bool)>) -> ServerReport {
    let view = View::new(parse::nodes(&lines.concat()).unwrap()).unwrap();
    ServerReport { cluster: Some(ClusterView { view, ok }), ..linked(link) }
}

fn linked(link: Option<(bool, bool)>) -> ServerReport {
    let link = link.map(|(up, syncing)| ReplicaLink { up, syncing, last_heard: None, down_for: None });
    ServerReport { replication: Replication { link, offset: 0 }, ..report() }
}

fn line(id: &str, host: u8, flags: &str, of: &str, slots: &str) -> String {
    format!("{id} 10.0.0.{host}:6379@16379 {flags} {of} 0 0 {host} connected {slots}\n")
}

fn blank() -> Vec<String> {
    vec![line(A, 1, "myself,master", "-", "")]
}

fn primary() -> Vec<String> {
    vec![line(A, 1, "myself,master", "-", "0-16383"), line(B, 2, "slave", A, "")]
}

fn replica() -> Vec<String> {
    vec![line(A, 1, "myself,slave", B, ""), line(B, 2, "master", "-", "0-16383")]
}

fn loading(done: u64) -> Answer {
    Ok(ServerReport { loading: Some(Loading { done, total: 200, eta: Duration::from_secs(7) }), ..report() })
}

fn silences() -> [(Silence, bool); 7] {
    let text = |text: &str| text.to_owned();
    [
        (Silence::Refused, false),
        (Silence::Unreachable(text("no answer in time")), false),
        (Silence::NotReady(text("LOADING")), true),
        (Silence::NotReady(text("BUSY")), true),
        (Silence::NotReady(text("MASTERDOWN")), true),
        (Silence::Denied(text("NOAUTH")), true),
        (Silence::Unusable(text("ERR")), true),
    ]
}

#[test]
fn liveness_and_startup_fail_only_where_nothing_answers() {
    assert!(liveness(None).pass);
    assert!(startup(&Ok(report()), Duration::ZERO).pass);
    for (silence, answers) in silences() {
        assert_eq!(liveness(Some(&silence)).pass, answers, "{silence}");
        assert_eq!(startup(&Err(silence.clone()), Duration::ZERO).pass, answers, "{silence}");
        let ready = readiness(&Err(silence.clone()), true, true);
        assert!(!ready.pass, "{silence}");
        assert_eq!(ready.reason.contains("--password-file"), matches!(silence, Silence::Denied(_)), "{ready}");
    }
}

#[test]
fn what_holds_a_server_back_until_it_was_ready_once_and_what_at_any_time() {
    let leaving = ServerReport { leaving: true, ..node(&primary(), true, None) };
    let standalone = report();
    // What, whether it is ready at first, whether it is once it was, and a word of the reason at first.
    let cases = [
        ("primary", node(&primary(), true, None), true, true, "ready"),
        ("replica in step", node(&replica(), true, Some((true, false))), true, true, "ready"),
        (
            "member without slots",
            node(&[&blank()[..], &[line(B, 2, "master", "-", "0-16383")]].concat(), true, None),
            true,
            true,
            "ready",
        ),
        ("blank node", node(&blank(), false, None), false, true, "blank"),
        ("blank node that says ok", node(&blank(), true, None), false, true, "blank"),
        ("another shard lost", node(&primary(), false, None), false, true, "cluster_state"),
        ("its primary dead", node(&replica(), true, Some((false, false))), false, true, "link"),
        ("its primary not known yet", node(&replica(), true, None), false, true, "link"),
        ("no view", standalone.clone(), false, true, "view"),
        ("in a full sync", node(&replica(), true, Some((false, true))), false, false, "full copy"),
        ("leaving", leaving, false, false, "leaving"),
        ("loading", loading(50).unwrap(), false, false, "25 %, 7 s"),
    ];
    for (what, report, at_first, later, word) in cases {
        let answer = Ok(report);
        let (first, then) = (readiness(&answer, true, false), readiness(&answer, true, true));
        assert_eq!((first.pass, then.pass), (at_first, later), "{what}: {first}; {then}");
        assert!(first.reason.contains(word), "{what}: {first}");
    }
    for (what, report, at_first, later) in [
        ("alone", standalone, true, true),
        ("replica in step", linked(Some((true, false))), true, true),
        ("its primary dead", linked(Some((false, false))), false, true),
        ("in a full sync", linked(Some((false, true))), false, false),
    ] {
        let answer = Ok(report);
        let passes = (readiness(&answer, false, false).pass, readiness(&answer, false, true).pass);
        assert_eq!(passes, (at_first, later), "standalone: {what}");
    }
}

#[test]
fn startup_fails_when_loading_has_got_no_further_for_a_minute_and_at_no_byte_earlier() {
    let mut pace = Pace::default();
    let mut at = |seconds: u64, answer: &Answer| {
        let stalled = pace.on(Duration::from_secs(seconds), answer);
        startup(answer, stalled)
    };
    assert_eq!(at(0, &loading(50)).reason, "the server is loading its data: 25 %, 7 s to go");
    assert!(at(59, &loading(50)).pass);
    let stuck = at(60, &loading(50));
    assert!(!stuck.pass && stuck.reason.contains("60 s: 25 %"), "{stuck}");
    assert!(!at(61, &Err(Silence::Refused)).pass);
    assert!(!at(62, &loading(50)).pass, "an answer that did not come is no progress");
    assert!(at(63, &loading(51)).pass);
    assert!(at(122, &loading(51)).pass);
    let another_life = loading(51).map(|report| ServerReport { run_id: "2".to_owned(), ..report });
    assert!(at(200, &another_life).pass);
    assert!(at(200 + STALL.as_secs() - 1, &another_life).pass);
    assert!(at(500, &Ok(report())).pass);
    assert!(at(501, &another_life).pass, "a replica that loads a new copy begins anew");
}

#[test]
fn a_supervisor_answers_itself_where_there_is_no_server_to_ask() {
    let told = |life: Life| [Probe::Startup, Probe::Liveness, Probe::Readiness].map(|probe| life.verdict(probe));
    let passes = |life: Life| told(life).map(|verdict| verdict.map(|verdict| verdict.pass));
    assert_eq!(passes(Life::Guarding("valkey-3 to take over".to_owned())), [Some(false), Some(true), Some(false)]);
    assert_eq!(passes(Life::Running), [None; 3]);
    assert_eq!(passes(Life::Draining), [Some(true), Some(true), Some(false)]);
    assert_eq!(passes(Life::Ended), [Some(false), Some(true), Some(false)]);
    let [startup, ..] = told(Life::Guarding("valkey-3 to take over".to_owned()));
    assert!(startup.unwrap().reason.ends_with("waiting for valkey-3 to take over"));
}

#[test]
fn a_verdict_is_one_line_and_its_json_stays_as_it_is() {
    let verdict = Verdict::fail("ERR a\r\nb");
    assert_eq!(verdict.to_string(), "ERR a  b");
    assert_eq!(serde_json::to_string(&Verdict::pass("x")).unwrap(), r#"{"pass":true,"reason":"x"}"#);
}
