//! Who may name whom: the topology decides and touches nothing, and each library is known in one place.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// What some files must not name.
struct Rule {
    /// The files it is about, by how their path below src/ begins; empty for all.
    among: &'static str,
    /// The files that may.
    except: &'static [&'static str],
    /// What is not to be named.
    what: What,
    /// Why.
    reason: &'static str,
}

/// What a rule looks for.
#[derive(Clone, Copy)]
enum What {
    /// Paths with these segments next to each other. A segment that ends in `_` stands for all that begin so.
    Paths(&'static [&'static [&'static str]]),
    /// Words, in names as well as in texts; `a_b` and `aB` are two words. Unit tests may quote the server.
    Words(&'static [&'static str]),
}

const TOPOLOGY: &str = "topology";

const RULES: [Rule; 10] = [
    Rule {
        among: TOPOLOGY,
        except: &[],
        what: What::Paths(&[
            &["tokio"],
            &["redis"],
            &["hickory_"],
            &["hyper"],
            &["hyper_util"],
            &["tracing"],
            &["futures_util"],
            &["async"],
            &["await"],
        ]),
        reason: "the topology is pure: it knows neither server nor DNS, waits for nothing and writes no log",
    },
    Rule {
        among: TOPOLOGY,
        except: &[],
        what: What::Paths(&[
            &["std", "fs"],
            &["std", "io"],
            &["std", "env"],
            &["std", "process"],
            &["std", "thread"],
            &["TcpStream"],
            &["TcpListener"],
            &["UdpSocket"],
            &["UnixStream"],
            &["UnixListener"],
            &["ToSocketAddrs"],
            &["rustix"],
        ]),
        reason: "the topology is pure: it asks nothing of the operating system",
    },
    Rule {
        among: TOPOLOGY,
        except: &[],
        what: What::Paths(&[
            &["Instant"],
            &["SystemTime"],
            &["rand"],
            &["fastrand"],
            &["RandomState"],
            &["HashMap"],
            &["HashSet"],
        ]),
        reason: "the same input gives the same output: no clock, no chance, no hash order",
    },
    Rule {
        among: "",
        except: &["topology/parse"],
        what: What::Words(&["master", "masters", "slave", "slaves"]),
        reason: "the server's own words for primary and replica end where its answers are read",
    },
    Rule {
        among: "",
        except: &["valkey.rs", "valkey/"],
        what: What::Paths(&[&["redis"]]),
        reason: "only valkey knows redis-rs",
    },
    Rule {
        among: "",
        except: &["discovery.rs", "discovery/", "command/local/dns"],
        what: What::Paths(&[&["hickory_"]]),
        reason: "only discovery knows the resolver, and only `local` serves names",
    },
    Rule {
        among: "",
        except: &["tls.rs", "tls/"],
        what: What::Paths(&[&["rustls"], &["tokio_rustls"], &["webpki"], &["x509_cert"]]),
        reason: "only tls knows rustls",
    },
    Rule {
        among: "",
        except: &["admin.rs", "admin/"],
        what: What::Paths(&[&["hyper"], &["hyper_util"]]),
        reason: "only admin knows hyper",
    },
    Rule {
        among: "",
        except: &["process.rs", "process/", "command/local.rs", "command/local/"],
        what: What::Paths(&[&["process", "Command"], &["process", "Child"], &["process", "Stdio"], &["CommandExt"]]),
        reason: "only process spawns, and `local` its servers",
    },
    Rule {
        among: "",
        except: &["process.rs", "process/"],
        what: What::Paths(&[&["nix"], &["libc"]]),
        reason: "only process needs more of the system than rustix gives",
    },
];

#[test]
fn every_source_names_only_what_it_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = sources(&root).unwrap();
    let about_topology = sources.iter().filter(|(path, _)| path.starts_with("topology/")).count();
    assert!(about_topology > 10, "the pure core was not found in {}: {about_topology} files", root.display());

