// SPDX-License-Identifier: MIT OR Apache-2.0
//! Destinations by name. Each name of a rule has an address of its own that exists nowhere else:
//! lp-run's resolver gives it out, the programs decide on it as on any address, and the relay
//! knows the name from it. A wildcard has a prefix, of which each name gets an address when it
//! is first asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lp_run_common::network::{
    Candidate, MAX_CANDIDATES, PROTOCOL_TCP, PROTOCOL_UDP, VERDICT_ALLOW, VERDICT_DENY,
};

use super::error::CompileError;
use super::{Prefix, Row};
use crate::policy::address::DNS_PORT;
use crate::policy::model::{Endpoint, NetworkRule, Policy, Protocol, Verify};
use crate::policy::name::HostPattern;

/// Where the addresses of names come from (RFC 2544: never on the internet), IPv4.
pub const SYNTHETIC_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);
/// The same, IPv6: private, and of the run's own network namespace, so that it may be everywhere
/// the same.
pub const SYNTHETIC_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd6c, 0x7072, 0x756e, 0, 0, 0, 0, 0), 48);
/// What `resolv.conf` names: any other address with port 53 would do as well.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

/// The first address of an exact name.
const EXACT_V4: u32 = 0xc612_0101;
/// Most exact names: what is left up to the wildcards.
const MAX_EXACT: u32 = 0xfe00;
/// The first prefix of a wildcard.
const WILD_V4: u32 = 0xc613_0000;
/// The length of each.
const WILD_LENGTH: u8 = 22;
/// Most wildcards.
pub const MAX_WILDCARDS: u32 = 64;

/// The names of a run.
#[derive(Clone, Debug)]
pub struct Names {
    /// Each name and wildcard that a rule writes, once.
    pub hosts: Vec<Host>,
    /// Addresses that no name may lead to, with their ports: `network.deny`.
    pub denied: Vec<(IpNet, (u16, u16), Row)>,
    /// Who is asked; empty: whom the host asks.
    pub upstream: Vec<SocketAddr>,
    /// Counts the questions.
    pub questions: Row,
    /// Addresses of rules are in loopback, and the relay reaches the host's.
    pub loopback: bool,
}

/// A name or a wildcard with all rules that speak of it.
#[derive(Clone, Debug)]
pub struct Host {
    /// What was written.
    pub pattern: HostPattern,
    /// Its address or prefix.
    pub v4: Ipv4Net,
    /// The same.
    pub v6: Ipv6Net,
    /// Refusals first, then the most specific, then the order of the file.
    pub rules: Vec<HostRule>,
}

/// A rule that speaks of a name.
#[derive(Clone, Debug)]
pub struct HostRule {
    /// Counter row.
    pub row: Row,
    /// An entry of `deny`.
    pub takes_away: bool,
    /// Inclusive.
    pub ports: (u16, u16),
    /// The name may lead into special ranges.
    pub private: bool,
    /// What is compared; `None`: by the port.
    pub verify: Option<Verify>,
}

impl HostRule {
    fn speaks_of(&self, port: u16) -> bool {
        (self.ports.0..=self.ports.1).contains(&port)
    }

    /// What is compared on `port`.
    pub fn verify(&self, port: u16) -> Verify {
        match port {
            443 | 80 => self.verify.unwrap_or(Verify::Sni),
            _ => self.verify.unwrap_or(Verify::Address),
        }
    }
}

impl Host {
    /// The rule that decides on `port`.
    pub fn rule(&self, port: u16) -> Option<&HostRule> {
        self.rules.iter().find(|rule| rule.speaks_of(port))
    }

    /// Whether any port is left to the name, else the rule that takes it away.
    pub fn open(&self) -> Result<(), Option<Row>> {
        let left = candidates(&self.rules);
        match left.iter().any(|one| one.verdict == VERDICT_ALLOW) {
            true => Ok(()),
            false => Err(self.rules.first().map(|rule| rule.row)),
        }
    }
}

impl Names {
    /// The most specific name or wildcard that means `name`.
    pub fn host(&self, name: &str) -> Option<usize> {
        let hosts = self.hosts.iter().enumerate();
        hosts
            .filter(|(_, host)| host.pattern.covers(name))
            .max_by_key(|(_, host)| specificity(&host.pattern))
            .map(|(index, _)| index)
    }

