//! Who may enter a server, and how that server enters others.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use redis::{Cmd, Pipeline, Value};

use super::Outcome;
use super::connection::{Connection, PATIENCE};
use super::error::{outcome, silence};
use super::report::next;
use crate::config::{Credentials, Secret};
use crate::topology::changeover::{Accepts, Follows, PasswordHash, Standing};
use crate::topology::node::NodeId;
use crate::topology::observation::Silence;
use crate::topology::parse::{PRIMARY_AUTH, PRIMARY_USER};

/// What our user needs to be allowed beside everything else, so that its password can change.
pub const ACCESS_COMMANDS: &str = "+acl|getuser +acl|setuser +acl|save +config|get +config|set";

/// One server, asked and told whom it lets in.
#[derive(Debug)]
pub struct Access {
    address: SocketAddr,
    credentials: Credentials,
    connection: Option<Connection>,
}

/// A change of whom a server lets in, or of how it enters others.
#[derive(Clone, Debug)]
pub enum AccessChange {
    /// Our user may have these passwords too, and the last is listed last.
    Accept(Vec<PasswordHash>),
    /// Our user may no longer have these.
    Refuse(Vec<PasswordHash>),
    /// It enters others as our user with this one.
    EnterWith(Secret),
    /// What it accepts goes into its ACL file.
    Save,
}

impl Access {
    /// The server at an address.
    pub fn at(address: SocketAddr, credentials: Credentials) -> Self {
        Self { address, credentials, connection: None }
    }

    /// Asks for how it stands to our user: one round trip, over the last connection or, where that is gone, a new one.
    /// Where a node is named, nobody else is listened to.
    pub async fn look(&mut self, node: Option<NodeId>) -> Result<Standing, Silence> {
        let open = self.connection.take();
        let was_open = open.is_some();
        let mut connection = match open {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut looked = ask(&mut connection, node, &self.credentials).await;
        if was_open && matches!(looked, Err(Silence::Unreachable(_) | Silence::Refused)) {
            // A server may close a connection that is not used.
            connection = self.connect().await?;
            looked = ask(&mut connection, node, &self.credentials).await;
        }
        if looked.is_ok() {
            self.connection = Some(connection);
        }
        looked
    }

    /// Tells it, over the connection that it was just asked over.
    pub async fn tell(&mut self, change: &AccessChange) -> Outcome {
        let Some(connection) = &mut self.connection else {
            return Outcome::Failed("the connection is gone".to_owned());
        };
        let mut commands = Pipeline::with_capacity(1);
        commands.add_command(command(change, &self.credentials));
        let answer = match connection.send(commands).await {
            Ok(answers) => answers.into_iter().next().unwrap_or(Ok(Value::Nil)),
            Err(error) => Err(error),
        };
        let Err(error) = answer else {
            return Outcome::Done;
        };
        match outcome(&error) {
            Outcome::Forbidden(why) => Outcome::Forbidden(why),
            _ if error.is_timeout() || error.is_io_error() || error.is_connection_dropped() => {
                self.connection = None;
                Outcome::Unanswered(silence(&error).to_string())
            }
            // The server quotes what it does not understand.
            _ => Outcome::Failed("the server does not do it".to_owned()),
        }
    }

    async fn connect(&self) -> Result<Connection, Silence> {
        Connection::open((self.address, None), &self.credentials, PATIENCE).await
    }

    /// Closes the connection.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }
}

async fn ask(
    connection: &mut Connection,
    node: Option<NodeId>,
    credentials: &Credentials,
) -> Result<Standing, Silence> {
    let mut commands = redis::pipe();
    commands.cmd("ACL").arg("GETUSER").arg(credentials.user());
    commands.cmd("CONFIG").arg("GET").arg(&[PRIMARY_AUTH, PRIMARY_USER]);
    if node.is_some() {
        commands.cmd("CLUSTER").arg("MYID");
    }
    let answers = connection.send(commands).await.map_err(|error| silence(&error))?;
    let mut answers = answers.into_iter();
    let user: BTreeMap<String, Value> = next(&mut answers)?;
    let config: BTreeMap<String, String> = next(&mut answers)?;
    if let Some(node) = node
        && NodeId::parse(&next::<String>(&mut answers)?) != Some(node)
    {
        return Err(Silence::Unreachable("another node answers there".to_owned()));
    }
    let list = |name| {
        let list = user.get(name).map(redis::from_redis_value_ref::<Vec<String>>);
        list.and_then(Result::ok).ok_or_else(|| Silence::Unusable(format!("ACL GETUSER does not show {name}")))
    };
    let accepts = match list("flags")?.iter().any(|flag| flag == "nopass") {
        true => Accepts::Anything,
        false => Accepts::These(list("passwords")?.iter().filter_map(|hash| PasswordHash::parse(hash)).collect()),
    };
    let setting = |name| config.get(name).filter(|value| !value.is_empty());
    let follows = match setting(PRIMARY_USER).map_or("default", String::as_str) == credentials.user() {
        true => Follows::With(setting(PRIMARY_AUTH).map(|password| Secret::new(password).hash())),
        false => Follows::AsOther,
    };
    Ok(Standing { accepts, follows })
}

fn command(change: &AccessChange, credentials: &Credentials) -> Cmd {
    let mut command = redis::cmd("ACL");
    match change {
        AccessChange::Accept(passwords) => {
            command.arg("SETUSER").arg(credentials.user());
            for password in passwords {
                command.arg(format!("#{}", password.as_str()));
            }
            // The server does this as one: nobody meets it between the two.
            if let Some(last) = passwords.last() {
                command.arg(format!("!{}", last.as_str())).arg(format!("#{}", last.as_str()));
            }
        }
        AccessChange::Refuse(passwords) => {
            command.arg("SETUSER").arg(credentials.user());
            for password in passwords {
                command.arg(format!("!{}", password.as_str()));
            }
        }
        AccessChange::EnterWith(password) => {
            command = redis::cmd("CONFIG");
            command.arg("SET").arg(PRIMARY_AUTH).arg(password.reveal());
        }
        AccessChange::Save => {
            command.arg("SAVE");
        }
    }
    command
}
