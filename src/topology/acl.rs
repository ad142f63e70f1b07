//! The user that valkeeper logs in as: what it may do, and what for.

use std::fmt;

use super::changeover::PasswordHash;
use super::version::Version;

/// A command that our user is given. A command of several parts is named with a bar, as the server does: `config|get`; a
/// whole category with an `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The command.
    pub command: &'static str,
    /// What it is for.
    pub reason: &'static str,
    need: Need,
}

/// Who needs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Everybody.
    Look,
    /// Whoever changes something.
    Act,
    /// The same, where slots are migrated atomically. Older servers do not know these commands, and do not start where a
    /// user has one.
    MigrateAtomically,
    /// Whoever changes the user's own password.
    ChangePassword,
}

/// What the user is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Whether it changes anything; else it is for looking only.
    pub acts: bool,
    /// The oldest server that has the user; none where it may be any.
    pub version: Option<Version>,
    /// Whether it may change its own password.
    pub changes_password: bool,
}

/// A name that a user can have in an ACL file and in valkey.conf, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

/// What stands for a hash that is not known. The server does not take it: it does not start over a user whom nobody could
/// log in as.
pub const NO_HASH: &str = "SHA-256-OF-THE-PASSWORD";

/// Everything that valkeeper asks of a server, and its servers of each other when they log in as its user.
pub const GRANTS: [Grant; 41] = [
    look("info", "version, role, replication, memory, saves and keys of a server"),
    look("config|get", "the mark of a node, its timeouts, and the directory of its data"),
    look("cluster|info", "whether a node says ok"),
    look("cluster|nodes", "whom a node knows, who owns which slots and who follows whom"),
    act("ping", "liveness over a connection that is open; what a replica says first to its primary"),
    act("psync", "replication: a replica asks its primary for what it missed"),
    act("replconf", "replication: a replica says who it is and how far"),
    act("sync", "replication: the second connection of `dual-channel-replication-enabled yes`"),
    act("config|set", "marks, timeouts while forming, leaving, `evacuate`, held back starts, the append-only file"),
    act("cluster|set-config-epoch", "forming: epochs of their own for nodes that know nobody"),
    act("cluster|meet", "forming and healing: nodes get to know each other, or find each other again"),
    act("cluster|addslotsrange", "forming: free slots get an owner"),
    act("cluster|replicate", "forming and healing: who follows whom"),
    act("cluster|forget", "healing: identities that no pod has any more"),
    act("cluster|bumpepoch", "`bootstrap --accept-data-loss`: who gets the lost slots"),
    act("cluster|failover", "drains, crashes, guarded starts, `evacuate`: a replica takes over"),
    act("client|pause", "drains without an heir: writes wait"),
    act("client|unpause", "drains without an heir: writes go on after all"),
    act("client|kill", "held back starts: clients are thrown out who could read what is old"),
    act("bgsave", "drains: the data goes to disk"),
    act("shutdown", "`run`: the server ends after its drain"),
    act(
        "client|setname",
        "moving slots key by key: one run at a time from a source; `run --auto-rebalance` shows itself",
    ),
    act("client|list", "moving slots key by key: whether another run does so; `evacuate`: whether one would undo it"),
    act("cluster|myid", "moving slots, changing the password: whether who is asked is still who it was"),
    act("cluster|setslot", "moving slots key by key"),
    act("cluster|getkeysinslot", "moving slots key by key: which keys"),
    act("cluster|countkeysinslot", "moving slots key by key: whether any are left"),
    act("memory|usage", "moving slots key by key: which keys are so large that they would block their primary"),
    act("migrate", "moving slots key by key, at the source"),
    act("select", "moving slots key by key: of every database, and MIGRATE at the target"),
    act("restore-asking", "moving slots key by key: MIGRATE at the target"),
    atomic("cluster|migrateslots", "moving slots whole"),
    atomic("cluster|getslotmigrations", "moving slots whole: how far it is; a drain waits for that"),
    atomic("cluster|cancelslotmigrations", "drains: slots that have no time to go over stay"),
    atomic("cluster|syncslots", "moving slots whole: what source and target say to each other"),
    atomic("@write", "moving slots whole: the source writes the keys to the target, and what clients write meanwhile"),
    atomic("multi", "moving slots whole: the same for transactions of clients"),
    atomic("exec", "moving slots whole: the same for transactions of clients"),
    password("acl|getuser", "changing the password: which are valid"),
    password("acl|setuser", "changing the password: the new one becomes valid, and later the old one goes"),
    password("acl|save", "changing the password: the ACL file knows, where users are kept in one"),
];

