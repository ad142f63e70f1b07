//! Reads what a server will find when it starts: its configuration and its directory. Changes nothing but what `mend`
//! does.

mod changes;
mod files;
mod mend;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::topology::parse::{
    AofKind, Arguments, BadLine, RdbHead, ServerConfig, Unreadable, directives, manifest, nodes_conf,
};
use crate::topology::start::{DataFile, NodesConf, OnDisk};
pub use changes::Changes;
pub use mend::{mend_addresses, mend_shard_ids};

/// Why the configuration or the directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refuses.
    #[error("cannot read {}", .file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nor is it written.
    #[error("cannot write {}, which has to belong to the user that the server runs as", .file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the configuration that the server would not read.
    #[error("cannot read the configuration: {origin}, {bad}")]
    Config {
        /// Where it comes from.
        origin: String,
        /// Which line, and why.
        bad: BadLine,
    },
    /// Files that include each other.
    #[error("cannot read the configuration: {} is included more than {MOST_INCLUDES} levels deep", .0.display())]
    Includes(PathBuf),
    /// The list of the append-only files.
    #[error("cannot read {}: {bad}", .file.display())]
    Manifest {
        /// The list.
        file: PathBuf,
        /// What is wrong with it.
        bad: Unreadable,
    },
}

/// The server itself would end with no memory left.
const MOST_INCLUDES: usize = 16;

/// Reads the configuration as the server does: the file, what comes on standard input, the options.
pub fn read_config(arguments: &Arguments, stdin: &[u8]) -> Result<ServerConfig, DataDirError> {
    let mut config = ServerConfig::default();
    if let Some(file) = &arguments.file {
        read_file(&mut config, file, 0)?;
    }
    read_text(&mut config, stdin, "standard input", 0)?;
    read_text(&mut config, &arguments.options, "the options of the server", 0)?;
    Ok(config)
}

/// Looks at the directory that the configuration names. A missing one is an empty one.
pub fn look(config: &ServerConfig) -> Result<OnDisk, DataDirError> {
    Ok(OnDisk {
        nodes_conf: read_nodes_conf(&config.nodes_conf())?,
        rdb: data_file(&config.rdb())?,
        aof: match listed_aof(config)? {
            Some(aof) => Some(aof),
            None => data_file(&config.old_aof())?,
        },
    })
}

fn read_file(config: &mut ServerConfig, file: &Path, depth: usize) -> Result<(), DataDirError> {
    let text = fs::read(file).map_err(failed(file))?;
    read_text(config, &text, &file.display().to_string(), depth)
}

fn read_text(config: &mut ServerConfig, text: &[u8], origin: &str, depth: usize) -> Result<(), DataDirError> {
    let found = directives(text).map_err(|bad| DataDirError::Config { origin: origin.to_owned(), bad })?;
    for directive in found {
        match directive.include() {
            None => config.push(directive),
            Some(include) => {
                // The server is in its directory by then, if a line before named it.
                let pattern = config.dir().join(include);
                if depth >= MOST_INCLUDES {
                    return Err(DataDirError::Includes(pattern));
                }
                for file in files::matching(&pattern).map_err(failed(&pattern))? {
                    read_file(config, &file, depth + 1)?;
                }
            }
        }
    }
    Ok(())
}

fn read_nodes_conf(file: &Path) -> Result<NodesConf, DataDirError> {
    let Some(text) = if_there(fs::read(file), file)?.filter(|text| !text.is_empty()) else {
        return Ok(NodesConf::Missing);
    };
    let text = String::from_utf8_lossy(&text);
    let mut nodes = Vec::new();
    for (place, line) in text.lines().enumerate() {
        match nodes_conf(line) {
            Ok(found) => nodes.extend(found),
            Err(why) => return Ok(NodesConf::Unreadable { line: place + 1, why: why.to_string() }),
        }
    }
    match nodes.iter().any(|node| node.flags.myself) {
        true => Ok(NodesConf::Nodes(nodes)),
        false => Ok(NodesConf::Unreadable {
            line: text.lines().count(),
            why: "no line up to here names the node itself".to_owned(),
        }),
    }
}

/// The files that the manifest lists; none where there is no manifest.
fn listed_aof(config: &ServerConfig) -> Result<Option<DataFile>, DataDirError> {
    let path = config.aof_manifest();
    let Some(text) = if_there(fs::read(&path), &path)? else { return Ok(None) };
    let listed = manifest(&text).map_err(|bad| DataDirError::Manifest { file: path.clone(), bad })?;
    let mut aof = DataFile { path, size: 0, age: None, format: None, empty: true };
    for file in listed.iter().filter(|file| file.kind != AofKind::History) {
        // One that is missing stops the server, which says so.
        let path = config.aof_dir().join(OsStr::from_bytes(&file.name));
        let Some(found) = data_file(&path)? else { continue };
        aof.size = aof.size.saturating_add(found.size);
        aof.empty &= found.empty;
        if found.size > 0 {
            aof.age = aof.age.into_iter().chain(found.age).min();
        }
        if file.kind == AofKind::Base {
            aof.format = found.format;
        }
    }
    Ok(Some(aof))
}

fn data_file(path: &Path) -> Result<Option<DataFile>, DataDirError> {
    let Some(file) = if_there(File::open(path), path)? else { return Ok(None) };
    let metadata = file.metadata().map_err(failed(path))?;
    let modified = metadata.modified().map_err(failed(path))?;
    let mut head = Vec::with_capacity(RdbHead::LENGTH);
    let most = u64::try_from(RdbHead::LENGTH).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut head).map_err(failed(path))?;
    let head = RdbHead::read(&head);
    let unchanged = modified.elapsed().ok();
    // What is in an RDB file is as old as its beginning, also where it was copied here from a backup.
    let age = match head.and_then(|head| head.begun) {
        Some(begun) => age_of_time(begun).map(|begun| begun.max(unchanged.unwrap_or_default())),
        None => unchanged,
    };
    Ok(Some(DataFile {
        path: path.to_owned(),
        size: metadata.len(),
        age,
        format: head.map(|head| head.format),
        empty: metadata.len() == 0 || head.is_some_and(|head| head.empty),
    }))
}

/// How long ago it was, by this machine's clock; none where it lies in the future.
fn age_of_time(since_1970: Duration) -> Option<Duration> {
    SystemTime::UNIX_EPOCH.checked_add(since_1970)?.elapsed().ok()
}

fn if_there<T>(result: io::Result<T>, file: &Path) -> Result<Option<T>, DataDirError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_not_there(&error) => Ok(None),
        Err(error) => Err(failed(file)(error)),
    }
}

fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn failed(file: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let file = file.to_owned();
    |source| DataDirError::Io { file, source }
}
