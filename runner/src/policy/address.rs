// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network entries: `[SCHEME://]HOST:PORTS`, by address or by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::quote;
use super::model::{Endpoint, Protocol};
use super::name::HostPattern;

/// All ports.
pub const EVERY_PORT: (u16, u16) = (1, 65535);

/// Which list an entry stands in; each has its own liberties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `allow`; whether `private = true` stands beside it.
    Allow {
        /// `private = true`.
        private: bool,
    },
    /// `deny`.
    Deny,
    /// `listen`.
    Listen,
}

/// What an entry means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where it leads.
    pub to: Endpoint,
    /// Inclusive.
    pub ports: (u16, u16),
    /// At least one.
    pub protocols: Vec<Protocol>,
}

/// Reads an entry; the error is what is wrong and what to write instead, without the entry.
pub fn parse(text: &str, list: List) -> Result<Address, String> {
    if text.is_empty() {
        return Err("is empty; write an address and a port: \"10.0.0.1:443\"".to_owned());
    }
    if text.trim() != text || text.contains(char::is_control) {
        return Err("has a space or control character; remove it".to_owned());
    }
    let (scheme, rest) = match text.split_once("://") {
        Some(("tcp", rest)) => (Some(Protocol::Tcp), rest),
        Some(("udp", rest)) => (Some(Protocol::Udp), rest),
        Some(("http" | "https" | "ws" | "wss", _)) => {
            return Err("is a URL; write an address and a port: \"10.0.0.1:443\"".to_owned());
        }
        Some(_) => return Err("has an unknown scheme; write tcp:// or udp://".to_owned()),
        None => (None, text),
    };
    if rest == "self" {
        return itself(scheme, list);
    }
    let (host, ports) = cut(rest)?;
    if may_be_a_name(host) {
        return named(host, ports, scheme, list);
    }
    let nets = host_nets(host)?;
    let ports = read_ports(ports, host, nets.iter().all(is_loopback), list)?;
    let protocols = match (scheme, list) {
        (Some(protocol), _) => vec![protocol],
        (None, List::Deny) => vec![Protocol::Tcp, Protocol::Udp],
        (None, _) => vec![Protocol::Tcp],
    };
    Ok(Address {
        to: Endpoint::Nets(nets),
        ports,
        protocols,
    })
}

/// The port at which lp-run itself answers a run that may reach names.
pub const DNS_PORT: u16 = 53;

/// A destination by name, which lp-run's relay reaches over TCP.
fn named(
    host: &str,
    ports: Option<&str>,
    scheme: Option<Protocol>,
    list: List,
) -> Result<Address, String> {
    if list == List::Listen {
        return Err("is a name; write a local address: \"127.0.0.1:8080\"".to_owned());
    }
    let pattern = HostPattern::parse(host)?;
    let ports = read_ports(ports, host, false, list)?;
    if let List::Allow { .. } = list {
        if scheme == Some(Protocol::Udp) {
            return Err("is UDP to a name; a name is reached over TCP, write tcp://".to_owned());
        }
        if ports == (DNS_PORT, DNS_PORT) {
            return Err(
                "is port 53 of a name; where names are granted, lp-run answers at every port 53"
                    .to_owned(),
            );
        }
    }
    Ok(Address {
        to: Endpoint::Name(pattern),
        ports,
        protocols: vec![Protocol::Tcp],
    })
}

/// Whether a host is meant as a name: what could be an address badly written is none.
fn may_be_a_name(host: &str) -> bool {
    let numeric = host
        .chars()
        .all(|c| c.is_ascii_hexdigit() || c == '.' || c == 'x');
    let last = host.rsplit('.').next().unwrap_or(host);
    let number = numeric && last.starts_with(|c: char| c.is_ascii_digit());
    !(number || matches!(host, "" | "*" | "localhost") || host.contains(['/', '%', ':']))
}

fn itself(scheme: Option<Protocol>, list: List) -> Result<Address, String> {
    match (scheme, list) {
        (None, List::Allow { .. }) => Ok(Address {
            to: Endpoint::Itself,
            ports: EVERY_PORT,
            protocols: vec![Protocol::Tcp, Protocol::Udp],
        }),
        (Some(_), _) => Err("has a scheme; write \"self\" alone".to_owned()),
        _ => Err("is what the run itself listens on; write it under allow".to_owned()),
    }
}

