//! The list of append-only files (`aof.c`).

use super::Unreadable;
use super::words::words;

/// A file of the append-only log, in the folder of its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AofFile {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: AofKind,
}

/// What an append-only file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AofKind {
    /// All data as of the last rewrite; mostly an RDB file.
    Base,
    /// What was written since.
    Increment,
    /// Not needed any more; the server removes it.
    History,
}

/// Reads a manifest: lines of `file NAME seq NUMBER type b|h|i`, in any order of the pairs.
pub fn manifest(text: &[u8]) -> Result<Vec<AofFile>, Unreadable> {
    text.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && line.first() != Some(&b'#'))
        .map(|line| {
            file(line).ok_or_else(|| Unreadable::new("a line of the AOF manifest", &String::from_utf8_lossy(line)))
        })
        .collect()
}

fn file(line: &[u8]) -> Option<AofFile> {
    let (mut name, mut kind) = (None, None);
    for pair in words(line)?.chunks(2) {
        let [key, value] = pair else { return None };
        match key.as_slice() {
            b"file" => name = Some(value.clone()),
            b"type" => {
                kind = Some(match value.as_slice() {
                    b"b" => AofKind::Base,
                    b"i" => AofKind::Increment,
                    b"h" => AofKind::History,
                    _ => return None,
                });
            }
            _ => {}
        }
    }
    Some(AofFile { name: name?, kind: kind? })
}
