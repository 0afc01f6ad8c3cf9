// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network rules in pushed-down prefix form: for each prefix the complete, sorted list of the
//! rules that concern an address whose longest match it is, so that the kernel decides with
//! one lookup.
//!
//! A prefix stands in the result for each network that a rule names and for each special range
//! (the holes in broad rules). A rule concerns a prefix when it contains it, and, if it
//! allows, when no special range lies between them. IPv4 and IPv6 never concern each other,
//! though IPv4 is a part of the same 128-bit tree.
//!
//! Landlock's TCP rules are not used: Landlock stands before the cgroup hooks, would answer
//! EACCES in their place, and the refusal would neither be counted nor reported.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use lp_run_common::network::{
    Candidate, MAX_CANDIDATES, MAX_PREFIXES_PER_RUN, PROTOCOL_TCP, PROTOCOL_UDP, VERDICT_ALLOW,
    VERDICT_DENY,
};

use super::error::CompileError;
use super::{Namespace, Network, Prefix, Row, names, special};
use crate::policy::model::{Endpoint, ListenRule, NetworkRule, Policy, Protocol};

/// The network of a policy. `first` is the row of `network[0]`; listen and unix rules follow
/// the network rules.
pub fn compile(policy: &Policy, first: Row) -> Result<Network, Vec<CompileError>> {
    let namespace = namespace(policy);
    let listen_first = first + policy.network.len() as Row;
    let unix_first = listen_first + policy.listen.len() as Row;
    let questions = unix_first + policy.unix.len() as Row;
    let names = names::compile(policy, first, questions)?;
    let itself = (first..)
        .zip(&policy.network)
        .find(|(_, rule)| rule.to == Endpoint::Itself && !rule.takes_away);
    let mut errors = Vec::new();
    let itself = itself.map(|(row, _)| row);
    // In the host's namespace loopback belongs to everybody: there the programs find out who
    // listens, and no entry may grant the whole of it.
    let own = itself.filter(|_| namespace == Namespace::Own);
    let key = |row: u32| {
        let infos = policy.network.iter().map(|rule| &rule.info);
        let mut infos = infos.chain(policy.listen.iter().map(|rule| &rule.info));
        infos
            .nth((row - first) as usize)
            .map_or_else(String::new, |info| info.key.clone())
    };
    let mut pushed = |entries: Vec<Entry>, with_holes| {
        push_down(&entries, with_holes, &key).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        })
    };
    let mut entries = destinations(policy, first, own);
    if let Some(names) = &names {
        let candidate = names.questions();
        entries.extend([V4, V6].map(|span| Entry {
            span,
            candidate,
            private: true,
        }));
    }
    let mut destinations = pushed(entries, true);
    let listeners = pushed(listeners(policy, listen_first, own), false);
    match names.as_ref().map(|names| names.prefixes(&key)).transpose() {
        Ok(prefixes) => destinations.extend(prefixes.into_iter().flatten()),
        Err(error) => errors.push(error),
    }
    // The network rules' own were counted before those of names came to them.
    if errors.is_empty() && destinations.len() > MAX_PREFIXES_PER_RUN as usize {
        errors.push(CompileError::TooManyPrefixes {
            most: MAX_PREFIXES_PER_RUN as usize,
            are: destinations.len(),
        });
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let unix = (unix_first..)
        .zip(&policy.unix)
        .filter_map(|(row, rule)| Some((rule.socket.clone()?, row)));
    Ok(Network {
        namespace,
        destinations,
        listeners,
        itself,
        names,
        landlock_connect: None,
        landlock_bind: None,
        unix: unix.collect(),
    })
}

/// Where the agent may send.
fn destinations(policy: &Policy, first: Row, itself: Option<Row>) -> Vec<Entry> {
    let rules = (first..).zip(&policy.network);
    let mut entries: Vec<Entry> = rules
        .flat_map(|(row, rule)| Entry::of_rule(rule, row))
        .collect();
    let own = itself
        .into_iter()
        .flat_map(|row| LOOPBACK.map(|span| Entry::own(span, row)));
    entries.extend(own);
    entries
}

