// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that lp-run writes for the agent: who it is, which hosts have names, where names
//! are asked for. A program without a row in passwd does not start (`os.userInfo()` in Node,
//! `ssh`), and the host's passwd would tell who else is there.

use std::path::{Path, PathBuf};

use super::Generated;
use super::names::RESOLVER;
use crate::policy::facts::User;
use crate::policy::model::{Policy, UserChoice};

/// Name of an agent with a uid of the run's own.
pub const DYNAMIC_NAME: &str = "agent";
/// `SHELL`, and the shell of the agent's row in passwd.
pub const SHELL: &str = "/bin/sh";

/// The agent as a row of passwd, without its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Home directory, as the agent sees it.
    pub home: PathBuf,
}

impl Account {
    /// The account of a policy's identity.
    pub fn of(policy: &Policy) -> Self {
        let name = match &policy.identity.user {
            UserChoice::Dynamic => DYNAMIC_NAME,
            UserChoice::Caller => &policy.caller.name,
            UserChoice::Named(User { name, .. }) => name,
        };
        Self {
            name: name.to_owned(),
            home: policy.home.clone(),
        }
    }

    /// Content of `/etc/passwd`: root, the agent, nobody.
    pub fn passwd(&self, uid: u32, gid: u32) -> Vec<u8> {
        let (name, home) = (&self.name, self.home.display());
        format!(
            "root:x:0:0:root:/root:/usr/sbin/nologin\n\
             {name}:x:{uid}:{gid}:lp-run agent:{home}:{SHELL}\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        )
        .into_bytes()
    }

    /// Content of `/etc/group`: root, the agent's own, nogroup.
    pub fn group(&self, gid: u32) -> Vec<u8> {
        format!("root:x:0:\n{}:x:{gid}:\nnogroup:x:65534:\n", self.name).into_bytes()
    }
}

/// Path and content of each file of the private view; whether there are `names` that the run may
/// reach.
pub fn files(names: bool) -> Vec<(PathBuf, Generated)> {
    let bytes = |text: &str| Generated::Bytes(text.as_bytes().to_vec());
    let hosts = if names { "files dns" } else { "files" };
    let resolv = match names {
        true => format!("nameserver {RESOLVER}\n"),
        false => RESOLV.to_owned(),
    };
    [
        ("/etc/group", Generated::Group),
        ("/etc/hosts", bytes(HOSTS)),
        (
            "/etc/nsswitch.conf",
            bytes(&NSSWITCH.replace("HOSTS", hosts)),
        ),
        ("/etc/passwd", Generated::Passwd),
        ("/etc/resolv.conf", bytes(&resolv)),
    ]
    .into_iter()
    .map(|(path, content)| (Path::new(path).to_owned(), content))
    .collect()
}

const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// No service but files, and DNS where there are names: the others open sockets that the view
/// does not have, and a question about a name that no rule holds would only be refused.
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: HOSTS\n\
                        services: files\nprotocols: files\nnetworks: files\nethers: files\n\
                        rpc: files\n";

/// Without a `nameserver` line the C library asks 127.0.0.1, which is refused at once.
const RESOLV: &str =
    "# The policy names no host, so nobody answers here.\noptions attempts:1 timeout:1\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_and_group_hold_three_rows() {
        let account = Account {
            name: "agent".to_owned(),
            home: PathBuf::from("/home/agent"),
        };
        let passwd = String::from_utf8(account.passwd(2_000_000_417, 2_000_000_417)).unwrap();
        assert_eq!(passwd.lines().count(), 3);
        assert!(
            passwd.contains("\nagent:x:2000000417:2000000417:lp-run agent:/home/agent:/bin/sh\n")
        );
        assert_eq!(
            account.group(7),
            b"root:x:0:\nagent:x:7:\nnogroup:x:65534:\n"
        );
    }
}