/// Cuts host and ports apart.
fn cut(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(inner) = text.strip_prefix('[') {
        let Some((host, after)) = inner.split_once(']') else {
            return Err("has no closing ]; write \"[2001:db8::1]:443\"".to_owned());
        };
        if !host.contains(':') {
            return Err("has brackets around what is no IPv6 address; remove them".to_owned());
        }
        return match after.strip_prefix(':') {
            Some(ports) => Ok((host, Some(ports))),
            None if after.is_empty() => Ok((host, None)),
            None => Err("has text after ]; write \"[2001:db8::1]:443\"".to_owned()),
        };
    }
    match text.matches(':').count() {
        0 => Ok((text, None)),
        1 => {
            let (host, ports) = text.split_once(':').unwrap_or((text, ""));
            Ok((host, Some(ports)))
        }
        _ => Err("is an IPv6 address without brackets; write \"[2001:db8::1]:443\"".to_owned()),
    }
}

fn host_nets(host: &str) -> Result<Vec<IpNet>, String> {
    match host {
        "" => return Err("names no host; write an address before the port".to_owned()),
        "*" => {
            return Err(
                "`*` is every host; write a name, an address or a range: \"10.0.0.0/8:443\""
                    .to_owned(),
            );
        }
        "localhost" => {
            let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
            let loopback6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
            return Ok(vec![loopback.into(), loopback6.into()]);
        }
        _ => {}
    }
    if host.contains('%') {
        return Err("has a zone id; write the address alone".to_owned());
    }
    let (address, length) = match host.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (host, None),
    };
    let address: IpAddr = address.parse().map_err(|_| NOT_AN_ADDRESS.to_owned())?;
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(format!(
            "is an IPv4 address written as IPv6; write \"{v4}\""
        ));
    }
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let Some(length) = length else {
        return Ok(vec![IpNet::new_assert(address, longest)]);
    };
    let digits = !length.is_empty() && length.chars().all(|c| c.is_ascii_digit());
    let length = length
        .parse::<u8>()
        .ok()
        .filter(|length| digits && *length <= longest);
    let Some(length) = length else {
        return Err(format!(
            "has no prefix length of 0 to {longest}; write \"{address}/{}\"",
            longest - 8
        ));
    };
    let net = IpNet::new_assert(address, length);
    if net.trunc() != net {
        return Err(format!(
            "has host bits set; write \"{}\"",
            bracketed(&net.trunc())
        ));
    }
    Ok(vec![net])
}

const NOT_AN_ADDRESS: &str = "is not an IP address; write four numbers without leading zeros, or \
                              IPv6 in brackets";

fn bracketed(net: &IpNet) -> String {
    match net {
        IpNet::V4(_) => net.to_string(),
        IpNet::V6(_) => format!("[{net}]"),
    }
}

fn read_ports(
    ports: Option<&str>,
    host: &str,
    loopback: bool,
    list: List,
) -> Result<(u16, u16), String> {
    let open = match list {
        List::Allow { private } => private || loopback,
        List::Deny | List::Listen => true,
    };
    match ports {
        None | Some("*") if !open => Err(format!(
            "leaves the port open; write one: \"{host}:443\", or add private = true"
        )),
        None if list == List::Listen => Err("names no port; write one, or `*`".to_owned()),
        None | Some("*") => Ok(EVERY_PORT),
        Some(text) => read_range(text),
    }
}

fn read_range(text: &str) -> Result<(u16, u16), String> {
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (port(low, text)?, port(high, text)?),
        None => (port(text, text)?, port(text, text)?),
    };
    match low <= high {
        true => Ok((low, high)),
        false => Err(format!(
            "has a range that runs backwards; write {high}-{low}"
        )),
    }
}

fn port(text: &str, whole: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(0) => Err(
            "has port 0; write a port of 1 to 65535 (binding port 0 is always allowed)".to_owned(),
        ),
        Ok(port) if digits => Ok(port),
        _ => Err(format!(
            "has {} for a port; write 1 to 65535, A-B, or *",
            quote(whole)
        )),
    }
}