/// What the agent may bind, and be reached at.
fn listeners(policy: &Policy, first: Row, itself: Option<Row>) -> Vec<Entry> {
    let rules = (first..).zip(&policy.listen);
    let mut entries: Vec<Entry> = rules
        .map(|(row, rule)| Entry::of_listener(rule, row))
        .collect();
    entries.extend(
        itself
            .into_iter()
            .flat_map(|row| [V4, V6].map(|span| Entry::own(span, row))),
    );
    entries
}

/// The candidates for one address: those of its longest match, as the kernel finds them.
pub fn lookup(prefixes: &[Prefix], address: IpAddr) -> &[Candidate] {
    let address = mapped(address);
    prefixes
        .iter()
        .filter(|prefix| {
            Span {
                address: u128::from(prefix.address),
                length: prefix.length,
            }
            .holds(address)
        })
        .max_by_key(|prefix| prefix.length)
        .map_or(&[], |prefix| &prefix.candidates)
}

/// The candidate that decides for a port and a protocol; `None` refuses.
pub fn decide(candidates: &[Candidate], port: u16, protocol: Protocol) -> Option<&Candidate> {
    candidates.iter().find(|candidate| {
        (candidate.port_low..=candidate.port_high).contains(&port)
            && candidate.protocols & bit(protocol) != 0
    })
}

/// A run that no rule leads out of gets a network namespace of its own, and so does one with
/// names: lp-run alone leads out of it.
fn namespace(policy: &Policy) -> Namespace {
    if policy.has_names() {
        return Namespace::Own;
    }
    let leads_out = |rule: &NetworkRule| !rule.takes_away && matches!(rule.to, Endpoint::Nets(_));
    if policy.listen.is_empty() && !policy.network.iter().any(leads_out) {
        Namespace::Own
    } else {
        Namespace::Host
    }
}

fn bit(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => PROTOCOL_TCP,
        Protocol::Udp => PROTOCOL_UDP,
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// A part of the 128-bit tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    address: u128,
    length: u8,
}

/// All of IPv4.
const V4: Span = Span {
    address: 0xffff_0000_0000,
    length: 96,
};
/// All of IPv6, which IPv4 is cut out of.
const V6: Span = Span {
    address: 0,
    length: 0,
};

/// 127.0.0.0/8 and ::1.
const LOOPBACK: [Span; 2] = [
    Span {
        address: 0xffff_7f00_0000,
        length: 104,
    },
    Span {
        address: 1,
        length: 128,
    },
];

impl Span {
    fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self {
                address: u128::from(net.network().to_ipv6_mapped()),
                length: 96 + net.prefix_len(),
            },
            IpNet::V6(net) => Self {
                address: u128::from(net.network()),
                length: net.prefix_len(),
            },
        }
    }

    fn holds(self, address: u128) -> bool {
        self.length == 0 || (self.address ^ address) >> (128 - u32::from(self.length)) == 0
    }

    fn contains(self, other: Self) -> bool {
        self.length <= other.length && self.holds(other.address)
    }

    fn is_v4(self) -> bool {
        V4.contains(self)
    }
}

/// One rule for one network.
#[derive(Clone, Debug)]
struct Entry {
    span: Span,
    candidate: Candidate,
    private: bool,
}

impl Entry {
    fn of_rule(rule: &NetworkRule, row: Row) -> Vec<Self> {
        let Endpoint::Nets(nets) = &rule.to else {
            return Vec::new();
        };
        let candidate = Candidate {
            port_low: rule.ports.0,
            port_high: rule.ports.1,
            protocols: rule
                .protocols
                .iter()
                .fold(0, |bits, protocol| bits | bit(*protocol)),
            verdict: if rule.takes_away {
                VERDICT_DENY
            } else {
                VERDICT_ALLOW
            },
            row: row as u16,
        };
        nets.iter()
            .map(|net| Self {
                span: Span::of(net),
                candidate,
                private: rule.private,
            })
            .collect()
    }

    /// An unspecified address means every address of its family.
    fn of_listener(rule: &ListenRule, row: Row) -> Self {
        let span = match rule.address {
            address if !address.is_unspecified() => Span {
                address: mapped(address),
                length: 128,
            },
            IpAddr::V4(_) => V4,
            IpAddr::V6(_) => V6,
        };
        let candidate = Candidate {
            port_low: rule.ports.0,
            port_high: rule.ports.1,
            protocols: bit(rule.protocol),
            verdict: VERDICT_ALLOW,
            row: row as u16,
        };
        Self {
            span,
            candidate,
            private: true,
        }
    }

