//! What the supervisor does, for every event in every state.

use std::time::Duration;

use valkeeper::exit::Exit;
use valkeeper::topology::supervise::{Deadline, Deadlines, Effect, Event, State, Supervisor, Task, Verdict};

use Event::{
    Begin, DrainEnded, Forward, Guarded, HandoverEnded, ServerExited, SpawnFailed, Spawned, Stop, TaskPanicked,
};

const KILL_AT: Duration = Duration::from_secs(29);
const HANDOVER: Duration = Duration::from_secs(10);
const OWN: Exit = Exit::Server(3);

const EVENTS: [Event; 21] = [
    Begin,
    Guarded(Ok(())),
    Guarded(Err(Exit::Refused)),
    Spawned,
    SpawnFailed(Exit::NotFound),
    Stop,
    Forward(1),
    DrainEnded(Verdict::Clean),
    DrainEnded(Verdict::Unfinished),
    DrainEnded(Verdict::LeftToServer),
    ServerExited(OWN),
    HandoverEnded,
    Event::Deadline(Deadline::Kill),
    Event::Deadline(Deadline::End),
    Event::Deadline(Deadline::Verdict),
    Event::Deadline(Deadline::Handover),
    TaskPanicked(Task::Guard),
    TaskPanicked(Task::Drain),
    TaskPanicked(Task::Handover),
    TaskPanicked(Task::Company),
    ServerExited(Exit::Server(137)),
];

fn fresh() -> Supervisor {
    Supervisor::new(Deadlines { kill_at: KILL_AT, handover: HANDOVER })
}

/// After these events.
fn after(events: &[Event]) -> Supervisor {
    let mut supervisor = fresh();
    for event in events {
        supervisor.on(*event);
    }
    supervisor
}

fn running(events: &[Event]) -> Vec<Event> {
    [&[Begin, Guarded(Ok(())), Spawned], events].concat()
}

fn exit(exit: Exit) -> (State, Vec<Effect>) {
    (State::Exited, vec![Effect::Exit(exit)])
}

/// Holds the supervisor after `events` to the table, and every event that the table does not name to doing nothing.
#[track_caller]
fn holds(state: State, events: &[Event], table: &[(Event, (State, Vec<Effect>))]) {
    assert_eq!(after(events).state(), state, "after {events:?}");
    for event in EVENTS {
        let mut supervisor = after(events);
        let effects = supervisor.on(event);
        let expected = table.iter().find(|(named, _)| *named == event).map(|(_, expected)| expected.clone());
        let expected = expected.unwrap_or((state, Vec::new()));
        assert_eq!((supervisor.state(), effects), expected, "{event:?} after {events:?}");
    }
}

#[test]
fn nothing_happens_before_the_beginning() {
    holds(State::Idle, &[], &[(Begin, (State::Guarding, vec![Effect::Guard])), (Stop, exit(Exit::Done))]);
}

#[test]
fn the_server_starts_only_when_its_guard_has_no_objection() {
    holds(
        State::Guarding,
        &[Begin],
        &[
            (Guarded(Ok(())), (State::Starting, vec![Effect::Spawn])),
            (Guarded(Err(Exit::Refused)), exit(Exit::Refused)),
            (TaskPanicked(Task::Guard), exit(Exit::Bug)),
            (Stop, exit(Exit::Done)),
        ],
    );
}

#[test]
fn a_server_that_cannot_be_started_is_the_end() {
    holds(
        State::Starting,
        &[Begin, Guarded(Ok(()))],
        &[(Spawned, (State::Running, vec![])), (SpawnFailed(Exit::NotFound), exit(Exit::NotFound))],
    );
}

#[test]
fn a_stop_signal_while_the_server_starts_is_not_lost() {
    let drain = vec![Effect::Arm(Deadline::Kill, KILL_AT), Effect::BeginDrain];
    holds(
        State::Starting,
        &[Begin, Guarded(Ok(())), Stop],
        &[(Spawned, (State::Draining, drain)), (SpawnFailed(Exit::NotFound), exit(Exit::NotFound))],
    );
}

#[test]
fn the_first_stop_signal_begins_the_drain_and_an_unexpected_end_the_handover() {
    let handover = vec![Effect::Arm(Deadline::Handover, HANDOVER), Effect::BeginHandover];
    holds(
        State::Running,
        &running(&[]),
        &[
            (Stop, (State::Draining, vec![Effect::Arm(Deadline::Kill, KILL_AT), Effect::BeginDrain])),
            (Forward(1), (State::Running, vec![Effect::Forward(1)])),
            (ServerExited(OWN), (State::HandingOver, handover.clone())),
            (ServerExited(Exit::Server(137)), (State::HandingOver, handover)),
        ],
    );
}

