// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network: an address that no rule names, and the ways round a check of `connect`.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::thread;

use super::{Attempt, granted, refused, works};
use crate::needs;
use crate::support::{Jail, root};

/// Ports of the servers in every jail: each has a network of its own.
const ATTEMPTS: &[Attempt] = &[
    works("tcp 127.0.0.1:7001", "EPERM"),
    works("tcp [::1]:7001", "EPERM"),
    works("tcp [::ffff:127.0.0.1]:7001", "EPERM"),
    works("tcp-fastopen 127.0.0.1:7001", "EPERM"),
    works("tcp-reconnect 127.0.0.1:7002 127.0.0.1:7001", "EPERM"),
    works("udp-connect-send 127.0.0.1:7001", "EPERM"),
    works("udp-connect-send [::1]:7001", "EPERM"),
    works("udp-send 127.0.0.1:7001", "EPERM"),
    works("udp-send [::1]:7001", "EPERM"),
    works("udp-send [::ffff:127.0.0.1]:7001", "EPERM"),
    works("udp-send-unspec 127.0.0.1:7001", "EPERM"),
    works("udp6-send-v4 127.0.0.1:7001", "EPERM"),
];

/// What no rule for an address gives: other protocols and other families.
const NEVER: &[Attempt] = &[
    works("ping 127.0.0.1:0", "EPERM"),
    // AF_INET, SOCK_RAW, IPPROTO_ICMP; AF_PACKET; AF_VSOCK; AF_ALG; AF_NETLINK of the firewall.
    works("socket 2 3 1", "EPERM"),
    works("socket 10 3 58", "EPERM"),
    works("socket 17 3 0", "EPERM"),
    works("socket 16 3 12", "EPERM"),
    works("bind-tcp 127.0.0.1:7100", "EPERM"),
    works("bind-tcp [::]:7101", "EPERM"),
    works("bind-udp 0.0.0.0:7102", "EPERM"),
    works("unix-bind @lp-run-attack", "ok"),
];

const BASE: &str = r#"
version = 1
name = "attacks"
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
    refused(ATTEMPTS, &format!("{BASE}{ONE}"), jail);
    granted(ATTEMPTS, &format!("{BASE}{ALL}"), jail);
}

#[test]
fn a_rule_for_addresses_opens_no_other_protocol_and_no_port_to_listen_on() {
    needs!(root(), "root");
    refused(NEVER, &format!("{BASE}{ALL}"), jail);
}

#[test]
fn a_run_with_a_network_of_its_own_reaches_nothing_of_the_host() {
    needs!(root(), "root");
    let attempts: Vec<Attempt> = ATTEMPTS
        .iter()
        .map(|attempt| works(attempt.act, attempt.refused))
        .collect();
    refused(&attempts, BASE, jail);
}
