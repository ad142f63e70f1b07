//! What the line for a user says of its passwords, in an ACL file or after `user` in valkey.conf, and the line that says
//! what is wanted. Read as the server reads it (`ACLSetUser` in `acl.c`).

use super::{Accepts, PasswordHash};

/// Which passwords a user is to have from the start of its server.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// Ours, listed last.
    pub mine: &'w PasswordHash,
    /// Those that others may still come with; ours may be among them.
    pub accepted: &'w [PasswordHash],
    /// Those that were valid and are no longer.
    pub retired: &'w [PasswordHash],
}

/// What a user with these rules may log in with. `hash` is what the server keeps of a password.
pub fn accepts<'r>(rules: impl IntoIterator<Item = &'r str>, hash: impl Fn(&str) -> PasswordHash) -> Accepts {
    let mut anything = false;
    let mut passwords: Vec<PasswordHash> = Vec::new();
    for rule in rules {
        let (operation, rest) = rule.split_at_checked(1).unwrap_or_default();
        let password = match operation {
            ">" | "<" => Some(hash(rest)),
            "#" | "!" => PasswordHash::parse(rest),
            _ => None,
        };
        match (operation, password) {
            (">" | "#", Some(password)) => {
                anything = false;
                if !passwords.contains(&password) {
                    passwords.push(password);
                }
            }
            ("<" | "!", Some(password)) => passwords.retain(|other| *other != password),
            _ => match rule.to_ascii_lowercase().as_str() {
                "nopass" => {
                    anything = true;
                    passwords.clear();
                }
                "resetpass" | "reset" => {
                    anything = false;
                    passwords.clear();
                }
                _ => {}
            },
        }
    }
    if anything { Accepts::Anything } else { Accepts::These(passwords) }
}

/// The text of an ACL file in which the line for this user says what is wanted; none where it does, where it lets anybody
/// in, or where no line is there. All else stays as it is.
pub fn with_passwords(
    text: &str,
    user: &str,
    wanted: &Wanted<'_>,
    hash: impl Fn(&str) -> PasswordHash,
) -> Option<String> {
    // A file in which a user comes twice is none that the server takes.
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let place = lines.iter().position(|line| rules_of(line, user).is_some())?;
    let line = lines.get(place)?;
    let Accepts::These(passwords) = accepts(rules_of(line, user)?, &hash) else { return None };
    let added = wanted.beside(&passwords);
    let (rules, end) = line.split_at(line.trim_ascii_end().len());
    let changed = |(number, other): (usize, &&str)| match number == place {
        true => format!("{rules}{added}{end}"),
        false => (*other).to_owned(),
    };
    (!added.is_empty()).then(|| lines.iter().enumerate().map(changed).collect())
}

impl Wanted<'_> {
    /// The rules that make of these passwords the ones that are wanted.
    fn beside(&self, passwords: &[PasswordHash]) -> String {
        let is_gone = |password: &&PasswordHash| *password != self.mine && self.retired.contains(password);
        let gone: Vec<_> = passwords.iter().filter(is_gone).collect();
        let is_new = |password: &&PasswordHash| *password != self.mine && !passwords.contains(password);
        let new: Vec<_> = self.accepted.iter().filter(is_new).collect();
        let is_last = new.is_empty() && passwords.last() == Some(self.mine);
        let mut rules: Vec<_> = gone.into_iter().map(|password| format!(" !{}", password.as_str())).collect();
        rules.extend(new.into_iter().map(|password| format!(" #{}", password.as_str())));
        if !is_last {
            rules.extend(passwords.contains(self.mine).then(|| format!(" !{}", self.mine.as_str())));
            rules.push(format!(" #{}", self.mine.as_str()));
        }
        rules.concat()
    }
}

/// The rules for this user, where the line is about it.
fn rules_of<'l>(line: &'l str, user: &str) -> Option<impl Iterator<Item = &'l str> + use<'l>> {
    let mut words = line.trim_ascii().split(' ').filter(|word| !word.is_empty());
    (words.next() == Some("user") && words.next() == Some(user)).then_some(words)
}
