//! How a password is changed over: what one pod does next, and what comes of it when all pods do.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use valkeeper::topology::Silence;
use valkeeper::topology::changeover::{
    Accepts, Follows, Hindrance, Lack, Other, PasswordHash, Scene, Standing, Step, Wanted, accepts, decide,
    with_passwords,
};

const OVERLAP: Duration = Duration::from_secs(3);

fn hash(name: char) -> PasswordHash {
    PasswordHash::of_digest(&[name as u8; 32])
}

fn hashes(names: &str) -> Vec<PasswordHash> {
    names.chars().map(hash).collect()
}

/// A server that accepts these, and logs in with that one.
fn standing(accepts: &str, follows: char) -> Standing {
    Standing { accepts: Accepts::These(hashes(accepts)), follows: Follows::With(Some(hash(follows))) }
}

fn other(name: &str, standing: Standing) -> Other {
    Other { name: name.to_owned(), standing: Ok(standing) }
}

fn silent(name: &str) -> Other {
    Other { name: name.to_owned(), standing: Err(Silence::Refused) }
}

/// What a pod does whose file says so, whose server stands so, and that has recorded these.
fn next(mine: char, own: &Standing, others: Option<&[Other]>, recorded: &str, agreed: u64) -> Step {
    let recorded: BTreeSet<_> = hashes(recorded).into_iter().collect();
    let agreed = Duration::from_secs(agreed);
    let fresh = BTreeSet::new();
    decide(&Scene { mine: &hash(mine), own, others, fresh: &fresh, recorded: &recorded, agreed, overlap: OVERLAP })
}

fn waits(name: &str, what: Lack) -> Step {
    Step::Wait(vec![Hindrance { name: name.to_owned(), what }])
}

#[test]
fn a_password_goes_from_one_to_the_next_in_this_order() {
    let fresh = [other("b", standing("1", '1'))];
    assert_eq!(next('2', &standing("1", '1'), Some(&fresh), "12", 0), Step::Accept(vec![]));
    assert_eq!(next('2', &standing("12", '1'), Some(&fresh), "12", 0), waits("b", Lack::Acceptance));
    // It has been told, and its file is behind.
    let told = [other("b", standing("21", '1'))];
    assert_eq!(next('2', &standing("12", '1'), Some(&told), "12", 0), Step::FollowWithMine);
    assert_eq!(next('2', &standing("12", '2'), Some(&told), "12", 0), waits("b", Lack::File));
    let sees = [other("b", standing("12", '1'))];
    assert_eq!(next('2', &standing("12", '2'), Some(&sees), "12", 0), waits("b", Lack::Following));
    let done = [other("b", standing("12", '2'))];
    assert_eq!(next('2', &standing("12", '2'), Some(&done), "12", 0), Step::Overlap(OVERLAP));
    assert_eq!(next('2', &standing("12", '2'), Some(&done), "12", 1), Step::Overlap(Duration::from_secs(2)));
    assert_eq!(next('2', &standing("12", '2'), Some(&done), "12", 3), Step::Retire(hashes("1")));
    // That we have done so already keeps nobody from doing it.
    let refuses = [other("b", standing("2", '2'))];
    assert_eq!(next('2', &standing("12", '2'), Some(&refuses), "12", 3), Step::Retire(hashes("1")));
    assert_eq!(next('2', &standing("2", '2'), Some(&done), "2", 0), Step::Settled);
}

#[test]
fn what_others_files_say_is_accepted_and_what_they_are_about_to_refuse_is_not() {
    let others = [other("b", standing("12", '1')), other("c", standing("13", '1'))];
    assert_eq!(next('1', &standing("1", '1'), Some(&others), "1", 0), Step::Accept(hashes("23")));
    // 1 is a former one there.
    let others = [other("b", standing("12", '2'))];
    assert_eq!(next('2', &standing("2", '2'), Some(&others), "2", 0), Step::Settled);
}

#[test]
fn what_was_recorded_is_accepted_again_after_a_restart() {
    let others = [other("b", standing("1", '1'))];
    assert_eq!(next('2', &standing("2", '2'), Some(&others), "12", 0), Step::Accept(hashes("1")));
}

#[test]
fn a_silent_pod_keeps_everybody_else_from_going_on() {
    let others = [silent("b"), other("c", standing("12", '2'))];
    let waits = waits("b", Lack::Answer(Silence::Refused));
    assert_eq!(next('2', &standing("12", '1'), Some(&others), "12", 9), waits);
    assert_eq!(next('2', &standing("12", '2'), Some(&others), "12", 9), waits);
    assert_eq!(waits.to_string(), "the former password stays valid: b is not reachable: connection refused");
}

