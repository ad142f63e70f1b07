//! A small disk of its own for a pod, so that it can be full.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use rustix::process::getpid;

const SOURCE: &str = "valkeeper-test-";

/// A tmpfs that is mounted as long as the value lives. Takes root.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// Mounts an empty one at that folder, which is made if missing.
    pub(crate) fn mount(dir: &Path, bytes: u64) -> Result<Self> {
        unmount_orphans();
        fs::create_dir_all(dir)?;
        let source = format!("{SOURCE}{}", getpid().as_raw_nonzero());
        mount(source, dir, "tmpfs", MountFlags::empty(), Some(&*size(bytes)?))
            .with_context(|| format!("mount a disk of {bytes} bytes at {} (takes root)", dir.display()))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Changes its size; fails where more is used.
    pub(crate) fn resize(&self, bytes: u64) -> Result<()> {
        mount_remount(&self.dir, MountFlags::empty(), &*size(bytes)?)
            .with_context(|| format!("make the disk at {} {bytes} bytes large", self.dir.display()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Detached, since it must go also where somebody still works there.
        let _ = unmount(&*self.dir, UnmountFlags::DETACH);
    }
}

fn size(bytes: u64) -> Result<CString> {
    Ok(CString::new(format!("size={bytes}"))?)
}

/// A test that was killed could not unmount; the next one does it, which knows whose it was by its source.
fn unmount_orphans() {
    for line in fs::read_to_string("/proc/self/mounts").unwrap_or_default().lines() {
        let mut words = line.split(' ');
        let owner = words.next().and_then(|source| source.strip_prefix(SOURCE)?.parse::<u32>().ok());
        if let (Some(owner), Some(dir)) = (owner, words.next())
            && !Path::new(&format!("/proc/{owner}")).exists()
        {
            let _ = unmount(dir, UnmountFlags::DETACH);
        }
    }
}