    let breaches: Vec<_> = sources.iter().flat_map(|(path, text)| breaches(path, text)).collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn the_check_catches_whatever_is_named_in_code() {
    for code in [
        "use tokio::time::sleep;",
        "use std::{fmt, fs};",
        "fn f() { let text = std::fs::read(x); }",
        "use std::net::{IpAddr, TcpStream};",
        "use std::net::TcpListener as Listener;",
        "let socket: std::net::UdpSocket = open();",
        "use std::time::{Duration, Instant};",
        "use std::{collections::BTreeMap, time::{Duration, SystemTime}};",
        "std::process::id()",
        "use redis::Value;",
        "use ::redis::Value;",
        "use hickory_resolver::proto::rr::Name;",
        "async fn f() {}",
        "future.await",
        "tracing::info!(\"x\");",
        "rand::random::<u8>()",
        "use std::collections::HashMap;",
        "let quote = '\"'; async fn f() {}",
        "let raw = r#\"a \" b\"#; async fn f() {}",
        "let name: &'static str = \"\\\"\"; async fn f() {}",
        "/* a /* b */ c */ async fn f() {}",
        "fn is_master() {}",
        "struct MasterNode;",
        "let role = \"slave\";",
        "let field = info.text(\"master_link_status\");",
    ] {
        assert_eq!(breaches("topology/plan.rs", code).len().min(1), 1, "not caught: {code}");
    }
    for (path, code) in [
        ("command/bootstrap.rs", "use redis::Value;"),
        ("command/local/dns.rs", "redis::cmd(\"PING\")"),
        ("valkey.rs", "use hickory_resolver::TokioResolver;"),
        ("command/probe.rs", "use hyper::Request;"),
        ("valkey/connection.rs", "use tokio_rustls::TlsConnector;"),
        ("command/local/server.rs", "use hickory_server::Server;"),
        ("command/drain.rs", "use tokio::process::Command;"),
        ("command/drain.rs", "use std::process::{self, Command};"),
        ("main.rs", "process::Command::new(\"sh\")"),
        ("main.rs", "use nix::sys::signal::SigSet;"),
        ("command/run.rs", "libc::waitid(0)"),
        ("valkey/report.rs", "let field = \"slave_repl_offset\";"),
    ] {
        assert_eq!(breaches(path, code).len(), 1, "not caught in {path}: {code}");
    }
}

#[test]
fn the_check_lets_through_what_is_allowed() {
    for (path, code) in [
        ("topology/node.rs", "use std::net::{IpAddr, SocketAddr}; use std::time::Duration;"),
        ("topology/node.rs", "//! No tokio, no redis::Value, no Instant.\n/// master\nfn f() {} // async"),
        ("topology/node.rs", "/* std::fs and a slave */ fn f() {}"),
        ("topology/node.rs", "write!(f, \"async tokio::time, std::fs\")"),
        ("topology/node.rs", "fn process(is_synced: bool) { let instant = 'a'; }"),
        ("topology/health.rs", "\"do the passwords agree (masterauth)?\""),
        ("topology/plan.rs", "#[cfg(test)]\nmod tests { const NODES: &str = \"myself,master\"; }"),
        ("topology/parse/info.rs", "self.text(\"master_link_status\") == Some(\"slave\")"),
        ("valkey/connection.rs", "use redis::{Client, Value};"),
        ("valkey/error.rs", "matches!(code, \"MASTERDOWN\")"),
        ("discovery.rs", "use hickory_resolver::TokioResolver;"),
        ("command/local/dns.rs", "use hickory_server::Server;"),
        ("command/local/server.rs", "use tokio::process::{Child, Command};"),
        ("process/child.rs", "tokio::process::Command::new(program)"),
        ("process/reaper.rs", "libc::waitid(0)"),
        ("main.rs", "use std::process::ExitCode; use valkeeper::cli::{Cli, Command};"),
    ] {
        assert_eq!(breaches(path, code), Vec::<String>::new(), "{path}: {code}");
    }
}

/// Every file below src/ with its path from there.
fn sources(root: &Path) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries: io::Result<Vec<PathBuf>> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
        for path in entries? {
            match path.strip_prefix(root) {
                _ if path.is_dir() => folders.push(path),
                Ok(below) if path.extension().is_some_and(|extension| extension == "rs") => {
                    found.push((below.display().to_string(), fs::read_to_string(&path)?));
                }
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What a file names and must not, one line each.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let paths = paths(&tokens);
    let is_in = |start: &&str| path.starts_with(*start);
    let concerned = RULES.iter().filter(|rule| is_in(&rule.among) && !rule.except.iter().any(is_in));
    let mut breaches: Vec<String> = Vec::new();
    for rule in concerned {
        let named = match rule.what {
            What::Paths(banned) => paths
                .iter()
                .filter(|(_, path)| banned.iter().any(|banned| ends_in(path, banned)))
                .map(|(line, path)| (*line, path.join("::")))
                .collect::<Vec<_>>(),
            What::Words(banned) => before_unit_tests(&tokens)
                .iter()
                .flat_map(|token| words(token.text()).map(|word| (token.line, word)))
                .filter(|(_, word)| banned.contains(&word.as_str()))
                .collect(),
        };
        breaches
            .extend(named.into_iter().map(|(line, name)| format!("src/{path}:{line} names {name}: {}", rule.reason)));
    }
    breaches.sort();
    breaches.dedup();
    breaches
}

/// Whether a path ends in the banned segments; a longer one was found when it was as long as this.
fn ends_in(path: &[String], banned: &[&str]) -> bool {
    let matches = |(segment, banned): (&String, &&str)| match banned.strip_suffix('_') {
        Some(_) => segment.starts_with(*banned),
        None => segment == banned,
    };
    path.len() >= banned.len() && path.iter().rev().zip(banned.iter().rev()).all(matches)
}

/// The code in front of the file's unit tests.
fn before_unit_tests(tokens: &[Token]) -> &[Token] {
    let is = |token: &Token, name: &str| matches!(&token.kind, Kind::Name(text) if text == name);
    let start = tokens.windows(3).position(|three| is(&three[0], "cfg") && is(&three[2], "test"));
    &tokens[..start.unwrap_or(tokens.len())]
}

/// The words of a text in lower case.
fn words(text: &str) -> impl Iterator<Item = String> {
    let mut spaced = String::new();
    let mut was_lower = false;
    for letter in text.chars() {
        if letter.is_uppercase() && was_lower {
            spaced.push(' ');
        }
        was_lower = letter.is_lowercase();
        spaced.extend(if letter.is_alphanumeric() { letter } else { ' ' }.to_lowercase());
    }
    spaced.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// The paths of the code, those of a `use` with braces each in full.
fn paths(tokens: &[Token]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    // What stands before each open brace of a `use`; an ordinary block starts afresh.
    let mut outer: Vec<Vec<String>> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut is_joined = false;
    for token in tokens {
        match &token.kind {
            Kind::Name(name) => {
                if !is_joined {
                    path = outer.last().cloned().unwrap_or_default();
                }
                path.push(name.clone());
                found.push((token.line, path.clone()));
                is_joined = false;
            }
            Kind::Sign(':') => is_joined = true,
            Kind::Sign('{') => {
                outer.push(if is_joined { path.clone() } else { Vec::new() });
                is_joined = false;
            }
            Kind::Sign('}') => {
                outer.pop();
                is_joined = false;
            }
            Kind::Sign(_) | Kind::Text(_) => is_joined = false,
        }
    }
    found
}

/// A piece of code.
struct Token {
    line: usize,
    kind: Kind,
}

enum Kind {
    Name(String),
    /// What a string literal holds.
    Text(String),
    /// One character of anything else; `::` is one colon, and a lone colon a comma.
    Sign(char),
}

impl Token {
    fn text(&self) -> &str {
        match &self.kind {
            Kind::Name(text) | Kind::Text(text) => text,
            Kind::Sign(_) => "",
        }
    }
}

/// The code without its comments.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let line = text[..text.len() - rest.len()].lines().count().max(1);
        let length;
        let kind = if rest.starts_with("//") {
            length = rest.find('\n').unwrap_or(rest.len());
            None
        } else if rest.starts_with("/*") {
            length = block_comment(rest);
            None
        } else if let Some((start, end)) = string(rest) {
            length = end;
            Some(Kind::Text(rest[start..end].to_owned()))
        } else if first == '\'' {
            length = character(rest);
            None
        } else if first.is_alphabetic() || first == '_' {
            length = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
            Some(Kind::Name(rest[..length].to_owned()))
        } else if rest.starts_with("::") {
            length = 2;
            Some(Kind::Sign(':'))
        } else {
            length = first.len_utf8();
            (!first.is_whitespace()).then_some(Kind::Sign(if first == ':' { ',' } else { first }))
        };
        tokens.extend(kind.map(|kind| Token { line, kind }));
        rest = &rest[length..];
    }
    tokens
}

/// Where the block comment ends that the text begins with; comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let step = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Where the contents of the string literal begin that the text begins with, and where the literal ends.
fn string(text: &str) -> Option<(usize, usize)> {
    let prefix = text.len() - text.trim_start_matches(['b', 'c']).len();
    let rest = &text[prefix.min(1)..];
    let raw = rest.strip_prefix('r').map(|rest| (rest, rest.len() - rest.trim_start_matches('#').len()));
    if let Some((rest, hashes)) = raw.filter(|(rest, hashes)| rest[*hashes..].starts_with('"')) {
        let start = text.len() - rest.len() + hashes + 1;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = text[start..].find(&close).map_or(text.len(), |at| start + at + close.len());
        return Some((start, end));
    }
    let start = text.len() - rest.strip_prefix('"')?.len();
    let mut is_escaped = false;
    for (at, letter) in text[start..].char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some((start, start + at + 1)),
            _ => {}
        }
    }
    Some((start, text.len()))
}

/// Where the character literal ends that the text begins with, or the quote of a lifetime.
fn character(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            text[after..].find('\'').map_or(text.len(), |close| after + close + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