    /// What `self` gives, in a namespace where every local address is the run's own.
    fn own(span: Span, row: Row) -> Self {
        let candidate = Candidate {
            port_low: 1,
            port_high: u16::MAX,
            protocols: PROTOCOL_TCP | PROTOCOL_UDP,
            verdict: VERDICT_ALLOW,
            row: row as u16,
        };
        Self {
            span,
            candidate,
            private: true,
        }
    }

    fn concerns(&self, prefix: Span, holes: &[Span]) -> bool {
        if self.span.is_v4() != prefix.is_v4() || !self.span.contains(prefix) {
            return false;
        }
        self.private
            || self.candidate.verdict == VERDICT_DENY
            || holes
                .iter()
                .all(|hole| !hole.contains(prefix) || hole.contains(self.span))
    }
}

fn push_down(
    entries: &[Entry],
    with_holes: bool,
    key: &dyn Fn(u32) -> String,
) -> Result<Vec<Prefix>, CompileError> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let holes: Vec<Span> = if with_holes {
        special::networks().map(|net| Span::of(&net)).collect()
    } else {
        vec![]
    };
    let mut spans: Vec<Span> = entries.iter().map(|entry| entry.span).collect();
    spans.extend(&holes);
    spans.push(V4);
    // Sorted by length: the ancestors of a prefix come before it.
    spans.sort_by_key(|span| (span.length, span.address));
    spans.dedup();
    let mut kept: Vec<(Span, Vec<Candidate>)> = Vec::new();
    for span in spans {
        let candidates = candidates(entries, span, &holes);
        if candidates.len() > MAX_CANDIDATES {
            return Err(CompileError::TooManyCandidates {
                prefix: display(span),
                most: MAX_CANDIDATES,
                keys: candidates
                    .iter()
                    .map(|one| key(u32::from(one.row)))
                    .collect(),
            });
        }
        let above = kept.iter().rev().find(|(above, _)| above.contains(span));
        let inherited = above.map_or(&[][..], |(_, candidates)| candidates);
        if candidates != inherited {
            kept.push((span, candidates));
        }
    }
    if kept.len() > MAX_PREFIXES_PER_RUN as usize {
        return Err(CompileError::TooManyPrefixes {
            most: MAX_PREFIXES_PER_RUN as usize,
            are: kept.len(),
        });
    }
    Ok(kept
        .into_iter()
        .map(|(span, candidates)| Prefix {
            address: Ipv6Addr::from(span.address),
            length: span.length,
            candidates,
        })
        .collect())
}

/// What concerns `span`: refusals first, then the most specific, then the order of the file;
/// without those that an earlier one always decides before.
fn candidates(entries: &[Entry], span: Span, holes: &[Span]) -> Vec<Candidate> {
    let mut concerned: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.concerns(span, holes))
        .collect();
    concerned.sort_by_key(|entry| {
        let refusal = entry.candidate.verdict == VERDICT_DENY;
        (
            !refusal,
            std::cmp::Reverse(entry.span.length),
            entry.candidate.row,
        )
    });
    let mut candidates: Vec<Candidate> = Vec::new();
    for entry in concerned {
        let new = entry.candidate;
        let covered = candidates.iter().any(|one| {
            one.port_low <= new.port_low
                && one.port_high >= new.port_high
                && one.protocols & new.protocols == new.protocols
        });
        if !covered {
            candidates.push(new);
        }
    }
    candidates
}

