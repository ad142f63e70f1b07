//! A shard is lost for good: nothing is done about it until somebody says so, and what comes back later is not mixed in.

use std::fs;
use std::time::Duration;

use testbed::redis::cmd;
use testbed::{Ended, Testbed, Valkey};

const LIMIT: Duration = Duration::from_secs(60);

fn bootstrap(bed: &Testbed, args: &[&str]) -> Ended {
    let args: Vec<&str> = ["bootstrap", "--replicas", "0"].into_iter().chain(args.iter().copied()).collect();
    Ended::of(&mut bed.valkeeper(&args), LIMIT).unwrap()
}

/// The server carries its pod's name from the beginning, as under `run`.
fn name(bed: &Testbed, pod: usize) {
    let service = bed.service().trim_end_matches('.');
    let set = ["SET".to_owned(), "cluster-announce-human-nodename".to_owned(), format!("{service}/valkey-{pod}")];
    cmd("CONFIG").arg(&set).exec(&mut bed.connection(pod).unwrap()).unwrap();
}

#[test]
fn a_lost_shard_is_given_up_by_the_id_of_its_owner_and_what_comes_back_is_not_mixed_in() {
    Valkey::each(Valkey::all(), give_up);
}

fn give_up(valkey: &Valkey) {
    let bed = Testbed::builder(valkey).pods(3).binary(env!("CARGO_BIN_EXE_valkeeper")).build().unwrap();
    bootstrap(&bed, &[]).expect(0, &[]);
    // Their slots are 12182 and 866: of the third shard, and of the first.
    let set = |pod, key: &str, value: &str| {
        bed.wait_for("a write", LIMIT, || Ok(cmd("SET").arg(key).arg(value).exec(&mut bed.connection(pod)?).ok()))
            .unwrap();
    };
    set(2, "foo", "lost");
    set(0, "hello", "kept");

    bed.pod(2).stop().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let put_away = kept.path().join("valkey-2");
    fs::rename(bed.pod(2).dir(), &put_away).unwrap();
    bed.pod(2).lose_disk().unwrap();
    bed.pod(2).start().unwrap();
    name(&bed, 2);

    let refused = bootstrap(&bed, &["--timeout", "5s"]);
    refused.expect(76, &["the slots 10923-16383 belong to the node", "--accept-data-loss"]);
    let owner = refused.stderr.split("--accept-data-loss ").nth(1).unwrap().get(..40).unwrap().to_owned();
    let another = owner.chars().rev().collect::<String>();
    bootstrap(&bed, &["--timeout", "5s", "--accept-data-loss", &another]).expect(76, &["belong to the node"]);
    bootstrap(&bed, &["--accept-data-loss", "valkey-2"]).expect(64, &["a node id has 40 digits"]);

    bootstrap(&bed, &["--accept-data-loss", &owner]).expect(0, &["the cluster stands"]);
    bed.cli_check(0).unwrap();
    for pod in 0..3 {
        assert!(!bed.cluster_nodes(pod).unwrap().contains(&owner), "{}: valkey-{pod} has forgotten", valkey.version);
    }
    let kept: String = cmd("GET").arg("hello").query(&mut bed.connection(0).unwrap()).unwrap();
    assert_eq!(kept, "kept");
    set(2, "foo", "new");
    cmd("SAVE").exec(&mut bed.connection(2).unwrap()).unwrap();
    bootstrap(&bed, &[]).expect(0, &["nothing was changed"]);

    // The old directory is found after all, and stands in the place of the new one.
    let new = put_away.with_extension("new");
    bed.pod(2).stop().unwrap();
    fs::rename(bed.pod(2).dir(), &new).unwrap();
    fs::rename(&put_away, bed.pod(2).dir()).unwrap();
    bed.pod(2).start().unwrap();
    name(&bed, 2);
    bootstrap(&bed, &["--timeout", "8s"]).expect(76, &["nobody in the cluster knows it any more"]);
    assert!(!bed.cluster_nodes(0).unwrap().contains(&owner), "{}: nobody was introduced", valkey.version);

    bed.pod(2).stop().unwrap();
    fs::rename(bed.pod(2).dir(), &put_away).unwrap();
    fs::rename(&new, bed.pod(2).dir()).unwrap();
    bed.pod(2).start().unwrap();
    bootstrap(&bed, &[]).expect(0, &["the cluster stands"]);
    let new: String = cmd("GET").arg("foo").query(&mut bed.connection(2).unwrap()).unwrap();
    assert_eq!(new, "new", "{}", valkey.version);
}