    /// The name or wildcard that an address belongs to.
    pub fn of_address(&self, address: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|host| match address {
            IpAddr::V4(address) => host.v4.contains(&address),
            IpAddr::V6(address) => host.v6.contains(&address),
        })
    }

    /// Whether an address is one of names, given out or not.
    pub fn is_synthetic(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => SYNTHETIC_V4.contains(&address),
            IpAddr::V6(address) => SYNTHETIC_V6.contains(&address),
        }
    }

    /// The row of the rule that no connection to `to` may be made by.
    pub fn denied(&self, to: SocketAddr) -> Option<Row> {
        let mut denied = self.denied.iter();
        let found = denied.find(|(net, ports, _)| {
            net.contains(&to.ip()) && (ports.0..=ports.1).contains(&to.port())
        });
        found.map(|(_, _, row)| *row)
    }

    /// What the programs are told: each name as a prefix.
    pub(super) fn prefixes(
        &self,
        key: &dyn Fn(u32) -> String,
    ) -> Result<Vec<Prefix>, CompileError> {
        let mut prefixes = Vec::new();
        for host in &self.hosts {
            let candidates = candidates(&host.rules);
            if candidates.len() > MAX_CANDIDATES {
                return Err(CompileError::TooManyCandidates {
                    prefix: host.pattern.to_string(),
                    most: MAX_CANDIDATES,
                    keys: candidates.iter().map(|one| key(one.row.into())).collect(),
                });
            }
            let v4 = (
                host.v4.network().to_ipv6_mapped(),
                96 + host.v4.prefix_len(),
            );
            let v6 = (host.v6.network(), host.v6.prefix_len());
            prefixes.extend([v4, v6].map(|(address, length)| Prefix {
                address,
                length,
                candidates: candidates.clone(),
            }));
        }
        Ok(prefixes)
    }

    /// Questions, to any address.
    pub(super) fn questions(&self) -> Candidate {
        Candidate {
            port_low: DNS_PORT,
            port_high: DNS_PORT,
            protocols: PROTOCOL_TCP | PROTOCOL_UDP,
            verdict: VERDICT_ALLOW,
            row: self.questions as u16,
        }
    }
}

/// The names of a policy, when it has any. `first` is the row of `network[0]`, `questions` that
/// of the questions.
pub(super) fn compile(
    policy: &Policy,
    first: Row,
    questions: Row,
) -> Result<Option<Names>, Vec<CompileError>> {
    if !policy.has_names() {
        return Ok(None);
    }
    let mut errors = beside_names(policy);
    let mut names = Names {
        hosts: Vec::new(),
        denied: Vec::new(),
        upstream: policy.resolvers.clone(),
        questions,
        loopback: policy.network.iter().any(opens_loopback),
    };
    let mut patterns: Vec<&HostPattern> = policy.network.iter().filter_map(pattern).collect();
    patterns.sort();
    patterns.dedup();
    let (mut exact, mut wild) = (0, 0);
    for pattern in patterns {
        let (v4, v6) = match pattern.wildcard {
            false => exact_address(&mut exact),
            true => wild_prefix(&mut wild),
        };
        names.hosts.push(Host {
            pattern: pattern.clone(),
            v4,
            v6,
            rules: rules_of(policy, pattern, first),
        });
    }
    if wild > MAX_WILDCARDS || exact > MAX_EXACT {
        errors.push(CompileError::TooManyNames {
            most: MAX_WILDCARDS,
        });
    }
    for (row, rule) in (first..).zip(&policy.network) {
        if let (Endpoint::Nets(nets), true) = (&rule.to, rule.takes_away)
            && rule.protocols.contains(&Protocol::Tcp)
        {
            names
                .denied
                .extend(nets.iter().map(|net| (*net, rule.ports, row)));
        }
    }
    match errors.is_empty() {
        true => Ok(Some(names)),
        false => Err(errors),
    }
}

/// Rules that cannot stand beside names: their run has a network namespace of its own, in which
/// nothing but the relay leads out.
fn beside_names(policy: &Policy) -> Vec<CompileError> {
    let beside = |key: &str, what| CompileError::BesideNames {
        key: key.to_owned(),
        what,
    };
    let itself = policy
        .network
        .iter()
        .any(|rule| !rule.takes_away && rule.to == Endpoint::Itself);
    let mut errors = Vec::new();
    for rule in policy.network.iter().filter(|rule| !rule.takes_away) {
        let Endpoint::Nets(nets) = &rule.to else {
            continue;
        };
        if rule.protocols.contains(&Protocol::Udp) {
            errors.push(beside(&rule.info.key, "UDP to an address"));
        } else if opens_loopback(rule) && itself {
            errors.push(beside(
                &rule.info.key,
                "the host's loopback beside \"self\"",
            ));
        } else if nets.iter().any(is_in_synthetic) {
            errors.push(beside(&rule.info.key, "an address out of those for names"));
        }
    }
    errors.extend(of_the_resolver(policy));
    errors.extend(not_compared(policy));
    let listen = policy.listen.iter();
    errors.extend(listen.map(|rule| beside(&rule.info.key, "listening on the host")));
    errors
}

