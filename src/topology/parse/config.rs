//! The server's configuration: valkey.conf, its command line, and what counts where nothing is said.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::words::{quoted, words};

/// What the server's command line says (`main` in `server.c`).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Whether more of it comes on standard input.
    pub stdin: bool,
    /// The options, as the lines of a configuration file that the server makes of them. May hold secrets.
    pub options: Vec<u8>,
}

/// A line of the configuration. May hold a secret, so its Debug form shows no value.
#[derive(Clone, PartialEq, Eq)]
pub struct Directive {
    /// In lower case, and where the server has an old and a new name for it, the new one.
    pub name: String,
    /// What follows the name, without quotes.
    pub values: Vec<Vec<u8>>,
}

/// All directives in the order in which the server reads them; the last one wins but for those that add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerConfig {
    directives: Vec<Directive>,
}

/// The server saves when so many keys changed in that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    /// How long after the last save.
    pub after: Duration,
    /// How many changes.
    pub changes: u64,
}

/// A line that the server would not read. It may hold a secret and is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: a quote is not closed, or is followed by something other than a space")]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
}

/// The directive for the password of a primary, by the name that every version knows.
pub const PRIMARY_AUTH: &str = "masterauth";
/// The directive for the user to log in as at a primary, by the name that every version knows.
pub const PRIMARY_USER: &str = "masteruser";

/// Writes a line of the configuration. Whatever the value is, the server reads one directive with one value.
pub fn directive(name: &str, value: impl AsRef<[u8]>) -> String {
    format!("{name} {}", quoted(value.as_ref()))
}

/// Reads the text of a configuration file.
pub fn directives(text: &[u8]) -> Result<Vec<Directive>, BadLine> {
    let mut found = Vec::new();
    for (place, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.first() == Some(&b'#') {
            continue;
        }
        let mut words = words(line).ok_or(BadLine { line: place + 1 })?.into_iter();
        if let Some(name) = words.next() {
            found.push(Directive { name: canonical(&String::from_utf8_lossy(&name)), values: words.collect() });
        }
    }
    Ok(found)
}

impl Arguments {
    /// Reads what follows the server's name. An option's values run until the next word that begins with `--`.
    pub fn parse<A: AsRef<OsStr>>(arguments: &[A]) -> Self {
        let mut found = Self::default();
        let last = arguments.len().saturating_sub(1);
        // An option has one value at least, which may look like an option itself.
        let mut has_value = true;
        for (place, argument) in arguments.iter().enumerate() {
            let bytes = argument.as_ref().as_bytes();
            if place == 0 && bytes.first() != Some(&b'-') {
                found.file = Some(PathBuf::from(argument.as_ref()));
            } else if bytes == b"-" && (place == 0 || place == last) {
                found.stdin = true;
            } else if let Some(option) = bytes.strip_prefix(b"--").filter(|_| has_value) {
                if !found.options.is_empty() {
                    found.options.push(b'\n');
                }
                found.options.extend_from_slice(option);
                found.options.push(b' ');
                has_value = words(bytes).is_none_or(|words| words.len() > 1);
                // `--save` without a value means: no save points.
                let next = arguments.get(place + 1).map(|next| next.as_ref().as_bytes());
                if bytes.eq_ignore_ascii_case(b"--save") && next.is_none_or(|next| next.starts_with(b"--")) {
                    found.options.extend_from_slice(b"\"\"");
                    has_value = true;
                }
            } else {
                found.options.extend_from_slice(quoted(bytes).as_bytes());
                found.options.push(b' ');
                has_value = true;
            }
        }
        found
    }
}

impl Directive {
    /// The file that is to be read in its place, where it is `include`; may hold wildcards.
    pub fn include(&self) -> Option<&Path> {
        match self.values.as_slice() {
            [path] if self.name == "include" => Some(Path::new(OsStr::from_bytes(path))),
            _ => None,
        }
    }
}

impl ServerConfig {
    /// Adds a directive that comes after all others.
    pub fn push(&mut self, directive: Directive) {
        self.directives.push(directive);
    }

    /// Adds a directive unless it is given.
    pub fn default_to(&mut self, name: &str, value: &str) {
        if !self.is_given(name) {
            self.push(Directive { name: canonical(name), values: vec![value.as_bytes().to_vec()] });
        }
    }

    /// Whether it is said, be it by its old name.
    pub fn is_given(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The values of a directive, where it is said; those of the last time count.
    pub fn values(&self, name: &str) -> Option<&[Vec<u8>]> {
        self.all(name).last().map(|directive| directive.values.as_slice())
    }

    /// The one value of a directive; none where it is not said, or is not text.
    pub fn text(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.values(name)?.first()?).ok()
    }

    /// The file that the server has its users from.
    pub fn acl_file(&self) -> Option<PathBuf> {
        self.is_given("aclfile").then(|| self.dir().join(self.name("aclfile", "")))
    }