const fn look(command: &'static str, reason: &'static str) -> Grant {
    Grant { command, reason, need: Need::Look }
}

const fn act(command: &'static str, reason: &'static str) -> Grant {
    Grant { command, reason, need: Need::Act }
}

const fn atomic(command: &'static str, reason: &'static str) -> Grant {
    Grant { command, reason, need: Need::MigrateAtomically }
}

const fn password(command: &'static str, reason: &'static str) -> Grant {
    Grant { command, reason, need: Need::ChangePassword }
}

impl Scope {
    /// What such a user is given.
    pub fn grants(self) -> impl Iterator<Item = &'static Grant> {
        GRANTS.iter().filter(move |grant| match grant.need {
            Need::Look => true,
            Need::Act => self.acts,
            Need::MigrateAtomically => self.acts && self.migrates_atomically(),
            Need::ChangePassword => self.acts && self.changes_password,
        })
    }

    /// Whether its servers can migrate slots atomically, for certain.
    pub fn migrates_atomically(self) -> bool {
        self.version.is_some_and(|version| version >= Version::ATOMIC_MIGRATION)
    }

    /// The line of such a user. It begins with what a user in an ACL file and a `user` directive begin with, and says the
    /// same when it is given to ACL SETUSER.
    pub fn line(self, name: &UserName, hash: Option<&PasswordHash>) -> String {
        // MIGRATE and RESTORE-ASKING are for whatever keys there are.
        let keys = if self.acts { "~*" } else { "resetkeys" };
        let mut line =
            format!("user {name} reset on #{} {keys} resetchannels -@all", hash.map_or(NO_HASH, PasswordHash::as_str));
        for grant in self.grants() {
            line.push_str(" +");
            line.push_str(grant.command);
        }
        line
    }
}

impl UserName {
    /// A name, unless it holds what files and servers read as something else.
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |letter: char| !letter.is_whitespace() && !letter.is_control() && !"\"'\\".contains(letter);
        (!text.is_empty() && text.chars().all(is_plain)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Scope = Scope { acts: true, version: None, changes_password: true };

    #[test]
    fn a_line_that_names_no_version_holds_nothing_that_an_old_server_does_not_know() {
        let newer = |version| Scope { version: Some(version), ..RUN };
        assert!(!RUN.grants().any(|grant| grant.need == Need::MigrateAtomically));
        assert!(newer(Version::new(8, 1, 0)).grants().eq(RUN.grants()));
        assert!(newer(Version::new(9, 0, 0)).grants().eq(&GRANTS));
    }

    #[test]
    fn who_only_looks_changes_nothing_and_touches_no_key() {
        let watch = Scope { acts: false, version: Some(Version::new(9, 1, 0)), changes_password: true };
        let line = watch.line(&UserName::new("eye").unwrap(), None);
        let rule = "resetkeys resetchannels -@all +info +config|get +cluster|info +cluster|nodes";
        assert_eq!(line, format!("user eye reset on #{NO_HASH} {rule}"));
    }

    #[test]
    fn every_command_is_there_once() {
        for (place, grant) in GRANTS.iter().enumerate() {
            assert!(GRANTS.iter().skip(place + 1).all(|other| other.command != grant.command), "{}", grant.command);
        }
    }

    #[test]
    fn a_name_that_would_end_early_is_none() {
        for wrong in ["", "a b", "a\"", "'a", "a\n", "a\\", "\u{a0}"] {
            assert_eq!(UserName::new(wrong), None, "{wrong:?}");
        }
        assert!(UserName::new("valkeeper-1.ünïcode").is_some());
    }
}