/// Grants of port 53, where every address has lp-run's resolver.
fn of_the_resolver(policy: &Policy) -> impl Iterator<Item = CompileError> {
    let rules = policy.network.iter().filter(|rule| !rule.takes_away);
    let rules = rules.filter(|rule| {
        rule.to != Endpoint::Itself
            && rule.protocols.contains(&Protocol::Tcp)
            && (rule.ports.0..=rule.ports.1).contains(&DNS_PORT)
    });
    rules.map(|rule| CompileError::PortOfTheResolver {
        key: rule.info.key.clone(),
    })
}

/// Names that are taken away, where another rule leads to any name at its address.
fn not_compared(policy: &Policy) -> impl Iterator<Item = CompileError> {
    let (taken, granted): (Vec<_>, Vec<_>) =
        policy.network.iter().partition(|rule| rule.takes_away);
    let leads_past = |taken: &NetworkRule, grant: &NetworkRule| {
        let ports = (
            taken.ports.0.max(grant.ports.0),
            taken.ports.1.min(grant.ports.1),
        );
        let (Endpoint::Name(name), true) = (&taken.to, ports.0 <= ports.1) else {
            return false;
        };
        match &grant.to {
            Endpoint::Nets(_) => grant.protocols.contains(&Protocol::Tcp),
            // By number, a wildcard leads to each name that shares the address.
            Endpoint::Name(wide) => {
                let by_number = match grant.verify {
                    Some(verify) => verify == Verify::Address,
                    None => (ports.0..=ports.1).any(|port| ![80, 443].contains(&port)),
                };
                wide != name && wide.contains(name) && by_number
            }
            Endpoint::Itself => false,
        }
    };
    let mut errors = Vec::new();
    for rule in taken {
        let past = granted.iter().find(|grant| leads_past(rule, grant));
        errors.extend(past.map(|grant| CompileError::NameNotCompared {
            key: rule.info.key.clone(),
            grant: grant.info.key.clone(),
        }));
    }
    errors.into_iter()
}

fn is_in_synthetic(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => SYNTHETIC_V4.contains(net),
        IpNet::V6(net) => SYNTHETIC_V6.contains(net),
    }
}

/// Whether a rule leads to the host's own loopback.
fn opens_loopback(rule: &NetworkRule) -> bool {
    let Endpoint::Nets(nets) = &rule.to else {
        return false;
    };
    let into = |net: &IpNet| net.addr().is_loopback();
    let over = |net: &IpNet| {
        net.contains(&IpAddr::from(Ipv4Addr::LOCALHOST))
            || net.contains(&IpAddr::from(Ipv6Addr::LOCALHOST))
    };
    !rule.takes_away
        && nets
            .iter()
            .any(|net| into(net) || rule.private && over(net))
}

fn pattern(rule: &NetworkRule) -> Option<&HostPattern> {
    match &rule.to {
        Endpoint::Name(pattern) => Some(pattern),
        _ => None,
    }
}

fn specificity(pattern: &HostPattern) -> (bool, usize) {
    (!pattern.wildcard, pattern.name.len())
}

/// All rules that mean everything that `host` means.
fn rules_of(policy: &Policy, host: &HostPattern, first: Row) -> Vec<HostRule> {
    let mut rules: Vec<(&HostPattern, HostRule)> = (first..)
        .zip(&policy.network)
        .filter_map(|(row, rule)| {
            let pattern = pattern(rule).filter(|pattern| pattern.contains(host))?;
            let rule = HostRule {
                row,
                takes_away: rule.takes_away,
                ports: rule.ports,
                private: rule.private,
                verify: rule.verify,
            };
            Some((pattern, rule))
        })
        .collect();
    rules.sort_by_key(|(pattern, rule)| {
        let specific = std::cmp::Reverse(specificity(pattern));
        (!rule.takes_away, specific, rule.row)
    });
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// Without those that an earlier one always decides before.
fn candidates(rules: &[HostRule]) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for rule in rules {
        let covered = kept
            .iter()
            .any(|one| one.port_low <= rule.ports.0 && one.port_high >= rule.ports.1);
        if !covered {
            kept.push(Candidate {
                port_low: rule.ports.0,
                port_high: rule.ports.1,
                protocols: PROTOCOL_TCP,
                verdict: match rule.takes_away {
                    true => VERDICT_DENY,
                    false => VERDICT_ALLOW,
                },
                row: rule.row as u16,
            });
        }
    }
    kept
}