#[test]
fn whoever_turns_back_is_heard() {
    // From 1 to 2 and back, while the others are at 2.
    let others = [other("b", standing("12", '2'))];
    assert_eq!(next('1', &standing("12", '2'), Some(&others), "12", 9), Step::Accept(vec![]));
    assert_eq!(next('1', &standing("21", '2'), Some(&others), "12", 9), Step::FollowWithMine);
    assert_eq!(next('1', &standing("21", '1'), Some(&others), "12", 9), waits("b", Lack::File));
    // Also where the others had refused it before: it is the last in the list again.
    let others = [other("b", standing("21", '2'))];
    assert_eq!(next('2', &standing("2", '2'), Some(&others), "2", 0), Step::Accept(hashes("1")));
}

#[test]
fn two_files_that_differ_for_ever_lock_nobody_out() {
    let others = [other("b", standing("21", '1'))];
    assert_eq!(next('2', &standing("12", '2'), Some(&others), "12", 1_000), waits("b", Lack::File));
}

#[test]
fn a_password_that_somebody_else_gave_our_user_is_left_alone() {
    let others = [other("b", standing("12", '2'))];
    assert_eq!(next('2', &standing("912", '2'), Some(&others), "12", 3), Step::Retire(hashes("1")));
    assert_eq!(next('2', &standing("92", '2'), Some(&others), "2", 3), Step::Settled);
    // Somebody has just given it there, and the node has not put its own behind it yet.
    let (others, own) = ([other("b", standing("29", '2'))], standing("2", '2'));
    let (mine, recorded, fresh) = (hash('2'), BTreeSet::from([hash('2')]), BTreeSet::from([hash('9')]));
    let scene = Scene {
        mine: &mine,
        own: &own,
        others: Some(&others),
        fresh: &fresh,
        recorded: &recorded,
        agreed: OVERLAP,
        overlap: OVERLAP,
    };
    assert_eq!(decide(&scene), Step::Settled);
    assert_eq!(decide(&Scene { fresh: &BTreeSet::new(), ..scene }), Step::Accept(hashes("9")));
}

#[test]
fn a_server_that_lets_everybody_in_is_left_as_it_is() {
    let open = Standing { accepts: Accepts::Anything, follows: Follows::With(None) };
    assert_eq!(next('2', &open, Some(&[]), "12", 9), Step::Settled);
    let others = [other("b", Standing { follows: Follows::With(Some(hash('2'))), ..open })];
    assert_eq!(next('2', &standing("12", '2'), Some(&others), "12", 3), Step::Retire(hashes("1")));
}

#[test]
fn how_a_user_of_somebody_else_is_followed_is_none_of_ours() {
    let follows_as_other = Standing { follows: Follows::AsOther, ..standing("12", '1') };
    let others = [other("b", follows_as_other.clone())];
    assert_eq!(next('2', &follows_as_other, Some(&others), "12", 3), Step::Retire(hashes("1")));
}

#[test]
fn without_a_cluster_replication_changes_over_by_the_end_of_the_overlap() {
    assert_eq!(next('2', &standing("12", '1'), None, "12", 0), Step::Overlap(OVERLAP));
    assert_eq!(next('2', &standing("12", '1'), None, "12", 3), Step::FollowWithMine);
    assert_eq!(next('2', &standing("12", '2'), None, "12", 3), Step::Retire(hashes("1")));
    // It copies somebody else's server, with their password.
    assert_eq!(next('2', &standing("2", '9'), None, "2", 3), Step::Settled);
    let alone = Standing { follows: Follows::With(None), ..standing("12", '1') };
    assert_eq!(next('2', &alone, None, "12", 3), Step::Retire(hashes("1")));
}

/// A pod: its file, what its process has known, its server, and what is noted down.
#[derive(Clone, Debug)]
struct Pod {
    file: char,
    keyring: Vec<char>,
    accepts: Vec<char>,
    follows: char,
    recorded: BTreeSet<char>,
    agreed: u64,
}

#[derive(Clone, Debug)]
enum Event {
    /// A pod's file says something else.
    Change(usize, char),
    /// A pod looks and acts.
    Act(usize),
    /// Process and server die and come back.
    Restart(usize),
}

fn name(hash: &PasswordHash) -> char {
    ('0'..='9').find(|name| self::hash(*name) == *hash).unwrap()
}

