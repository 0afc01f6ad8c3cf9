// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address ranges that lead somewhere else than the internet: to this machine, to its
//! neighbours, to the cloud's metadata, into a tunnel. A broad rule does not reach into them;
//! a rule that lies inside one, or says `private = true`, does.

use ipnet::IpNet;

/// Range and what it is. Sources: the IANA special-purpose address registries (RFC 6890), and
/// the metadata services of the large clouds.
pub const RANGES: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this host"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by carriers"),
    ("100.100.100.200/32", "cloud metadata"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("169.254.169.254/32", "cloud metadata"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.88.99.0/24", "translated (6to4)"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarks and synthetic addresses"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("255.255.255.255/32", "broadcast"),
    ("::/96", "unspecified, loopback and IPv4-compatible"),
    ("::1/128", "loopback"),
    ("64:ff9b::/96", "translated (NAT64)"),
    ("64:ff9b:1::/48", "translated (NAT64)"),
    ("2001::/32", "translated (Teredo)"),
    ("2002::/16", "translated (6to4)"),
    ("fc00::/7", "private"),
    ("fd00:ec2::254/128", "cloud metadata"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
];

/// The ranges as networks.
pub fn networks() -> impl Iterator<Item = IpNet> {
    RANGES.iter().filter_map(|(range, _)| range.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_a_network_without_host_bits() {
        assert_eq!(networks().count(), RANGES.len());
        assert!(networks().all(|net| net == net.trunc()));
    }

    #[test]
    fn the_document_names_every_range() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md");
        let text = std::fs::read_to_string(file).expect("docs/policy.md");
        for (range, what) in RANGES {
            let row = format!("| `{range}` | {what} |");
            assert!(
                text.lines().any(|line| line == row),
                "{row} is not in docs/policy.md"
            );
        }
    }
}
