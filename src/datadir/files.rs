//! The files that a pattern of `include` means.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The files that a pattern stands for, in their order; wildcards stand in the file's name only. A pattern without
/// wildcards is the file itself, be it there or not; one with wildcards may stand for none.
pub(super) fn matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(name) =
        pattern.file_name().map(OsStr::as_bytes).filter(|name| name.contains(&b'*') || name.contains(&b'?'))
    else {
        return Ok(vec![pattern.to_owned()]);
    };
    let folder = pattern.parent().unwrap_or(Path::new("")).to_owned();
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let hidden = file.as_bytes().first() == Some(&b'.') && name.first() != Some(&b'.');
        if !hidden && matches(name, file.as_bytes()) {
            found.push(folder.join(file));
        }
    }
    found.sort();
    Ok(found)
}

/// `*` stands for any bytes, `?` for one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], name) => name.is_empty(),
        ([b'*', rest @ ..], name) => matches(rest, name) || matches!(name, [_, tail @ ..] if matches(pattern, tail)),
        ([b'?', rest @ ..], [_, tail @ ..]) => matches(rest, tail),
        ([byte, rest @ ..], [first, tail @ ..]) => byte == first && matches(rest, tail),
        (_, []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_bytes_and_a_question_mark_for_one() {
        for (pattern, name) in
            [("*.conf", "a.conf"), ("*.conf", ".conf"), ("a?c*", "abc"), ("*a*b*", "xaxbx"), ("**", "")]
        {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [("*.conf", "a.conf.bak"), ("?", ""), ("a*b", "ac"), ("", "a"), ("a", "")] {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}