fn world(count: usize) -> Vec<Pod> {
    let pod = Pod {
        file: '0',
        keyring: vec!['0'],
        accepts: vec!['0'],
        follows: '0',
        recorded: BTreeSet::from(['0']),
        agreed: 0,
    };
    vec![pod; count]
}

fn lets_in(server: &Pod, client: &Pod) -> bool {
    client.keyring.iter().any(|password| server.accepts.contains(password))
}

fn happen(pods: &mut [Pod], event: &Event) {
    match *event {
        Event::Change(at, file) => {
            let pod = &mut pods[at];
            pod.file = file;
            pod.keyring.retain(|old| *old != file);
            pod.keyring.insert(0, file);
        }
        Event::Restart(at) => {
            let pod = &mut pods[at];
            pod.recorded.insert(pod.file);
            pod.keyring = vec![pod.file];
            pod.accepts = pod.recorded.iter().copied().filter(|hash| *hash != pod.file).chain([pod.file]).collect();
            pod.follows = pod.file;
            pod.agreed = 0;
        }
        Event::Act(at) => act(pods, at),
    }
}

fn act(pods: &mut [Pod], at: usize) {
    let text = |names: &[char]| names.iter().collect::<String>();
    let own = pods[at].clone();
    let others: Vec<_> = pods
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != at)
        .map(|(other, pod)| match lets_in(pod, &own) {
            true => self::other(&other.to_string(), standing(&text(&pod.accepts), pod.follows)),
            false => silent(&other.to_string()),
        })
        .collect();
    let pod = &mut pods[at];
    assert!(lets_in(pod, &own), "a pod is locked out of its own server: {pod:?}");
    pod.recorded.insert(pod.file);
    let recorded: String = pod.recorded.iter().collect();
    let step = next(pod.file, &standing(&text(&pod.accepts), pod.follows), Some(&others), &recorded, pod.agreed);
    match &step {
        Step::Accept(also) => {
            let also: Vec<_> = also.iter().map(name).collect();
            pod.recorded.extend(&also);
            pod.accepts.extend(also);
            pod.accepts.retain(|hash| *hash != pod.file);
            pod.accepts.push(pod.file);
        }
        Step::FollowWithMine => pod.follows = pod.file,
        Step::Retire(former) => {
            let former: Vec<_> = former.iter().map(name).collect();
            pod.accepts.retain(|hash| !former.contains(hash));
            pod.recorded.retain(|hash| !former.contains(hash));
        }
        Step::Settled => pod.keyring.truncate(1),
        Step::Wait(_) | Step::Overlap(_) => {}
    }
    pod.agreed = if matches!(step, Step::Overlap(_)) { pod.agreed + 1 } else { 0 };
}

/// All files say the same in the end, and everybody gets his turns.
fn settle(pods: &mut [Pod], file: char) {
    (0..pods.len()).for_each(|pod| happen(pods, &Event::Change(pod, file)));
    for _ in 0..12 {
        (0..pods.len()).for_each(|pod| happen(pods, &Event::Act(pod)));
    }
    for pod in pods {
        assert_eq!((&*pod.accepts, pod.follows, pod.recorded.len()), (&[file][..], file, 1), "{pod:?}");
        assert_eq!(pod.keyring, [file]);
    }
}

fn event(pods: usize, restarts: u32) -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0..pods, proptest::char::range('0', '3')).prop_map(|(pod, file)| Event::Change(pod, file)),
        8 => (0..pods).prop_map(Event::Act),
        restarts => (0..pods).prop_map(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn in_any_order_nobody_is_locked_out_and_every_replica_can_follow(
        events in proptest::collection::vec(event(4, 0), 0..120),
        last in proptest::char::range('0', '3'),
    ) {
        let mut pods = world(4);
        for event in &events {
            happen(&mut pods, event);
            for pod in &pods {
                for other in &pods {
                    prop_assert!(lets_in(other, pod), "{other:?} locks out {pod:?} after {event:?}");
                    prop_assert!(other.accepts.contains(&pod.follows), "{pod:?} cannot follow {other:?} after {event:?}");
                }
            }
        }
        settle(&mut pods, last);
    }

    #[test]
    fn pods_that_die_anywhere_end_up_with_the_last_password_and_no_other(
        events in proptest::collection::vec(event(4, 1), 0..120),
        last in proptest::char::range('0', '3'),
    ) {
        let mut pods = world(4);
        events.iter().for_each(|event| happen(&mut pods, event));
        settle(&mut pods, last);
    }
}

