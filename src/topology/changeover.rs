//! How the password that servers are entered with becomes another one while all of them go on.
//!
//! A user of a server may have several passwords. Every pod acts on its own server, by the file that it sees:
//!
//! 1. Its server accepts what its file says, and what the files of other pods say.
//! 2. Once every server accepts it, this server logs in with it at its primary, and where it sends slots to.
//! 3. Once it is what every pod's file says, every server accepts and every server logs in with, and has been for as long
//!    as clients may be behind, the former ones are refused.
//!
//! What a pod's file says is for all to see: it is the last of the passwords that its server lists. So nobody takes from
//! another what is on its way out there; and whoever turns back, or has seen another file, is heard.

mod user_line;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::observation::Silence;

pub use user_line::{Wanted, accepts, with_passwords};

/// What a server keeps of a password: the digits of its SHA-256. Not shown: a bad password can be guessed from it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PasswordHash(String);

/// How one server stands to our user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it accepts, in its order: the last is what its pod's file says.
    pub accepts: Accepts,
    /// How it logs in at its primary.
    pub follows: Follows,
}

/// What a server accepts from our user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Anything: `nopass`.
    Anything,
    /// These.
    These(Vec<PasswordHash>),
}

/// How a server logs in at its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follows {
    /// As our user, with this password or none.
    With(Option<PasswordHash>),
    /// As a user that we do not look after.
    AsOther,
}

/// Another node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// What it is called.
    pub name: String,
    /// How its server stands to our user, where it says so.
    pub standing: Result<Standing, Silence>,
}

/// What a decision is made of.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'s> {
    /// The password that our pod's file holds.
    pub mine: &'s PasswordHash,
    /// Our server.
    pub own: &'s Standing,
    /// All others that our server knows; none where there is no cluster, and nobody knows who follows whom.
    pub others: Option<&'s [Other]>,
    /// What was seen at another node only just now: somebody may have given our user a password by hand, and the node has
    /// not put its own behind it yet.
    pub fresh: &'s BTreeSet<PasswordHash>,
    /// What some pod's file has said: passwords that are there for another reason are not ours to take away.
    pub recorded: &'s BTreeSet<PasswordHash>,
    /// For how long everybody has agreed: [`Step::Overlap`] was all there was to do.
    pub agreed: Duration,
    /// How long everybody has to agree before the former passwords are refused.
    pub overlap: Duration,
}

/// What our pod does next. Displays as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: what our server accepts is what it is to accept.
    Settled,
    /// Our server has to accept these too, and to list our own as the last.
    Accept(Vec<PasswordHash>),
    /// Our server has to log in with our password.
    FollowWithMine,
    /// Somebody else's turn.
    Wait(Vec<Hindrance>),
    /// Everybody agrees. Clients that do not know of it yet get so long.
    Overlap(Duration),
    /// Our server has to refuse these.
    Retire(Vec<PasswordHash>),
}

/// What is waited for at another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// Which one.
    pub name: String,
    /// What.
    pub what: Lack,
}

/// What another node lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// An answer.
    Answer(Silence),
    /// Its server does not accept our password.
    Acceptance,
    /// Its pod's file says something else.
    File,
    /// Its server logs in with another password at its primary.
    Following,
}

