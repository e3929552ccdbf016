//! The options for who may connect.

use clap::Args;
use ipnet::IpNet;
use nix::unistd::{Group, User};

use crate::server::{Access, SocketMode};

/// The options for who may connect, by the means of the URL's scheme.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Access")]
pub struct AccessOptions {
    /// At a unix URL: a user who may connect, by name or number; several by commas. Without this and
    /// --allow-group, whoever may write to the socket file.
    #[arg(long, env = "RUMPRING_ALLOW_USER", value_name = "USER", value_delimiter = ',')]
    allow_user: Vec<String>,

    /// At a unix URL: a group whose members may.
    #[arg(long, env = "RUMPRING_ALLOW_GROUP", value_name = "GROUP", value_delimiter = ',')]
    allow_group: Vec<String>,

    /// At a tcp URL: a network whose hosts may connect, as in 10.0.0.0/8 or 192.0.2.7. Must be given
    /// unless the URL is of the loopback: the protocol has no passwords, who can connect is root in the
    /// kernel.
    #[arg(long, env = "RUMPRING_ALLOW_FROM", value_name = "NETWORK", value_delimiter = ',',
        value_parser = network)]
    allow_from: Vec<IpNet>,

    /// Permissions of the socket file, in octal. What the umask leaves if not given.
    #[arg(long, env = "RUMPRING_SOCKET_MODE", value_name = "MODE", value_parser = mode)]
    socket_mode: Option<u32>,

    /// Owner of the socket file, and its group behind a colon.
    #[arg(long, env = "RUMPRING_SOCKET_OWNER", value_name = "USER[:GROUP]")]
    socket_owner: Option<String>,
}

impl AccessOptions {
    /// Returns the rules for whom the server lets in.
    pub fn access(&self) -> Result<Access, String> {
        Ok(Access {
            users: self.allow_user.iter().map(|name| uid(name)).collect::<Result<_, _>>()?,
            groups: self.allow_group.iter().map(|name| gid(name)).collect::<Result<_, _>>()?,
            networks: self.allow_from.clone(),
            ..Access::default()
        })
    }

    /// Returns the owner and mode of the socket file.
    pub fn socket(&self) -> Result<SocketMode, String> {
        let (user, group) = match self.socket_owner.as_deref() {
            None => (None, None),
            Some(owner) => match owner.split_once(':') {
                None => (Some(uid(owner)?), None),
                Some(("", group)) => (None, Some(gid(group)?)),
                Some((user, group)) => (Some(uid(user)?), Some(gid(group)?)),
            },
        };
        Ok(SocketMode { mode: self.socket_mode, user, group, ..SocketMode::default() })
    }
}

fn uid(name: &str) -> Result<u32, String> {
    if let Ok(uid) = name.parse() {
        return Ok(uid);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("there is no user `{name}` on this host")),
        Err(error) => Err(format!("cannot look up the user `{name}`: {error}")),
    }
}

fn gid(name: &str) -> Result<u32, String> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("there is no group `{name}` on this host")),
        Err(error) => Err(format!("cannot look up the group `{name}`: {error}")),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
        Ok(mode @ ..=0o777) => Ok(mode),
        _ => Err(format!("`{text}` is no octal number of 777 at most")),
    }
}

/// Parses a network, or a host as a network of one address.
fn network(text: &str) -> Result<IpNet, String> {
    match (text.parse::<IpNet>(), text.parse::<std::net::IpAddr>()) {
        (Ok(net), _) => Ok(net.trunc()),
        (_, Ok(host)) => Ok(host.into()),
        _ => Err(format!("`{text}` is neither a network as 10.0.0.0/8 nor an address")),
    }
}
