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
    Candidate, MAX_CANDIDATES, PROTOCOL_TCP, PROTOCOL_UDP, VERDICT_ALLOW, VERDICT_DENY,
};

use super::error::CompileError;
use super::{Namespace, Network, Prefix, Row, special};
use crate::policy::model::{Endpoint, ListenRule, NetworkRule, Policy, Protocol};

/// Most prefixes of one run, so that it cannot starve the others of their map entries.
pub const MAX_PREFIXES_PER_RUN: usize = 4096;

/// Whether the hooks can tell the run's own listeners from the host's in the host's network
/// namespace. They cannot: `self` needs a namespace of the run's own.
const SELF_IN_HOST_NAMESPACE: bool = false;

/// The network of a policy. `first` is the row of `network[0]`; listen and unix rules follow
/// the network rules.
pub fn compile(policy: &Policy, first: Row) -> Result<Network, Vec<CompileError>> {
    let namespace = namespace(policy);
    let listen_first = first + policy.network.len() as Row;
    let unix_first = listen_first + policy.listen.len() as Row;
    let itself = (first..)
        .zip(&policy.network)
        .find(|(_, rule)| rule.to == Endpoint::Itself && !rule.takes_away);
    let mut errors = Vec::new();
    if let (Some((_, rule)), Namespace::Host, false) = (itself, namespace, SELF_IN_HOST_NAMESPACE) {
        errors.push(CompileError::SelfInHostNetwork {
            key: rule.info.key.clone(),
            place: rule.info.place.clone(),
        });
    }
    let mut entries: Vec<Entry> = (first..)
        .zip(&policy.network)
        .flat_map(|(row, rule)| Entry::of_rule(rule, row))
        .collect();
    let mut listeners: Vec<Entry> = (listen_first..)
        .zip(&policy.listen)
        .map(|(row, rule)| Entry::of_listener(rule, row))
        .collect();
    if let Some((row, _)) = itself {
        listeners.extend([V4, V6].map(|span| Entry::own(span, row)));
        entries.extend(["127.0.0.0/8", "::1/128"].into_iter().filter_map(|net| {
            let net: IpNet = net.parse().ok()?;
            Some(Entry::own(Span::of(&net), row))
        }));
    }
    let key = |row: u32| {
        let index = (row - first) as usize;
        let infos = policy.network.iter().map(|rule| &rule.info);
        let mut infos = infos.chain(policy.listen.iter().map(|rule| &rule.info));
        infos
            .nth(index)
            .map_or_else(String::new, |info| info.key.clone())
    };
    let destinations = push_down(&entries, true, &key).unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    let listeners = push_down(&listeners, false, &key).unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Network {
        namespace,
        destinations,
        listeners,
        itself: itself.map(|(row, _)| row),
        landlock_connect: None,
        landlock_bind: None,
        unix: (unix_first..)
            .zip(&policy.unix)
            .map(|(row, rule)| (rule.socket.clone(), row))
            .collect(),
    })
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

/// A run that no rule leads out of gets a network namespace of its own.
fn namespace(policy: &Policy) -> Namespace {
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
    if kept.len() > MAX_PREFIXES_PER_RUN {
        return Err(CompileError::TooManyPrefixes {
            most: MAX_PREFIXES_PER_RUN,
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
