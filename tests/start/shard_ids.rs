//! A nodes.conf in which a shard has two ids.

use valkeeper::topology::start::with_shard_ids_of_primaries;

use super::{NodeId, id};

const VARS: &str = "vars currentEpoch 6 lastVoteEpoch 0\n";

/// A line of nodes.conf as 8.0 writes it.
fn line(number: u8, primary: Option<u8>, shard: &str) -> String {
    let (role, slots) = if primary.is_some() { ("slave", "") } else { ("master", " 0-100 [93->-00]") };
    let primary = primary.map_or("-".to_owned(), |number| id(number).to_string());
    format!("{} 127.0.0.{number}:6379@16379,,tls-port=0{shard} {role} {primary} 0 0 5 connected{slots}\n", id(number))
        .replace("[93->-00]", &format!("[93->-{}]", id(9)))
}

fn mended(lines: &[String]) -> Option<(String, Vec<NodeId>)> {
    let mended = with_shard_ids_of_primaries(&lines.concat())?;
    assert_eq!(with_shard_ids_of_primaries(&mended.text), None, "once is enough");
    Some((mended.text, mended.nodes))
}

#[test]
fn a_replica_gets_the_shard_id_of_its_primary_wherever_it_stands() {
    let (a, b) = (",shard-id=aaaa", ",shard-id=bbbb,nodename=shard-id=bbbb");
    let rest = [line(4, None, ",shard-id=cccc"), line(5, Some(4), ",shard-id=cccc"), VARS.to_owned()];
    for replica_first in [false, true] {
        let sorted = |replica: &str| {
            let mut lines = [line(1, None, a), line(2, Some(1), replica)];
            lines.rotate_left(usize::from(replica_first));
            [&lines[..], &rest].concat()
        };
        let right = sorted(",shard-id=aaaa,nodename=shard-id=bbbb").concat();
        assert_eq!(mended(&sorted(b)), Some((right, vec![id(2)])));
    }
}

#[test]
fn a_replica_of_a_replica_gets_that_of_the_primary_above_both() {
    let lines = [line(3, Some(2), ",shard-id=3"), line(2, Some(1), ",shard-id=2"), line(1, None, ",shard-id=1")];
    let right = [line(3, Some(2), ",shard-id=1"), line(2, Some(1), ",shard-id=1"), line(1, None, ",shard-id=1")];
    assert_eq!(mended(&lines), Some((right.concat(), vec![id(3), id(2)])));
}

#[test]
fn what_is_right_or_wrong_in_another_way_is_left_alone() {
    let primary = line(1, None, ",shard-id=1");
    for lines in [
        vec![],
        vec![primary.clone(), line(2, Some(1), ",shard-id=1"), VARS.to_owned()],
        // The server makes up an id for those that have none.
        vec![primary.clone(), line(2, Some(1), "")],
        vec![line(1, None, ""), line(2, Some(1), ",shard-id=2")],
        // Nobody knows the primary's, or they follow each other.
        vec![primary.clone(), line(2, Some(7), ",shard-id=2")],
        vec![line(1, Some(2), ",shard-id=1"), line(2, Some(1), ",shard-id=2")],
        vec![primary, line(2, Some(1), ",shard-id=2").replace("connected", "")],
    ] {
        assert_eq!(mended(&lines), None, "{lines:?}");
    }
}
