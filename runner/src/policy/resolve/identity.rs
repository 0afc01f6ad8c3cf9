// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who the agent is, where its home lies, and what it finds there.

use std::path::PathBuf;

use super::super::error::quote;
use super::super::facts::User;
use super::super::model::{HomeChoice, Identity, UserChoice, ViewChoice};
use super::super::schema::Schema;
use super::super::tree::At;
use super::Resolver;
use super::kept::STATE;

/// Groups whose members are root but for one more step: they become it by their own password or
/// through a socket, or read and write below all permissions.
const LEAD_TO_ROOT: [&str; 11] = [
    "root",
    "wheel",
    "sudo",
    "admin",
    "docker",
    "lxd",
    "incus-admin",
    "libvirt",
    "disk",
    "kmem",
    "shadow",
];

/// `[identity]` as it is when nothing is written.
pub fn default() -> Identity {
    Identity {
        user: UserChoice::Dynamic,
        home: HomeChoice::Temp,
        terminal: true,
        stdio_direct: false,
        view: ViewChoice::Private,
    }
}

impl Resolver<'_> {
    /// Resolves `[identity]` and the agent's home.
    pub(super) fn identity(&mut self) {
        if let Some(user) = self.scalar(|schema| schema.user.as_ref()) {
            self.identity.user = self.user(&user);
        } else {
            self.default("identity.user", "dynamic");
        }
        if let Some(home) = self.word("identity.home", "temp", |schema| schema.home.as_ref()) {
            self.identity.home = match home.as_str() {
                "state" => HomeChoice::State,
                "caller" => HomeChoice::Caller,
                _ => HomeChoice::Temp,
            };
        }
        let terminal = self.word("identity.terminal", "auto", |schema| {
            schema.terminal.as_ref()
        });
        self.identity.terminal = terminal.as_deref() != Some("none");
        let stdio = self.word("identity.stdio", "auto", |schema| schema.stdio.as_ref());
        self.identity.stdio_direct = stdio.as_deref() == Some("direct");
        let view = self.word("identity.view", "private", |schema| schema.view.as_ref());
        if view.as_deref() == Some("host") {
            self.identity.view = ViewChoice::Host;
        }
        self.home = match (self.identity.home, self.identity.view) {
            (HomeChoice::Caller, _) => self.caller.home.clone(),
            (HomeChoice::State, _) => self.kept(STATE).join("home"),
            (HomeChoice::Temp, ViewChoice::Private) => PathBuf::from("/home/agent"),
            // The host's tree is read-only: the home stands where the run has a place already.
            (HomeChoice::Temp, ViewChoice::Host) => PathBuf::from("/run/lp-run/home"),
        };
    }

    fn word(
        &mut self,
        key: &str,
        default: &str,
        get: impl Fn(&Schema) -> Option<&At<String>>,
    ) -> Option<String> {
        let value = self.scalar(get).map(|value| value.value);
        if value.is_none() {
            self.default(key, default);
        }
        value
    }

    fn user(&mut self, user: &At<String>) -> UserChoice {
        let mistake = match user.value.as_str() {
            "dynamic" => return UserChoice::Dynamic,
            "caller" if self.caller.uid != 0 => return UserChoice::Caller,
            "caller" => "the caller is root, and an agent is never root; write user = \"dynamic\""
                .to_owned(),
            "" => "is empty; write user = \"dynamic\"".to_owned(),
            name => match self.facts.user(name) {
                Some(found) if found.uid == 0 => {
                    format!(
                        "{} is root, and an agent is never root; write user = \"dynamic\"",
                        quote(name)
                    )
                }
                Some(found)
                    if self.caller.uid == 0 || self.owner == 0 || found.uid == self.caller.uid =>
                {
                    match self.leads_to_root(&found) {
                        None => return UserChoice::Named(found),
                        Some(why) => format!("{why}; write user = \"dynamic\""),
                    }
                }
                Some(_) => format!(
                    "{} may not start programs as {}: the policy is not root's; write user = \"caller\"",
                    self.caller.name,
                    quote(name)
                ),
                None => format!(
                    "{} is no user of this machine; write user = \"dynamic\"",
                    quote(name)
                ),
            },
        };
        self.errors.add(&user.place, &user.key, mistake);
        UserChoice::Dynamic
    }

    /// Why a user is root in all but name. The run has none of his groups, but what he owns and
    /// what runs as him is as powerful as they are. Who names himself gets what `caller` gives.
    fn leads_to_root(&self, user: &User) -> Option<String> {
        if user.uid == self.caller.uid {
            return None;
        }
        let group = LEAD_TO_ROOT.iter().find(|name| {
            let group = self.facts.group(name);
            group.is_some_and(|gid| self.facts.in_group(user, gid))
        })?;
        Some(format!(
            "{} is in the group {}, which leads to root",
            quote(&user.name),
            quote(group)
        ))
    }
}