fn is_loopback(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.network().is_loopback() && net.prefix_len() >= 8,
        IpNet::V6(net) => net.network().is_loopback() && net.prefix_len() == 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: List = List::Allow { private: false };

    fn nets(text: &str) -> (Vec<String>, (u16, u16)) {
        let address = parse(text, ALLOW).unwrap();
        let Endpoint::Nets(nets) = address.to else {
            panic!("{text}")
        };
        (nets.iter().map(IpNet::to_string).collect(), address.ports)
    }

    #[test]
    fn addresses_ranges_and_ports_are_read() {
        assert_eq!(
            nets("10.20.0.0/16:5432"),
            (vec!["10.20.0.0/16".to_owned()], (5432, 5432))
        );
        assert_eq!(
            nets("[2001:db8::1]:443"),
            (vec!["2001:db8::1/128".to_owned()], (443, 443))
        );
        assert_eq!(
            nets("[2001:db8::/32]:1-9"),
            (vec!["2001:db8::/32".to_owned()], (1, 9))
        );
        assert_eq!(nets("localhost:*").0, ["127.0.0.0/8", "::1/128"]);
        assert_eq!(nets("[::1]:*").1, EVERY_PORT);
        assert_eq!(
            parse("udp://10.0.0.53:53", ALLOW).unwrap().protocols,
            [Protocol::Udp]
        );
        assert_eq!(parse("self", ALLOW).unwrap().to, Endpoint::Itself);
    }

    #[test]
    fn a_name_is_reached_over_tcp() {
        let address = parse("*.KB.example.com.:443", ALLOW).unwrap();
        let Endpoint::Name(pattern) = address.to else {
            panic!("{address:?}")
        };
        assert_eq!(pattern.to_string(), "*.kb.example.com");
        assert_eq!(address.protocols, [Protocol::Tcp]);
        assert!(parse("bad.cafe:443", ALLOW).is_ok());
        assert!(parse("api.example.com:*", List::Allow { private: true }).is_ok());
        assert!(parse("*.telemetry.example.com", List::Deny).is_ok());
        assert!(parse("host.example:80", List::Listen).is_err());
    }

    #[test]
    fn a_refusal_without_scheme_covers_both_protocols_and_every_port() {
        let address = parse("10.20.9.0/24", List::Deny).unwrap();
        assert_eq!(address.protocols, [Protocol::Tcp, Protocol::Udp]);
        assert_eq!(address.ports, EVERY_PORT);
    }

    #[test]
    fn mistakes_name_the_replacement() {
        for (text, expected) in [
            ("", "empty"),
            ("10.0.0.1", "leaves the port open"),
            ("10.0.0.1:*", "leaves the port open"),
            ("10.0.0.1:0", "port 0"),
            ("10.0.0.1:65536", "1 to 65535"),
            ("10.0.0.1:-1", "1 to 65535"),
            ("10.0.0.1:+80", "1 to 65535"),
            ("10.0.0.1:443-80", "write 80-443"),
            ("10.0.0.1/33:80", "prefix length"),
            ("10.0.0.1/+8:80", "prefix length"),
            ("10.0.0.1/8:80", "write \"10.0.0.0/8\""),
            ("[2001:db8::1/32]:80", "write \"[2001:db8::/32]\""),
            ("[::ffff:10.0.0.1]:80", "write \"10.0.0.1\""),
            ("[::ffff:0:0/96]:80", "written as IPv6"),
            ("[fe80::1%eth0]:80", "zone id"),
            ("2001:db8::1:443", "without brackets"),
            ("[10.0.0.1]:80", "remove them"),
            ("[::1:80", "closing ]"),
            ("010.0.0.1:80", "leading zeros"),
            ("2130706433:80", "not an IP address"),
            ("0x7f.1:80", "not an IP address"),
            ("api.example.com", "leaves the port open"),
            ("api.example.com:*", "leaves the port open"),
            ("api.example.com:53", "every port 53"),
            ("udp://api.example.com:443", "over TCP"),
            ("*.com:443", "public suffix"),
            ("a_b..c:1", "no host name"),
            ("*:443", "every host"),
            ("https://10.0.0.1", "is a URL"),
            ("sctp://10.0.0.1:1", "unknown scheme"),
            ("udp://self", "write \"self\" alone"),
            (" 10.0.0.1:80", "space"),
            (":80", "names no host"),
        ] {
            let what = parse(text, ALLOW).unwrap_err();
            assert!(what.contains(expected), "{text}: {what}");
        }
    }

    #[test]
    fn every_port_is_for_refusals_loopback_and_private() {
        assert!(parse("127.0.0.0/7:*", ALLOW).is_err());
        assert!(parse("10.0.0.1:*", List::Allow { private: true }).is_ok());
        assert!(parse("127.0.0.1:*", List::Listen).is_ok());
        assert!(parse("127.0.0.1", List::Listen).is_err());
        assert!(parse("self", List::Deny).is_err());
    }
}