    /// The rules of a user that the configuration names; those that are no text are passed over.
    pub fn user(&self, name: &str) -> Option<impl Iterator<Item = &str>> {
        let mut users = self.all("user").map(|directive| directive.values.as_slice());
        let rules = users.find_map(|values| values.split_first().filter(|(user, _)| *user == name.as_bytes()))?.1;
        Some(rules.iter().filter_map(|rule| str::from_utf8(rule).ok()))
    }

    /// The client port; 0 where there is none without TLS.
    pub fn port(&self) -> u16 {
        const DEFAULT: u16 = 6379;
        self.text("port").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT)
    }

    /// The port for clients with TLS, where there is one.
    pub fn tls_port(&self) -> Option<u16> {
        self.text("tls-port").and_then(|text| text.parse().ok()).filter(|port| *port != 0)
    }

    /// The working directory, relative to the one that the server is started in. The server goes there as it reads, so a
    /// second one may be relative to the first.
    pub fn dir(&self) -> PathBuf {
        self.all("dir")
            .filter_map(|directive| directive.values.first())
            .fold(PathBuf::from("./"), |dir, next| dir.join(OsStr::from_bytes(next)))
    }

    /// The RDB file.
    pub fn rdb(&self) -> PathBuf {
        self.dir().join(self.name("dbfilename", "dump.rdb"))
    }

    /// Whether the append-only file is on. Where it is, the server reads it at its start, and never the RDB file.
    pub fn appendonly(&self) -> bool {
        self.is_yes("appendonly")
    }

    /// The single append-only file that servers before 7.0 wrote.
    pub fn old_aof(&self) -> PathBuf {
        self.dir().join(self.append_filename())
    }

    /// The folder of the append-only files.
    pub fn aof_dir(&self) -> PathBuf {
        self.dir().join(self.name("appenddirname", "appendonlydir"))
    }

    /// The file that lists the append-only files.
    pub fn aof_manifest(&self) -> PathBuf {
        let mut name = self.append_filename();
        name.push(".manifest");
        self.aof_dir().join(name)
    }

    /// Whether the server is a node of a cluster.
    pub fn cluster_enabled(&self) -> bool {
        self.is_yes("cluster-enabled")
    }

    /// The file the server keeps its view of the cluster in.
    pub fn nodes_conf(&self) -> PathBuf {
        self.dir().join(self.name("cluster-config-file", "nodes.conf"))
    }

    /// Whether it reads RDB versions that it does not know for certain (`rdb-version-check relaxed`).
    pub fn reads_any_rdb(&self) -> bool {
        self.text("rdb-version-check").is_some_and(|text| text.eq_ignore_ascii_case("relaxed"))
    }

    /// When the server saves by itself. The first `save` replaces the defaults, more of them add up, and an empty one
    /// begins anew (`setConfigSaveOption` in `config.c`).
    pub fn save_points(&self) -> Vec<SavePoint> {
        const DEFAULT: [(u64, u64); 3] = [(3600, 1), (300, 100), (60, 10_000)];
        let point = |after, changes| SavePoint { after: Duration::from_secs(after), changes };
        let mut given = self.all("save").peekable();
        if given.peek().is_none() {
            return DEFAULT.map(|(after, changes)| point(after, changes)).to_vec();
        }
        let mut points = Vec::new();
        for directive in given {
            let number = |value: &Vec<u8>| str::from_utf8(value).ok()?.parse::<u64>().ok();
            if matches!(directive.values.as_slice(), [only] if only.is_empty()) {
                points.clear();
            }
            let (pairs, _) = directive.values.as_chunks();
            for [after, changes] in pairs {
                if let (Some(after), Some(changes)) = (number(after), number(changes)) {
                    points.push(point(after, changes));
                }
            }
        }
        points
    }

    fn all<'c>(&'c self, name: &str) -> impl Iterator<Item = &'c Directive> + use<'c> {
        let name = canonical(name);
        self.directives.iter().filter(move |directive| directive.name == name)
    }

    fn name(&self, directive: &str, default: &str) -> OsString {
        let value = self.values(directive).and_then(|values| values.first());
        value.map_or_else(|| OsString::from(default), |value| OsString::from_vec(value.clone()))
    }

    fn append_filename(&self) -> OsString {
        self.name("appendfilename", "appendonly.aof")
    }

    fn is_yes(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text.eq_ignore_ascii_case("yes"))
    }
}

/// The server's new name of a directive, in lower case.
fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "masterauth" => "primaryauth".to_owned(),
        "masteruser" => "primaryuser".to_owned(),
        "slaveof" => "replicaof".to_owned(),
        _ => {
            let parts = name.split('-').map(|part| match part {
                "slave" => "replica",
                "slaves" => "replicas",
                part => part,
            });
            parts.collect::<Vec<_>>().join("-")
        }
    }
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arguments").field("file", &self.file).field("stdin", &self.stdin).finish_non_exhaustive()
    }
}

impl fmt::Debug for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} …", self.name)
    }
}
