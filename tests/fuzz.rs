//! Whatever bytes come from outside: nothing that reads them panics, hangs or grows without bounds, and what is read and
//! printed is read the same again. Each target is tried for two seconds; `make fuzz` takes longer
//! (VALKEEPER_FUZZ_SECONDS).

#[path = "fuzz/engine.rs"]
mod engine;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/network.rs"]
mod network;
#[path = "fuzz/options.rs"]
mod options;
#[path = "fuzz/texts.rs"]
mod texts;

use std::fs;
use std::path::Path;

/// What real servers of all versions said, by how the name of its file ends.
fn fixtures(endings: &[&str]) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<_> = ["8.0", "8.1", "9.1"]
        .iter()
        .flat_map(|version| fs::read_dir(folder.join(version)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| endings.iter().any(|ending| path.to_str().unwrap().ends_with(ending)))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no fixtures in {}", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn owned(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
