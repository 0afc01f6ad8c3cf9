// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network: an address that no rule names, and the ways round a check of `connect`.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::thread;

use super::{Arm, Row, confined, refused};
use crate::needs;
use crate::support::{Jail, root};

/// Ports of the servers in every jail: each has a network of its own.
const ADDRESSES: &[Row] = &[
    ("AD-01", "tcp 127.0.0.1:7001", "ok", "EPERM", "ok"),
    ("AD-02", "tcp [::1]:7001", "ok", "EPERM", "ok"),
    ("AD-03", "tcp [::ffff:127.0.0.1]:7001", "ok", "EPERM", "ok"),
    ("AD-04", "tcp-fastopen 127.0.0.1:7001", "ok", "EPERM", "ok"),
    (
        "AD-05",
        "tcp-reconnect 127.0.0.1:7002 127.0.0.1:7001",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "AD-06",
        "udp-connect-send 127.0.0.1:7001",
        "ok",
        "EPERM",
        "ok",
    ),
    ("AD-07", "udp-connect-send [::1]:7001", "ok", "EPERM", "ok"),
    ("AD-08", "udp-send 127.0.0.1:7001", "ok", "EPERM", "ok"),
    ("AD-09", "udp-send [::1]:7001", "ok", "EPERM", "ok"),
    (
        "AD-10",
        "udp-send [::ffff:127.0.0.1]:7001",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "AD-11",
        "udp-send-unspec 127.0.0.1:7001",
        "ok",
        "EPERM",
        "ok",
    ),
    ("AD-12", "udp6-send-v4 127.0.0.1:7001", "ok", "EPERM", "ok"),
];

/// What a packet may not carry to an address that a rule names.
const CARRIED: &[Row] = &[
    ("AD-22", "udp-send 127.0.0.1:7001", "ok", "ok", ""),
    ("AD-23", "udp-send [::1]:7001", "ok", "ok", ""),
    ("AD-24", "udp-ip-options 127.0.0.1:7001", "ok", "EPERM", ""),
    ("AD-25", "udp-routing-header [::1]:7001", "ok", "EPERM", ""),
];

/// What no rule for an address gives: other protocols and other families.
const NEVER: &[Row] = &[
    ("AD-13", "ping 127.0.0.1:0", "ok", "EPERM", ""),
    // AF_INET, SOCK_RAW, IPPROTO_ICMP; AF_PACKET; AF_VSOCK; AF_ALG; AF_NETLINK of the firewall.
    ("AD-14", "socket 2 3 1", "ok", "EPERM", ""),
    ("AD-15", "socket 10 3 58", "ok", "EPERM", ""),
    ("AD-16", "socket 17 3 0", "ok", "EPERM", ""),
    ("AD-17", "socket 16 3 12", "ok", "EPERM", ""),
    ("AD-18", "bind-tcp 127.0.0.1:7100", "ok", "EPERM", ""),
    ("AD-19", "bind-tcp [::]:7101", "ok", "EPERM", ""),
    ("AD-20", "bind-udp 0.0.0.0:7102", "ok", "EPERM", ""),
    ("AD-21", "unix-bind @lp-run-attack", "ok", "EPERM", ""),
];

const BASE: &str = r#"
version = 1
name = "attacks-addresses"
[files]
exec = ["${COMMAND}"]
read = ["${BASE}", "@DIR@/store"]
[network]
"#;

const ONE: &str = r#"allow = ["127.0.0.1:7002"]"#;
const ALL: &str = r#"allow = [
  "127.0.0.1:7001-7002", "[::1]:7001", "udp://127.0.0.1:7001", "udp://[::1]:7001",
]"#;

fn jail() -> Jail {
    let jail = Jail::new();
    jail.folder("store");
    // Everybody may ping in this network, so that what refuses is the sandbox.
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").expect("allow ping");
    for address in ["127.0.0.1:7001", "127.0.0.1:7002", "[::1]:7001"] {
        let listener = TcpListener::bind(address).expect("listen");
        thread::spawn(move || {
            for mut peer in listener.incoming().flatten() {
                let _ = peer.read(&mut [0; 8]);
            }
        });
        let datagrams = UdpSocket::bind(address).expect("bind");
        thread::spawn(move || while datagrams.recv(&mut [0; 8]).is_ok() {});
    }
    jail
}

#[test]
fn an_address_that_no_rule_names_is_not_reached_by_any_way() {
    needs!(root(), "root");
    refused(ADDRESSES, &format!("{BASE}{ONE}"), jail);
    confined(&jail(), ADDRESSES, Arm::Granted, &format!("{BASE}{ALL}"));
}

#[test]
fn a_granted_address_is_reached_without_options_and_routing_headers_only() {
    needs!(root(), "root");
    refused(CARRIED, &format!("{BASE}{ALL}"), jail);
}

#[test]
fn a_rule_for_addresses_opens_no_other_protocol_and_no_port_to_listen_on() {
    needs!(root(), "root");
    refused(NEVER, &format!("{BASE}{ALL}"), jail);
}

#[test]
fn a_run_with_a_network_of_its_own_reaches_nothing_of_the_host() {
    needs!(root(), "root");
    refused(ADDRESSES, BASE, jail);
}