fn exact_address(count: &mut u32) -> (Ipv4Net, Ipv6Net) {
    let index = *count;
    *count += 1;
    let v4 = Ipv4Addr::from_bits(EXACT_V4 + index % MAX_EXACT);
    let v6 = v6(1, 0, index + 1);
    (Ipv4Net::new_assert(v4, 32), Ipv6Net::new_assert(v6, 128))
}

fn wild_prefix(count: &mut u32) -> (Ipv4Net, Ipv6Net) {
    let index = *count % MAX_WILDCARDS;
    *count += 1;
    let v4 = Ipv4Addr::from_bits(WILD_V4 + (index << (32 - WILD_LENGTH)));
    let v6 = v6(2, index as u16, 0);
    (
        Ipv4Net::new_assert(v4, WILD_LENGTH),
        Ipv6Net::new_assert(v6, 80),
    )
}

fn v6(kind: u16, index: u16, host: u32) -> Ipv6Addr {
    let [a, b, c, ..] = SYNTHETIC_V6.network().segments();
    Ipv6Addr::new(a, b, c, kind, index, 0, (host >> 16) as u16, host as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{errors, listen, named, net, plan, policy};
    use crate::plan::{Namespace, network};

    fn verdict(plan: &crate::plan::Plan, name: &str, port: u16) -> Option<(bool, u16)> {
        let names = plan.network.names.as_ref().unwrap();
        let host = &names.hosts[names.host(name)?];
        let both = [IpAddr::from(host.v4.addr()), host.v6.addr().into()].map(|address| {
            let candidates = network::lookup(&plan.network.destinations, address);
            network::decide(candidates, port, Protocol::Tcp)
                .map(|one| (one.verdict == VERDICT_ALLOW, one.row))
        });
        assert_eq!(both[0], both[1]);
        let rule = host
            .rule(port)
            .map(|rule| (!rule.takes_away, rule.row as u16));
        assert_eq!(both[0], rule, "the relay and the programs agree");
        both[0]
    }

    #[test]
    fn the_most_specific_rule_decides_and_what_takes_away_wins() {
        let mut policy = policy();
        named(&mut policy, false, "*.example.com", (443, 443));
        named(&mut policy, false, "db.example.com", (443, 5432));
        named(&mut policy, true, "*.telemetry.example.com", (1, 65535));
        named(&mut policy, true, "db.example.com", (500, 500));
        let plan = plan(policy);
        assert_eq!(plan.network.namespace, Namespace::Own);
        assert_eq!(verdict(&plan, "a.example.com", 443), Some((true, 0)));
        assert_eq!(verdict(&plan, "a.example.com", 80), None);
        assert_eq!(verdict(&plan, "db.example.com", 443), Some((true, 1)));
        assert_eq!(verdict(&plan, "db.example.com", 500), Some((false, 3)));
        assert_eq!(
            verdict(&plan, "x.telemetry.example.com", 443),
            Some((false, 2))
        );
        let names = plan.network.names.as_ref().unwrap();
        assert_eq!(names.host("example.com"), None);
        assert_eq!(names.host("badexample.com"), None);
        let telemetry = &names.hosts[names.host("x.telemetry.example.com").unwrap()];
        assert_eq!(telemetry.open(), Err(Some(2)));
    }

    #[test]
    fn no_two_names_share_an_address_and_nobody_else_has_one() {
        let mut policy = policy();
        for name in ["a.example", "b.example", "*.c.example", "*.d.example"] {
            named(&mut policy, false, name, (443, 443));
        }
        let plan = plan(policy);
        let names = plan.network.names.as_ref().unwrap();
        for (index, host) in names.hosts.iter().enumerate() {
            for address in [IpAddr::from(host.v4.addr()), host.v6.addr().into()] {
                assert_eq!(names.of_address(address), Some(index));
                assert!(Names::is_synthetic(address));
            }
        }
        assert_eq!(names.of_address(RESOLVER.into()), None);
        let free: IpAddr = "198.18.200.1".parse().unwrap();
        let candidates = network::lookup(&plan.network.destinations, free);
        assert!(network::decide(candidates, 443, Protocol::Tcp).is_none());
        let dns = network::decide(candidates, 53, Protocol::Udp).unwrap();
        assert_eq!(u32::from(dns.row), names.questions);
        assert_eq!(
            plan.rules[names.questions as usize].info.key,
            "network.resolver"
        );
    }

    #[test]
    fn what_cannot_stand_beside_names_is_refused() {
        for (nets, word) in [
            (&["198.18.5.0/24"][..], "out of those for names"),
            (&["127.0.0.0/8"], "loopback"),
        ] {
            let mut policy = policy();
            named(&mut policy, false, "a.example", (443, 443));
            net(&mut policy, false, &["self"], (1, 65535));
            net(&mut policy, false, nets, (1, 65535));
            let errors = errors(policy);
            assert!(errors[0].to_string().contains(word), "{errors:?}");
        }
        let mut udp = policy();
        named(&mut udp, false, "a.example", (443, 443));
        net(&mut udp, false, &["10.0.0.53/32"], (53, 53));
        udp.network[1].protocols = vec![Protocol::Udp];
        listen(&mut udp, "127.0.0.1", 80);
        assert_eq!(errors(udp).len(), 2);
        for (low, high) in [(53, 53), (1, 65535), (50, 60)] {
            let mut dns = policy();
            named(&mut dns, false, "a.example", (443, 443));
            named(&mut dns, false, "b.example", (low, high));
            net(&mut dns, false, &["10.0.0.53/32"], (low, high));
            net(&mut dns, true, &["10.0.0.54/32"], (low, high));
            let errors = errors(dns);
            let ours =
                |error: &CompileError| matches!(error, CompileError::PortOfTheResolver { .. });
            assert!(errors.len() == 2 && errors.iter().all(ours), "{errors:?}");
        }
        let mut many = policy();
        for index in 0..=MAX_WILDCARDS {
            named(&mut many, false, &format!("*.n{index}.example"), (443, 443));
        }
        assert!(matches!(
            errors(many)[..],
            [CompileError::TooManyNames { .. }]
        ));
    }

    #[test]
    fn more_names_than_there_are_prefixes_for_are_refused_before_a_start() {
        let build = |count| {
            let mut policy = policy();
            for index in 0..count {
                named(&mut policy, false, &format!("n{index}.example"), (443, 443));
            }
            policy
        };
        drop(plan(build(8000)));
        let errors = errors(build(8192));
        let ours = |error: &CompileError| matches!(error, CompileError::TooManyPrefixes { .. });
        assert!(errors.iter().all(ours) && errors.len() == 1, "{errors:?}");
    }

    #[test]
    fn a_name_is_taken_away_only_where_names_are_compared() {
        let build = |grant: &dyn Fn(&mut Policy)| {
            let mut policy = policy();
            grant(&mut policy);
            named(&mut policy, true, "secret.example.com", (1, 65535));
            policy
        };
        let compared = |grant: &dyn Fn(&mut Policy)| drop(plan(build(grant)));
        let not = |grant: &dyn Fn(&mut Policy)| {
            let errors = errors(build(grant));
            let ours = |error: &CompileError| matches!(error, CompileError::NameNotCompared { .. });
            assert!(errors.len() == 1 && ours(&errors[0]), "{errors:?}");
        };
        compared(&|policy| named(policy, false, "*.example.com", (443, 443)));
        compared(&|policy| named(policy, false, "db.example.com", (8443, 8443)));
        not(&|policy| named(policy, false, "*.example.com", (8443, 8443)));
        not(&|policy| named(policy, false, "*.example.com", (443, 444)));
        not(&|policy| net(policy, false, &["0.0.0.0/0"], (443, 443)));
        not(&|policy| {
            named(policy, false, "*.example.com", (443, 443));
            policy.network[0].verify = Some(Verify::Address);
        });
    }

    #[test]
    fn addresses_beside_names_go_through_the_relay() {
        let mut policy = policy();
        named(&mut policy, false, "a.example", (443, 443));
        net(&mut policy, false, &["10.0.0.0/8"], (5432, 5432));
        let plan = plan(policy);
        assert_eq!(plan.network.namespace, Namespace::Own);
        assert!(!plan.network.names.as_ref().unwrap().loopback);
        let mut policy = crate::plan::testing::policy();
        named(&mut policy, false, "a.example", (443, 443));
        net(&mut policy, false, &["127.0.0.1/32"], (5432, 5432));
        assert!(
            crate::plan::testing::plan(policy)
                .network
                .names
                .unwrap()
                .loopback
        );
    }
}
