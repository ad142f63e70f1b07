//! Files of ours.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// For files that we make: nobody but our own user reads or writes them, whatever the umask is.
pub fn private() -> OpenOptions {
    let mut options = File::options();
    options.create(true).mode(0o600);
    options
}

/// Writes a file in the place of the one that may be there, all of it or nothing: others may be reading.
pub fn replace(file: &Path, text: &str) -> io::Result<()> {
    let draft = draft(file);
    // One that was left half written is opened with the permissions that it has.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut written = private().write(true).truncate(true).open(&draft)?;
    written.write_all(text.as_bytes())?;
    // So that a machine that fails right now leaves the old one or the new one,
    written.sync_all()?;
    fs::rename(&draft, file)?;
    // and one that fails after this the new one.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn draft(file: &Path) -> OsString {
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    draft
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_we_write_nobody_else_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        for before in [&file, Path::new(&draft(&file))] {
            fs::write(before, "old").unwrap();
            fs::set_permissions(before, PermissionsExt::from_mode(0o666)).unwrap();
        }
        replace(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::exists(draft(&file)).unwrap());
    }
}
