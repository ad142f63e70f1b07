//! `valkeeper install`: this binary, in a place that other containers of the pod see. Asks no server.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, fstatvfs};

use crate::cli::InstallArgs;
use crate::exit::{Exit, Failure};

/// What runs, also where it has lost its name.
const SELF: &str = "/proc/self/exe";
const NAME: &str = "valkeeper";
/// Of one that was killed in the middle; the next one writes over it.
const DRAFT: &str = ".valkeeper.new";

/// Runs the command.
pub fn run(args: &InstallArgs) -> Result<(), Failure> {
    let installed = args.dir.join(NAME);
    let bytes = install(&args.dir)
        .with_context(|| format!("cannot install {}", installed.display()))
        .map_err(|error| Exit::System.because(error))?;
    tracing::info!("installed {} ({} {}, {bytes} bytes)", installed.display(), NAME, env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// Whoever looks meanwhile sees the former one or the new one, whole.
fn install(dir: &Path) -> anyhow::Result<u64> {
    let folder = File::open(dir).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("there is no folder {}: mount a volume there", dir.display()),
        _ => anyhow!(error).context(format!("open {}", dir.display())),
    })?;
    if fstatvfs(&folder)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(anyhow!("{} is mounted noexec: nothing there can be executed", dir.display()));
    }
    match flock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(anyhow!("another install into {} is at work: run this again when it is done", dir.display()));
        }
        locked => locked.with_context(|| format!("lock {}", dir.display()))?,
    }
    let draft = dir.join(DRAFT);
    let copied = copy_to(&draft).and_then(|bytes| fs::rename(&draft, dir.join(NAME)).map(|()| bytes));
    if copied.is_err() {
        // A full disk is to be no fuller than before; where even this fails, the first error says enough.
        let _ = fs::remove_file(&draft);
    }
    let bytes = copied?;
    folder.sync_all()?;
    Ok(bytes)
}

fn copy_to(draft: &Path) -> io::Result<u64> {
    const FOR_EVERYBODY: u32 = 0o755;
    let mut from = File::open(SELF)?;
    let mut to = File::create(draft)?;
    let bytes = io::copy(&mut from, &mut to)?;
    to.set_permissions(Permissions::from_mode(FOR_EVERYBODY))?;
    to.sync_all()?;
    Ok(bytes)
}