/// A password of one letter, and its hash as a rule has it.
fn plain(password: &str) -> PasswordHash {
    hash(password.chars().next().unwrap_or('-'))
}

fn digits(name: char) -> String {
    hash(name).as_str().to_owned()
}

#[test]
fn rules_are_read_as_the_server_reads_them() {
    let these = |rules: &str| accepts(rules.split(' '), plain);
    assert_eq!(these("on >1 >2 ~* +@all"), Accepts::These(hashes("12")));
    assert_eq!(these(&format!("on >1 #{} >1 <2", digits('2'))), Accepts::These(hashes("1")));
    assert_eq!(these(&format!("on >1 !{} >2", digits('1'))), Accepts::These(hashes("2")));
    assert_eq!(these("on >1 nopass"), Accepts::Anything);
    assert_eq!(these("on nopass >1"), Accepts::These(hashes("1")));
    assert_eq!(these("on >1 resetpass"), Accepts::These(vec![]));
    assert_eq!(these("on >1 RESET"), Accepts::These(vec![]));
    assert_eq!(these("on #too-short (+get ~x) <1"), Accepts::These(vec![]));
}

#[test]
fn an_acl_file_is_changed_only_in_what_our_user_may_come_with() {
    let (mine, accepted, retired) = (hash('3'), hashes("23"), hashes("1"));
    let wanted = Wanted { mine: &mine, accepted: &accepted, retired: &retired };
    let changed = |rules: &str| {
        let text = |rules: &str| format!("user default off\n\nuser app {rules}\r\nuser apple on >1\n");
        with_passwords(&text(rules), "app", &wanted, plain).map(|changed| {
            let (before, after) = changed.split_once("user app ").unwrap();
            assert_eq!(before, "user default off\n\n");
            let (rules, after) = after.split_once("\r\n").unwrap();
            assert_eq!(after, "user apple on >1\n");
            rules.to_owned()
        })
    };
    let (one, two, three) = (digits('1'), digits('2'), digits('3'));
    assert_eq!(changed("on >9 >2 >3 ~*"), None);
    assert_eq!(changed("on nopass"), None);
    assert_eq!(changed("on >1 ~*"), Some(format!("on >1 ~* !{one} #{two} #{three}")));
    assert_eq!(changed("on >2 ~*"), Some(format!("on >2 ~* #{three}")));
    assert_eq!(changed("on >3 >2"), Some(format!("on >3 >2 !{three} #{three}")));
    assert_eq!(changed("off resetpass"), Some(format!("off resetpass #{two} #{three}")));
    for (text, user) in [("user default on >1\n", "app"), ("# user app on >1", "app"), ("", "app"), ("user", "")] {
        assert_eq!(with_passwords(text, user, &wanted, plain), None, "{text:?}");
    }
}

proptest! {
    /// Whatever rules there are: what is written down is what is wanted, and that once.
    #[test]
    fn an_acl_file_that_was_changed_says_what_is_wanted(
        rules in prop::collection::vec(prop::sample::select(vec!["on", ">1", ">2", ">3", ">9", "<1", "<3", "nopass", "reset"]), 0..8),
        accepted in "[234]{0,3}",
        retired in "[13]{0,2}",
    ) {
        let (mine, accepted, retired) = (hash('3'), hashes(&accepted), hashes(&retired));
        let accepted: Vec<_> = accepted.into_iter().filter(|hash| !retired.contains(hash)).collect();
        let wanted = Wanted { mine: &mine, accepted: &accepted, retired: &retired };
        let text = format!("user app {}\n", rules.join(" "));
        let (before, Some(changed)) = (accepts(rules.iter().copied(), plain), with_passwords(&text, "app", &wanted, plain))
        else {
            return Ok(());
        };
        prop_assert_ne!(before, Accepts::Anything);
        prop_assert_eq!(with_passwords(&changed, "app", &wanted, plain), None);
        let rules = changed.trim().strip_prefix("user app").unwrap().split(' ').filter(|rule| !rule.is_empty());
        let Accepts::These(passwords) = accepts(rules, plain) else { panic!("anything: {changed}") };
        prop_assert_eq!(passwords.last(), Some(&mine));
        prop_assert!(accepted.iter().all(|hash| passwords.contains(hash)), "{}", changed);
        prop_assert!(!retired.iter().any(|hash| *hash != mine && passwords.contains(hash)), "{}", changed);
    }
}
