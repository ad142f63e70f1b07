//! The servers under test, as `make valkey` unpacks them.

use std::path::{Path, PathBuf};
use std::{env, fs, thread};

/// One version of Valkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valkey {
    /// Major and minor, such as `8.0`.
    pub version: String,
    /// The server's program.
    pub server: PathBuf,
    /// The command line client's program.
    pub cli: PathBuf,
}

impl Valkey {
    /// Every version in place, oldest first; `VALKEEPER_TEST_VERSIONS=8.0,9.1` names those to take.
    /// Panics where one of them is missing, or all are.
    pub fn all() -> Vec<Self> {
        let folder = folder();
        let mut found: Vec<Self> = match env::var("VALKEEPER_TEST_VERSIONS") {
            Ok(wanted) => wanted.split(',').map(|version| Self::get(version.trim())).collect(),
            Err(_) => fs::read_dir(&folder)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| Self::at(&folder, entry.file_name().to_str()?))
                .collect(),
        };
        found.sort_by_key(|valkey| number(&valkey.version));
        assert!(!found.is_empty(), "no valkey-server in {}: run `make valkey`", folder.display());
        found
    }

    /// That version. Panics where it is missing.
    pub fn get(version: &str) -> Self {
        Self::at(&folder(), version)
            .unwrap_or_else(|| panic!("no valkey-server {version} in {}: run `make valkey`", folder().display()))
    }

    /// The newest of [`Valkey::all`].
    pub fn newest() -> Self {
        Self::all().pop().expect("all() is never empty")
    }

    /// Does that on each of these, all at once. Panics where one of them does.
    pub fn each(versions: Vec<Self>, test: impl Fn(&Self) + Sync) {
        thread::scope(|scope| versions.iter().for_each(|valkey| drop(scope.spawn(|| test(valkey)))));
    }

    fn at(folder: &Path, version: &str) -> Option<Self> {
        let bin = folder.join(version).join("bin");
        let (server, cli) = (bin.join("valkey-server"), bin.join("valkey-cli"));
        (!number(version).is_empty() && server.is_file() && cli.is_file()).then(|| Self {
            version: version.to_owned(),
            server,
            cli,
        })
    }
}

fn folder() -> PathBuf {
    env::var_os("VALKEEPER_TEST_VALKEY_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/valkey"), PathBuf::from)
}

/// Empty for what is no version.
fn number(version: &str) -> Vec<u32> {
    let parts: Result<_, _> = version.split('.').map(str::parse).collect();
    parts.unwrap_or_default()
}
