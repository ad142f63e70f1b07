//! Which server is run.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

const REMEDY: &str = "install Valkey, or name its server with --server PATH";

/// The server's program as an absolute path. Links in it are kept: by its name the program tells what it is to be.
pub(super) fn find(server: &Path) -> Result<PathBuf, Failure> {
    find_in(server, std::env::var_os("PATH").as_deref())
}

fn find_in(server: &Path, search: Option<&OsStr>) -> Result<PathBuf, Failure> {
    let shown = server.display();
    if server.components().count() == 1 && !server.is_absolute() {
        let mut found = std::env::split_paths(search.unwrap_or_default()).map(|dir| dir.join(server));
        let found = found.find(|path| is_executable(path));
        return match found {
            Some(path) => absolute(&path),
            None => Err(Exit::Usage.saying(format!("there is no {shown} on PATH: {REMEDY}"))),
        };
    }
    match server.is_file() {
        true if is_executable(server) => absolute(server),
        true => Err(Exit::Usage.saying(format!("the server {shown} is not executable: chmod +x it, or {REMEDY}"))),
        false if server.exists() => Err(Exit::Usage.saying(format!("the server {shown} is no file: {REMEDY}"))),
        false => Err(Exit::Usage.saying(format!("there is no server {shown}: {REMEDY}"))),
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The server is started in a directory of its own.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Exit::System.because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_looked_up_on_path_and_a_path_is_not() {
        assert_eq!(find_in(Path::new("sh"), Some(OsStr::new("/nowhere:/bin"))).ok(), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_in(Path::new("/bin/sh"), None).ok(), Some(PathBuf::from("/bin/sh")));
        assert!(find_in(Path::new("./sh"), Some(OsStr::new("/bin"))).is_err());
    }

    #[test]
    fn what_cannot_be_run_is_wrong_usage_with_a_remedy() {
        for server in ["no-such-server", "/no/such/server", "/bin", "/etc/passwd"] {
            let failure = find_in(Path::new(server), Some(OsStr::new("/bin"))).err();
            let failure = failure.map(|failure| (failure.exit(), failure.to_string().contains("--server")));
            assert_eq!(failure, Some((Exit::Usage, true)), "{server}");
        }
    }
}
