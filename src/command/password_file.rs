//! Watches the password file: what it says now is our password. A mounted secret changes by a link that leads elsewhere,
//! so the file is read, not watched for events.

use std::fs;
use std::future::pending;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::cli::LoginArgs;
use crate::config::{self, Keyring, Secret, password_from};

const OFTEN: Duration = Duration::from_millis(500);
/// A file that is written in its place is not whole for a moment.
const SETTLED: Duration = Duration::from_millis(50);

/// Watches the file that the options name, if they do, for as long as something takes.
pub(super) async fn watch_during<T>(args: &LoginArgs, keyring: &Keyring, what: impl Future<Output = T>) -> T {
    let file = config::password_file(args);
    let watched = async {
        if let Some(file) = &file {
            watch(file, keyring).await;
        }
        pending().await
    };
    tokio::select! {
        done = what => done,
        never = watched => never,
    }
}

/// Goes on for as long as the file is one that can be read again and again, which a pipe is not.
pub(super) async fn watch(file: &Path, keyring: &Keyring) {
    let mut told = false;
    while fs::metadata(file).map_or(true, |found| found.is_file()) {
        let read = read(file);
        match &read {
            Ok(password) if keyring.current().as_ref() == Some(password) => told = false,
            Ok(_) => {
                sleep(SETTLED).await;
                if self::read(file) == read {
                    tracing::info!("the password file has changed: what it says now is our password");
                    read.into_iter().for_each(|password| keyring.turn_to(password));
                }
                continue;
            }
            Err(why) if !std::mem::replace(&mut told, true) => {
                tracing::warn!("{why}; the password that it held before stays in use");
            }
            Err(_) => {}
        }
        sleep(OFTEN).await;
    }
}

fn read(file: &Path) -> Result<Secret, String> {
    password_from(file).map_err(|failure| failure.to_string())
}
