//! A pod's disk can be small, and is gone with the pod.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::Result;
use testbed::redis::cmd;
use testbed::{Testbed, Valkey, fill};

const MEGABYTE: u64 = 1 << 20;

#[test]
fn a_save_fails_on_a_full_disk_and_works_once_there_is_room() -> Result<()> {
    let bed = Testbed::builder(&Valkey::newest()).start_servers(false).build()?;
    let pod = bed.pod(0);
    if !rustix::process::geteuid().is_root() {
        let refused = pod.limit_disk(MEGABYTE).unwrap_err();
        assert!(format!("{refused:#}").contains("takes root"), "{refused:#}");
        return Ok(());
    }
    pod.limit_disk(MEGABYTE)?;
    pod.start()?;
    let mut connection = bed.connection(0)?;
    cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16_383).exec(&mut connection)?;
    bed.wait_in_sync(Duration::from_secs(20))?;
    cmd("CONFIG").arg("SET").arg("rdbcompression").arg("no").exec(&mut connection)?;
    fill(&bed, 0, 20_000, 100)?;
    assert!(cmd("SAVE").exec(&mut connection).is_err());
    pod.limit_disk(8 * MEGABYTE)?;
    cmd("SAVE").exec(&mut connection)?;
    assert!(pod.dir().join("dump.rdb").exists());
    pod.lose_disk()?;
    assert!(!pod.dir().exists());
    Ok(())
}

#[test]
fn a_disk_is_unmounted_after_a_panic() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mut folder = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let bed = Testbed::builder(&Valkey::newest()).start_servers(false).build().unwrap();
        bed.pod(0).limit_disk(MEGABYTE).unwrap();
        bed.pod(0).start().unwrap();
        let dir = bed.dir().to_owned();
        assert!(fs::read_to_string("/proc/self/mounts").unwrap().contains(&*dir.to_string_lossy()));
        folder = Some(dir);
        panic!("as a test that fails");
    }));
    assert!(panicked.is_err());
    let folder = folder.unwrap();
    assert!(!fs::read_to_string("/proc/self/mounts")?.contains(&*folder.to_string_lossy()));
    assert!(!folder.exists());
    Ok(())
}