/// The next step; none is left to do at a server that lets everybody in.
pub fn decide(scene: &Scene<'_>) -> Step {
    let Accepts::These(accepted) = &scene.own.accepts else {
        return Step::Settled;
    };
    let others = scene.others.unwrap_or_default();
    let wanted = others.iter().filter_map(|other| other.standing.as_ref().ok()?.wanted());
    let wanted = wanted.filter(|hash| !scene.fresh.contains(hash));
    let also: BTreeSet<_> = wanted.chain(scene.recorded).filter(|hash| !accepted.contains(hash)).collect();
    if !also.is_empty() || accepted.last() != Some(scene.mine) {
        return Step::Accept(also.into_iter().filter(|hash| *hash != scene.mine).cloned().collect());
    }
    let lack = |lack: &dyn Fn(&Standing) -> Option<Lack>| {
        let lacking = others.iter().filter_map(|other| {
            let what = match &other.standing {
                Ok(standing) => lack(standing)?,
                Err(silence) => Lack::Answer(silence.clone()),
            };
            Some(Hindrance { name: other.name.clone(), what })
        });
        lacking.collect::<Vec<_>>()
    };
    let follows = match &scene.own.follows {
        // Outside of a cluster the primary may be somebody else's. If it is ours, it accepts it by the end of the overlap.
        Follows::With(Some(other)) if scene.others.is_none() && !scene.recorded.contains(other) => true,
        Follows::With(None) if scene.others.is_none() => true,
        Follows::With(password) => password.as_ref() == Some(scene.mine),
        Follows::AsOther => true,
    };
    if !follows && scene.others.is_some() {
        let lacking = lack(&|standing| (!standing.accepts(scene.mine)).then_some(Lack::Acceptance));
        return if lacking.is_empty() { Step::FollowWithMine } else { Step::Wait(lacking) };
    }
    let former: Vec<_> =
        accepted.iter().filter(|hash| *hash != scene.mine && scene.recorded.contains(hash)).cloned().collect();
    if former.is_empty() && follows {
        return Step::Settled;
    }
    let lacking = lack(&|standing| standing.lacks(scene.mine));
    match scene.overlap.saturating_sub(scene.agreed) {
        _ if !lacking.is_empty() => Step::Wait(lacking),
        Duration::ZERO if !follows => Step::FollowWithMine,
        Duration::ZERO => Step::Retire(former),
        left => Step::Overlap(left),
    }
}

impl PasswordHash {
    /// Reads one as the server writes it.
    pub fn parse(text: &str) -> Option<Self> {
        const DIGITS: usize = 64;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == DIGITS && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// Of the bytes of a SHA-256.
    pub fn of_digest(digest: &[u8]) -> Self {
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Standing {
    /// Whether the password lets our user in.
    pub fn accepts(&self, password: &PasswordHash) -> bool {
        match &self.accepts {
            Accepts::Anything => true,
            Accepts::These(accepted) => accepted.contains(password),
        }
    }

    /// What its pod's file says.
    pub fn wanted(&self) -> Option<&PasswordHash> {
        match &self.accepts {
            Accepts::Anything => None,
            Accepts::These(accepted) => accepted.last(),
        }
    }

    /// What keeps others from refusing all other passwords.
    fn lacks(&self, password: &PasswordHash) -> Option<Lack> {
        match self.wanted() {
            _ if !self.accepts(password) => Some(Lack::Acceptance),
            Some(wanted) if wanted != password => Some(Lack::File),
            _ => match &self.follows {
                Follows::With(other) if other.as_ref() != Some(password) => Some(Lack::Following),
                Follows::With(_) | Follows::AsOther => None,
            },
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hash)")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled => f.write_str("one password is in use"),
            Self::Accept(also) if also.is_empty() => {
                f.write_str("the server accepts the password of this pod's file, beside the former one")
            }
            Self::Accept(_) => f.write_str("the server accepts what other pods' files say, beside its own password"),
            Self::FollowWithMine => {
                f.write_str("every node accepts the new password: the server logs in with it at other nodes")
            }
            Self::Wait(hindrances) => {
                f.write_str("the former password stays valid: ")?;
                let mut first = true;
                for hindrance in hindrances {
                    f.write_str(if std::mem::take(&mut first) { "" } else { "; " })?;
                    hindrance.fmt(f)?;
                }
                Ok(())
            }
            Self::Overlap(left) => write!(
                f,
                "every pod has the new password: the former one stays valid for {:.0} s, for clients that are behind",
                left.as_secs_f64()
            ),
            Self::Retire(_) => f.write_str("the server refuses the former password from now on"),
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.what {
            Lack::Answer(silence) => write!(f, "{name} {silence}"),
            Lack::Acceptance => write!(f, "{name} does not accept the new one yet"),
            Lack::File => write!(f, "the password file of {name} says something else"),
            Lack::Following => write!(f, "{name} still logs in with it at other nodes"),
        }
    }
}
