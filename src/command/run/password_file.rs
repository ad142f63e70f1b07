//! Watches the password file: what it says now is our password. A mounted secret changes by a link that leads elsewhere,
//! so the file is read, not watched for events.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::config::{Keyring, Secret, password_from};

const OFTEN: Duration = Duration::from_millis(500);
/// A file that is written in its place is not whole for a moment.
const SETTLED: Duration = Duration::from_millis(50);

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
                    tracing::info!("the password file has changed: it is changed over to what it says now");
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
