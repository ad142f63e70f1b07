//! The passwords that let us in: the one of now, and those before it.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use tokio::sync::watch;

use crate::topology::changeover::PasswordHash;

/// A secret: whatever shows it shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Our passwords, newest first. Clones share them: a new one reaches every task at once.
#[derive(Clone, Debug)]
pub struct Keyring(Arc<watch::Sender<Vec<Secret>>>);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text; for the server only.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// What a server keeps of it as a password: SHA-256.
    pub fn hash(&self) -> PasswordHash {
        let digest = digest(&SHA256, self.0.as_bytes());
        PasswordHash::of_digest(digest.as_ref())
    }
}

impl Keyring {
    /// The password of now; none where servers ask for none.
    pub fn new(password: Option<Secret>) -> Self {
        Self(Arc::new(watch::Sender::new(password.into_iter().collect())))
    }

    /// The password of now.
    pub fn current(&self) -> Option<Secret> {
        self.0.borrow().first().cloned()
    }

    /// All that may let us in, in the order in which they are worth a try.
    pub fn passwords(&self) -> Vec<Secret> {
        self.0.borrow().clone()
    }

    /// From now on it is this one; the others are kept, as a server may not have heard of it.
    pub fn turn_to(&self, password: Secret) {
        /// Each is a question more to a server that takes none of them.
        const KEPT: usize = 8;
        self.0.send_modify(|passwords| {
            passwords.retain(|other| *other != password);
            passwords.insert(0, password);
            passwords.truncate(KEPT);
        });
    }

    /// Keeps the password of now alone, where that is still this one.
    pub fn forget_all_but(&self, password: &Secret) {
        self.0.send_if_modified(|passwords| {
            let is_to = passwords.len() > 1 && passwords.first() == Some(password);
            if is_to {
                passwords.truncate(1);
            }
            is_to
        });
    }

    /// Is over when there is a password of now other than this one.
    pub(crate) async fn is_other_than(&self, password: Option<&Secret>) {
        // There is a sender: ourselves.
        let _ = self.0.subscribe().wait_for(|passwords| passwords.first() != password).await;
    }
}

impl Default for Keyring {
    fn default() -> Self {
        Self::new(None)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_debug_form_shows_a_secret() {
        let keyring = Keyring::new(Some(Secret::new("hunter2")));
        let hash = Secret::new("hunter2").hash();
        assert!(!format!("{keyring:?}").contains("hunter2"));
        assert!(!format!("{hash:?}").contains(hash.as_str()));
    }

    #[test]
    fn a_password_is_hashed_as_the_server_does() {
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(Secret::new("test").hash().as_str(), hash);
    }

    #[test]
    fn what_was_the_password_is_tried_after_what_it_is() {
        let [one, two, three] = ["one", "two", "three"].map(Secret::new);
        let keyring = Keyring::new(Some(one.clone()));
        let elsewhere = keyring.clone();
        keyring.turn_to(two.clone());
        keyring.turn_to(one.clone());
        keyring.turn_to(three.clone());
        assert!(elsewhere.passwords() == [three.clone(), one.clone(), two]);
        elsewhere.forget_all_but(&one);
        assert_eq!(keyring.passwords().len(), 3, "it is not the password of now");
        elsewhere.forget_all_but(&three);
        assert!(keyring.passwords() == [three]);
    }
}