#[test]
fn a_handover_never_loses_the_code_of_the_server() {
    for also in [&[][..], &[Stop], &[Stop, Stop]] {
        let events = running(&[&[ServerExited(OWN)], also].concat());
        holds(
            State::HandingOver,
            &events,
            &[
                (HandoverEnded, exit(OWN)),
                (TaskPanicked(Task::Handover), exit(OWN)),
                (Event::Deadline(Deadline::Handover), exit(OWN)),
            ],
        );
    }
}

#[test]
fn a_drain_is_waited_for_until_the_last_second() {
    let tell = (State::Stopping, vec![Effect::TellServerToStop]);
    let kill = vec![Effect::CutDrain, Effect::Kill, Effect::Arm(Deadline::End, Duration::from_secs(5))];
    let conclude = vec![Effect::Arm(Deadline::Verdict, Duration::from_secs(1))];
    holds(
        State::Draining,
        &running(&[Stop]),
        &[
            (Stop, (State::Stopping, vec![Effect::CutDrain, Effect::TellServerToStop])),
            (Forward(1), (State::Draining, vec![Effect::Forward(1)])),
            (DrainEnded(Verdict::Clean), (State::Stopping, vec![])),
            (DrainEnded(Verdict::Unfinished), (State::Stopping, vec![])),
            (DrainEnded(Verdict::LeftToServer), tell.clone()),
            (TaskPanicked(Task::Drain), tell),
            (Event::Deadline(Deadline::Kill), (State::Killing, kill)),
            (ServerExited(OWN), (State::Concluding, conclude.clone())),
            (ServerExited(Exit::Server(137)), (State::Concluding, conclude)),
        ],
    );
}

/// What a server can still do that was told to stop, with what it exits.
fn stopping(also: &[(Event, (State, Vec<Effect>))], own: Exit, killed: Exit) -> Vec<(Event, (State, Vec<Effect>))> {
    let kill = vec![Effect::Kill, Effect::Arm(Deadline::End, Duration::from_secs(5))];
    let table = [
        (Forward(1), (State::Stopping, vec![Effect::Forward(1)])),
        (Event::Deadline(Deadline::Kill), (State::Killing, kill)),
        (ServerExited(OWN), exit(own)),
        (ServerExited(Exit::Server(137)), exit(killed)),
    ];
    also.iter().cloned().chain(table).collect()
}

#[test]
fn a_server_that_stops_gives_its_own_code_unless_not_everything_is_saved() {
    let second = (Stop, (State::Stopping, vec![Effect::TellServerToStop]));
    for ended in [DrainEnded(Verdict::Clean), DrainEnded(Verdict::LeftToServer), TaskPanicked(Task::Drain)] {
        let own = (OWN, Exit::Server(137));
        holds(State::Stopping, &running(&[Stop, ended]), &stopping(std::slice::from_ref(&second), own.0, own.1));
        holds(State::Stopping, &running(&[Stop, ended, Stop]), &stopping(&[], own.0, own.1));
    }
    let unfinished = running(&[Stop, DrainEnded(Verdict::Unfinished)]);
    holds(State::Stopping, &unfinished, &stopping(&[second], Exit::Unfinished, Exit::Unfinished));
}

#[test]
fn a_second_stop_signal_cuts_the_drain_and_a_third_changes_nothing() {
    let kill = vec![Effect::CutDrain, Effect::Kill, Effect::Arm(Deadline::End, Duration::from_secs(5))];
    let conclude = (State::Concluding, vec![Effect::Arm(Deadline::Verdict, Duration::from_secs(1))]);
    holds(
        State::Stopping,
        &running(&[Stop, Stop]),
        &[
            (Forward(1), (State::Stopping, vec![Effect::Forward(1)])),
            (Event::Deadline(Deadline::Kill), (State::Killing, kill)),
            (ServerExited(OWN), conclude.clone()),
            (ServerExited(Exit::Server(137)), conclude),
        ],
    );
    let cut = |verdict| running(&[Stop, Stop, DrainEnded(verdict)]);
    holds(State::Stopping, &cut(Verdict::Clean), &stopping(&[], OWN, Exit::Server(137)));
    holds(State::Stopping, &cut(Verdict::LeftToServer), &stopping(&[], OWN, Exit::Server(137)));
    holds(State::Stopping, &cut(Verdict::Unfinished), &stopping(&[], Exit::Unfinished, Exit::Unfinished));
}

