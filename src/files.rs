//! Files of ours.

use std::fs;
use std::io;
use std::path::Path;

/// Writes a file in the place of the one that may be there, all of it or nothing: others may be reading.
pub fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    fs::write(&draft, text)?;
    fs::rename(&draft, file)
}