fn display(span: Span) -> String {
    let address = Ipv6Addr::from(span.address);
    match address.to_ipv4_mapped() {
        Some(v4) if span.length >= 96 => format!("{v4}/{}", span.length - 96),
        _ => format!("{address}/{}", span.length),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::testing::{errors, listen, net, plan, policy};

    fn verdict(plan: &crate::plan::Plan, address: &str, port: u16) -> Option<(bool, u16)> {
        let candidates = lookup(&plan.network.destinations, address.parse().unwrap());
        decide(candidates, port, Protocol::Tcp).map(|one| (one.verdict == VERDICT_ALLOW, one.row))
    }

    #[test]
    fn what_takes_away_wins_whatever_is_more_specific() {
        let mut policy = policy();
        net(&mut policy, false, &["10.20.9.7/32"], (443, 443));
        net(&mut policy, true, &["10.20.9.0/24"], (1, 65535));
        net(&mut policy, false, &["10.20.0.0/16"], (443, 443));
        let plan = plan(policy);
        assert_eq!(verdict(&plan, "10.20.9.7", 443), Some((false, 1)));
        assert_eq!(verdict(&plan, "10.20.8.7", 443), Some((true, 2)));
        assert_eq!(verdict(&plan, "10.20.8.7", 444), None);
        assert_eq!(verdict(&plan, "10.21.0.1", 443), None);
    }

    #[test]
    fn a_broad_rule_has_holes_that_a_narrow_one_fills() {
        let mut policy = policy();
        net(&mut policy, false, &["0.0.0.0/0"], (443, 443));
        net(&mut policy, false, &["169.254.0.0/16"], (80, 80));
        net(&mut policy, false, &["::/0"], (443, 443));
        let plan = plan(policy);
        for hole in [
            "10.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "::1",
            "fd00:ec2::254",
        ] {
            assert_eq!(verdict(&plan, hole, 443), None, "{hole}");
        }
        assert_eq!(verdict(&plan, "8.8.8.8", 443), Some((true, 0)));
        assert_eq!(verdict(&plan, "169.254.1.1", 80), Some((true, 1)));
        assert_eq!(verdict(&plan, "169.254.169.254", 80), None);
        assert_eq!(verdict(&plan, "2600::1", 443), Some((true, 2)));
        assert_eq!(verdict(&plan, "64:ff9b::808:808", 443), None);
    }

    #[test]
    fn private_reaches_in() {
        let mut policy = policy();
        net(&mut policy, false, &["0.0.0.0/0"], (443, 443));
        policy.network[0].private = true;
        let plan = plan(policy);
        assert_eq!(verdict(&plan, "10.1.2.3", 443), Some((true, 0)));
    }

    #[test]
    fn one_address_is_one_prefix() {
        let mut policy = policy();
        net(&mut policy, false, &["127.0.0.1/32"], (8080, 8080));
        let plan = plan(policy);
        assert_eq!(plan.network.destinations.len(), 1);
        assert_eq!(plan.network.namespace, Namespace::Host);
    }

    #[test]
    fn self_has_loopback_in_a_namespace_of_its_own() {
        let mut policy = policy();
        net(&mut policy, false, &["self"], (1, 65535));
        net(&mut policy, true, &["127.0.0.0/8"], (22, 22));
        let plan = plan(policy);
        assert_eq!(plan.network.namespace, Namespace::Own);
        assert_eq!(plan.network.itself, Some(0));
        assert_eq!(verdict(&plan, "127.0.0.1", 5000), Some((true, 0)));
        assert_eq!(verdict(&plan, "127.0.0.1", 22), Some((false, 1)));
        assert_eq!(verdict(&plan, "192.168.0.1", 5000), None);
        let listeners = lookup(&plan.network.listeners, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        assert!(decide(listeners, 5000, Protocol::Udp).is_some());
    }

    #[test]
    fn self_in_the_hosts_network_grants_no_address() {
        let mut policy = policy();
        net(&mut policy, false, &["self"], (1, 65535));
        listen(&mut policy, "127.0.0.1", 8080);
        let plan = plan(policy);
        assert_eq!(plan.network.namespace, Namespace::Host);
        assert_eq!(plan.network.itself, Some(0));
        assert_eq!(verdict(&plan, "127.0.0.1", 5000), None);
        let at = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(decide(lookup(&plan.network.listeners, at), 8080, Protocol::Tcp).is_some());
        assert!(decide(lookup(&plan.network.listeners, at), 8081, Protocol::Tcp).is_none());
    }

    #[test]
    fn listening_everywhere_is_everywhere_of_one_family() {
        let mut policy = policy();
        listen(&mut policy, "::", 8080);
        let plan = plan(policy);
        let at = |address: &str| lookup(&plan.network.listeners, address.parse().unwrap()).len();
        assert_eq!((at("::"), at("::1"), at("2600::1")), (1, 1, 1));
        assert_eq!((at("0.0.0.0"), at("127.0.0.1")), (0, 0));
    }

    #[test]
    fn binding_everywhere_needs_a_rule_for_everywhere() {
        let mut policy = policy();
        listen(&mut policy, "127.0.0.1", 8080);
        let plan = plan(policy);
        let at = |address: &str| lookup(&plan.network.listeners, address.parse().unwrap()).len();
        assert_eq!((at("127.0.0.1"), at("0.0.0.0")), (1, 0));
    }

    #[test]
    fn seventeen_rules_for_one_address_are_refused() {
        let mut policy = policy();
        for port in 0..17 {
            net(
                &mut policy,
                false,
                &["8.8.8.8/32"],
                (1000 + 2 * port, 1000 + 2 * port),
            );
        }
        let errors = errors(policy);
        assert!(
            matches!(&errors[..], [CompileError::TooManyCandidates { keys, .. }] if keys.len() == 17)
        );
    }

    /// The rules read one by one, as the contract says them.
    fn linear(
        policy: &Policy,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Option<(bool, u16)> {
        let concerns = |rule: &NetworkRule, net: &IpNet| {
            net.contains(&address)
                && (rule.ports.0..=rule.ports.1).contains(&port)
                && rule.protocols.contains(&protocol)
                && (rule.takes_away
                    || rule.private
                    || special::networks()
                        .all(|hole| !hole.contains(&address) || hole.contains(net)))
        };
        let mut best: Option<(bool, u8, u16)> = None;
        for (row, rule) in policy.network.iter().enumerate() {
            let Endpoint::Nets(nets) = &rule.to else {
                continue;
            };
            for net in nets.iter().filter(|net| concerns(rule, net)) {
                let new = (rule.takes_away, net.prefix_len(), row as u16);
                let better = best.is_none_or(|old| {
                    (new.0, new.1) > (old.0, old.1)
                        || ((new.0, new.1) == (old.0, old.1) && new.2 < old.2)
                });
                if better {
                    best = Some(new);
                }
            }
        }
        best.map(|(takes_away, _, row)| (!takes_away, row))
    }

    /// Addresses that crowd around few places, so that rules overlap.
    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = (
            prop::sample::select(vec![10u8, 127, 169, 8, 100]),
            0..3u8,
            0..3u8,
            0..4u8,
        )
            .prop_map(|(a, b, c, d)| IpAddr::from([a, if a == 169 { 254 } else { b }, c, d]));
        let v6 = (
            prop::sample::select(vec![0u16, 0x2001, 0xfd00, 0x2600, 0x64]),
            0..2u16,
            0..4u16,
        )
            .prop_map(|(a, b, h)| IpAddr::from([a, b, 0, 0, 0, 0, 0, h]));
        prop_oneof![v4, v6]
    }

    fn rule() -> impl Strategy<Value = (bool, IpNet, (u16, u16), u8, bool)> {
        (
            any::<bool>(),
            address(),
            0..=128u8,
            (1..6u16, 0..4u16),
            1..4u8,
            any::<bool>(),
        )
            .prop_map(
                |(takes_away, address, length, (low, more), protocols, private)| {
                    let most = if address.is_ipv4() { 32 } else { 128 };
                    let net = IpNet::new(address, length % (most + 1)).unwrap().trunc();
                    (takes_away, net, (low, low + more), protocols, private)
                },
            )
    }

    proptest! {
        #[test]
        fn one_lookup_decides_as_the_rules_read_one_by_one(
            rules in prop::collection::vec(rule(), 0..12),
            asked in prop::collection::vec((address(), 1..10u16, any::<bool>()), 40),
        ) {
            let mut policy = policy();
            for (takes_away, rule_net, ports, protocols, private) in rules {
                net(&mut policy, takes_away, &[&rule_net.to_string()], ports);
                let rule = policy.network.last_mut().unwrap();
                rule.private = private;
                rule.protocols = [(1, Protocol::Tcp), (2, Protocol::Udp)]
                    .into_iter()
                    .filter(|(bit, _)| protocols & bit != 0)
                    .map(|(_, protocol)| protocol)
                    .collect();
            }
            let network = compile(&policy, 0).unwrap();
            for (address, port, udp) in asked {
                let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                let found = decide(lookup(&network.destinations, address), port, protocol)
                    .map(|one| (one.verdict == VERDICT_ALLOW, one.row));
                let expected = linear(&policy, address, port, protocol);
                // Two rules that say the same of one network share the first's row.
                prop_assert_eq!(found, expected, "{} {}", address, port);
            }
        }
    }
}