#[test]
fn a_killed_server_is_only_waited_for() {
    let table = |own, killed| {
        [
            (Forward(1), (State::Killing, vec![Effect::Forward(1)])),
            (ServerExited(OWN), exit(own)),
            (ServerExited(Exit::Server(137)), exit(killed)),
            (Event::Deadline(Deadline::End), exit(Exit::System)),
        ]
    };
    let kill = Event::Deadline(Deadline::Kill);
    let saved = running(&[Stop, DrainEnded(Verdict::Clean), kill]);
    holds(State::Killing, &saved, &table(OWN, Exit::Server(137)));
    // A drain that was still at it has not saved.
    for also in [&[][..], &[DrainEnded(Verdict::LeftToServer)], &[DrainEnded(Verdict::Unfinished)]] {
        let events = running(&[&[Stop, kill], also].concat());
        holds(State::Killing, &events, &table(Exit::Unfinished, Exit::Unfinished));
    }
    // Nor has a server that was left to its own rules, or that somebody was in a hurry with.
    for also in [&[DrainEnded(Verdict::LeftToServer)][..], &[Stop, DrainEnded(Verdict::LeftToServer)]] {
        let events = running(&[&[Stop], also, &[kill]].concat());
        holds(State::Killing, &events, &table(Exit::Unfinished, Exit::Unfinished));
    }
}

#[test]
fn the_verdict_of_a_drain_counts_also_when_the_server_ends_before_it() {
    let handover = (State::HandingOver, vec![Effect::Arm(Deadline::Handover, HANDOVER), Effect::BeginHandover]);
    holds(
        State::Concluding,
        &running(&[Stop, ServerExited(OWN)]),
        &[
            (DrainEnded(Verdict::Clean), exit(OWN)),
            (DrainEnded(Verdict::Unfinished), exit(Exit::Unfinished)),
            (DrainEnded(Verdict::LeftToServer), handover.clone()),
            (TaskPanicked(Task::Drain), handover.clone()),
            (Event::Deadline(Deadline::Verdict), handover),
        ],
    );
}

#[test]
fn the_heir_of_a_server_that_died_in_its_drain_is_asked_and_the_verdict_of_the_drain_still_counts() {
    for (verdict, code) in [(Verdict::LeftToServer, OWN), (Verdict::Unfinished, Exit::Unfinished)] {
        let late = running(&[Stop, ServerExited(OWN), Event::Deadline(Deadline::Verdict), DrainEnded(verdict)]);
        holds(
            State::HandingOver,
            &late,
            &[
                (HandoverEnded, exit(code)),
                (TaskPanicked(Task::Handover), exit(code)),
                (Event::Deadline(Deadline::Handover), exit(code)),
            ],
        );
    }
}

#[test]
fn nothing_comes_after_the_end() {
    holds(State::Exited, &running(&[ServerExited(OWN), HandoverEnded]), &[]);
    holds(State::Exited, &[Stop], &[]);
    holds(State::Exited, &running(&[Stop, DrainEnded(Verdict::Clean), ServerExited(OWN)]), &[]);
}

#[test]
fn whatever_happens_the_server_is_killed_only_in_the_last_second() {
    let kill = Event::Deadline(Deadline::Kill);
    // Every history of four events after the start.
    for history in 0..EVENTS.len().pow(4) {
        let mut supervisor = after(&running(&[]));
        let events = (0..4).map(|place| EVENTS[history / EVENTS.len().pow(place) % EVENTS.len()]);
        for event in events {
            let killed = supervisor.on(event).contains(&Effect::Kill);
            assert!(!killed || event == kill, "{event:?} in history {history}");
        }
    }
}

#[test]
fn only_the_last_second_of_the_grace_period_is_for_the_kill() {
    for (grace, kill_at) in [(30_000, 29_000), (2_000, 1_000), (1_000, 500), (200, 100), (0, 0)] {
        let deadlines = Deadlines::new(Duration::from_millis(grace), HANDOVER);
        assert_eq!(deadlines.kill_at, Duration::from_millis(kill_at), "of {grace} ms");
    }
}
