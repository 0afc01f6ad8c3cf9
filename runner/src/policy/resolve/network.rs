// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[network]`: addresses and names to reach, who resolves them, addresses to listen on, Unix
//! sockets.

use std::net::{IpAddr, SocketAddr};

use super::super::address::{self, Address, DNS_PORT, List};
use super::super::error::quote;
use super::super::facts::{FactError, Kind, Need};
use super::super::layers::Layer;
use super::super::model::{Endpoint, ListenRule, NetworkRule, UnixRule, Verify};
use super::super::schema::{NetworkText, UnixText};
use super::guard::Verdict;
use super::{Resolver, paths};

impl Resolver<'_> {
    /// The three lists.
    pub(super) fn network(&mut self) -> (Vec<NetworkRule>, Vec<ListenRule>, Vec<UnixRule>) {
        let (mut rules, mut listen, mut unix) = (Vec::new(), Vec::new(), Vec::new());
        for layer in self.layers {
            for text in &layer.schema.network {
                let list = match text.takes_away {
                    true => List::Deny,
                    false => List::Allow {
                        private: text.private,
                    },
                };
                let Some((value, address)) = self.address(text, list) else {
                    continue;
                };
                let verify = self.verify(text, &address.to);
                let info = self.info(layer, &text.to, &text.rule, value);
                rules.push(NetworkRule {
                    info,
                    takes_away: text.takes_away,
                    to: address.to,
                    ports: address.ports,
                    protocols: address.protocols,
                    private: text.private,
                    verify,
                });
            }
            for text in &layer.schema.listen {
                listen.extend(self.listener(layer, text));
            }
            for text in &layer.schema.unix {
                unix.extend(self.socket(layer, text));
            }
        }
        (rules, listen, unix)
    }

    /// What is compared before a name is reached.
    fn verify(&mut self, text: &NetworkText, to: &Endpoint) -> Option<Verify> {
        let word = text.verify.as_ref()?;
        if !matches!(to, Endpoint::Name(_)) {
            let what = "is for destinations by name; remove it, or write the name";
            self.errors.add(&word.place, &word.key, what);
        }
        Some(match word.value.as_str() {
            "address" => Verify::Address,
            _ => Verify::Sni,
        })
    }

    /// `network.resolver`, of all files.
    pub(super) fn resolvers(&mut self) -> Vec<SocketAddr> {
        let mut resolvers = Vec::new();
        for text in self.layers.iter().flat_map(|layer| &layer.schema.resolver) {
            let Some(value) = self.replaced(text) else {
                continue;
            };
            match resolver(&value) {
                Some(address) if resolvers.contains(&address) => {}
                Some(address) => resolvers.push(address),
                None => {
                    let what = format!(
                        "{} is no address of a name server; write \"10.0.0.53\" or \
                         \"[2001:db8::53]:5353\"",
                        quote(&value)
                    );
                    self.errors.add(&text.place, &text.key, what);
                }
            }
        }
        if resolvers.len() > MAX_RESOLVERS {
            let what = format!("network.resolver: at most {MAX_RESOLVERS} are asked; remove some");
            let last = self
                .layers
                .iter()
                .rev()
                .find_map(|layer| layer.schema.resolver.last());
            if let Some(text) = last {
                self.errors.add(&text.place, &text.key, what);
            }
        }
        resolvers
    }

    fn address(&mut self, text: &NetworkText, list: List) -> Option<(String, Address)> {
        let value = self.replaced(&text.to)?;
        match address::parse(&value, list) {
            Ok(address) => Some((value, address)),
            Err(what) => {
                let what = format!("{} {what}", quote(&value));
                self.errors.add(&text.to.place, &text.to.key, what);
                None
            }
        }
    }

    fn listener(&mut self, layer: &Layer, text: &NetworkText) -> Option<ListenRule> {
        let (value, address) = self.address(text, List::Listen)?;
        let Endpoint::Nets(nets) = &address.to else {
            return None;
        };
        let single = match nets.as_slice() {
            [net] if net.prefix_len() == net.max_prefix_len() => Some(net.addr()),
            _ => None,
        };
        let Some(local) = single else {
            let what = match value.contains("localhost") {
                true => "is two addresses; write 127.0.0.1 and [::1], one entry each",
                false => "is a range; write one local address, or 0.0.0.0 or [::] for all",
            };
            self.errors.add(
                &text.to.place,
                &text.to.key,
                format!("{} {what}", quote(&value)),
            );
            return None;
        };
        if is_no_local_address(&local) {
            let what = format!(
                "{} is no address of a machine; write a local one",
                quote(&value)
            );
            self.errors.add(&text.to.place, &text.to.key, what);
        }
        let info = self.info(layer, &text.to, &text.rule, value);
        let protocol = *address.protocols.first()?;
        Some(ListenRule {
            info,
            address: local,
            ports: address.ports,
            protocol,
        })
    }

    fn socket(&mut self, layer: &Layer, text: &UnixText) -> Option<UnixRule> {
        let value = self.replaced(&text.path)?;
        let socket = match value.as_str() {
            "self" => Ok(None),
            _ => self.open_socket(layer, text, &value).map(Some),
        };
        match socket {
            Ok(socket) => {
                let dangerous = text.dangerous.as_ref().map(|reason| reason.value.clone());
                let info = self.info(layer, &text.path, &text.rule, value);
                Some(UnixRule {
                    info,
                    socket,
                    dangerous,
                })
            }
            Err(what) => {
                self.errors.add(&text.path.place, &text.path.key, what);
                None
            }
        }
    }

    fn open_socket(
        &mut self,
        layer: &Layer,
        text: &UnixText,
        value: &str,
    ) -> Result<super::super::facts::Object, String> {
        if value.starts_with('@') {
            return Err(format!(
                "{}: abstract sockets are not in this version; write a path",
                quote(value)
            ));
        }
        if !value.is_empty() && !value.contains('/') {
            return Err(format!(
                "{}: names of sockets are not in this version; write a path, or \"self\" for \
                 the run's own",
                quote(value)
            ));
        }
        let path = paths::absolute(value)?;
        let held = self.holds(layer, &text.path.value);
        let socket = self
            .open(held, &path, &self.trusted())
            .map_err(|error| match error {
                FactError::Missing(_) => {
                    format!("{} does not exist; start its server first", quote(value))
                }
                error => super::super::source::reason(&error),
            })?;
        if socket.kind != Kind::Socket {
            return Err(format!(
                "{} is no socket; write files under [files]",
                quote(value)
            ));
        }
        let verdict = self.judge_socket(&socket);
        self.check_dangerous(layer, text.dangerous.as_ref(), verdict)?;
        if held && !self.caller_may(&socket, Need::Connect) {
            return Err(format!(
                "{} may not connect to {}",
                self.caller.name,
                quote(value)
            ));
        }
        Ok(socket)
    }

    /// Whether a grant passes its verdict: `dangerous` needs a reason, and a policy of root.
    pub(super) fn check_dangerous(
        &self,
        layer: &Layer,
        reason: Option<&super::super::tree::At<String>>,
        verdict: Verdict,
    ) -> Result<(), String> {
        if reason.is_some_and(|reason| reason.value.trim().is_empty()) {
            return Err("dangerous has no reason; write dangerous = \"why it must be\"".to_owned());
        }
        if reason.is_some() && (self.owner != 0 || layer.source.owner != 0) {
            return Err("only a policy of root may say dangerous; remove the rule".to_owned());
        }
        match verdict {
            Verdict::Never(what) => Err(what),
            Verdict::Dangerous(what) if reason.is_none() => Err(what),
            _ => Ok(()),
        }
    }
}

/// Most name servers of a policy.
const MAX_RESOLVERS: usize = 8;

/// An address, with or without a port.
fn resolver(text: &str) -> Option<SocketAddr> {
    let alone = text
        .parse()
        .map(|address: IpAddr| (address, DNS_PORT).into());
    let address: SocketAddr = text.parse().or(alone).ok()?;
    let fine = address.port() != 0
        && !address.ip().is_unspecified()
        && !address.ip().is_multicast()
        && !is_no_local_address(&address.ip());
    fine.then_some(address)
}

fn is_no_local_address(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}
