//! Slots that are moved while the password becomes another one.

use testbed::Valkey;
use testbed::redis::cmd;

use crate::tools::{LIMIT, Pods, builder};

const KEYS: usize = 600;

#[test]
fn a_run_that_moves_slots_goes_on_with_the_new_password() {
    // From 9.0 on the servers log in at each other with what `run` has told them.
    let by_key = Valkey::all().into_iter().filter(|valkey| valkey.version.starts_with("8."));
    Valkey::each(by_key.collect(), |valkey| {
        let mut pods = Pods::start(builder(valkey, 3), "old", &["--password-overlap", "0s"]);
        pods.bed.form(3, 0).unwrap();
        let mut admins: Vec<_> = (0..3).map(|pod| pods.log_in(pod, "old").unwrap()).collect();
        for key in 0..KEYS {
            // Who does not serve a key answers MOVED.
            let mut set = cmd("SET");
            set.arg(format!("key:{key}")).arg("value");
            assert!(admins.iter_mut().any(|admin| set.query::<()>(admin).is_ok()));
        }
        let file = pods.file(0).display().to_string();
        let slowly = ["rebalance", "--weight", "valkey-0=0", "--max-rate", "25", "--password-file", &file];
        let mut run = pods.bed.valkeeper(&slowly).spawn().unwrap();
        let before = pods.bed.keys(0).unwrap();
        pods.bed.wait_for("keys to move", LIMIT, || Ok((pods.bed.keys(0)? < before).then_some(()))).unwrap();

        (0..3).for_each(|pod| pods.change(pod, "new"));
        pods.wait_settled(&mut admins, "new");
        assert!(run.try_wait().unwrap().is_none(), "{}: it was not slow enough", valkey.version);
        assert!(run.wait().unwrap().success(), "{}", valkey.version);
        pods.bed.set_password("new");
        let primaries = pods.bed.primaries().unwrap();
        let keys: u64 = primaries.iter().map(|pod| pods.bed.keys(*pod).unwrap()).sum();
        assert_eq!((&primaries[..], keys), (&[1, 2][..], KEYS as u64), "{}", valkey.version);
    });
}
