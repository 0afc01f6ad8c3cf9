// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each kind of act, granted and refused, with the exact errno: every program, both families,
//! IPv4 inside IPv6, and the ways round that sockets offer.

use super::*;
use crate::needs;
use crate::support::root;

/// 127.0.0.1 and ::1: TCP 8080 by row 0, UDP 5353 by row 1, nothing else.
fn granted() -> Vec<Prefix> {
    let both = || vec![tcp(8080, 0), udp(5353, 1)];
    vec![prefix("127.0.0.1", both()), prefix("::1", both())]
}

fn servers() -> (UdpSocket, UdpSocket) {
    for address in [
        "127.0.0.1:8080",
        "127.0.0.1:9090",
        "[::1]:8080",
        "[::1]:9090",
    ] {
        serve_tcp(address);
    }
    (open_udp("127.0.0.1:5353"), open_udp("[::1]:5353"))
}

#[test]
fn tcp_and_udp_reach_what_is_granted_and_nothing_else() {
    needs!(root(), "root");
    let layer = Layer::live(host(granted(), Vec::new()));
    let _servers = servers();
    let table: &[(&str, &str, &str)] = &[
        ("tcp", "127.0.0.1:8080", "ok"),
        ("tcp", "127.0.0.1:9090", "EPERM"),
        ("tcp", "127.0.0.2:8080", "EPERM"),
        ("tcp", "192.0.2.1:8080", "EPERM"),
        ("tcp", "[::1]:8080", "ok"),
        ("tcp", "[::1]:9090", "EPERM"),
        ("tcp", "[2001:db8::1]:8080", "EPERM"),
        ("udp-send", "127.0.0.1:5353", "ok"),
        ("udp-send", "127.0.0.1:53", "EPERM"),
        ("udp-send", "192.0.2.1:53", "EPERM"),
        ("udp-send", "[::1]:5353", "ok"),
        ("udp-send", "[::1]:53", "EPERM"),
        ("udp-connect", "127.0.0.1:5353", "ok"),
        ("udp-connect", "192.0.2.1:53", "EPERM"),
        ("udp-connect", "[::1]:5353", "ok"),
        ("udp-connect", "[2001:db8::1]:53", "EPERM"),
        ("udp-send", "255.255.255.255:5353", "EPERM"),
        ("udp-send", "224.0.0.251:5353", "EPERM"),
    ];
    for (act, address, expected) in table {
        assert_eq!(layer.act([act, address]), *expected, "{act} {address}");
    }
}

#[test]
fn ipv4_inside_ipv6_is_ipv4() {
    needs!(root(), "root");
    let layer = Layer::live(host(granted(), Vec::new()));
    let _servers = servers();
    let table: &[(&str, &str, &str)] = &[
        ("tcp", "[::ffff:127.0.0.1]:8080", "ok"),
        ("tcp", "[::ffff:127.0.0.1]:9090", "EPERM"),
        ("tcp", "[::ffff:192.0.2.1]:8080", "EPERM"),
        ("udp-send", "[::ffff:127.0.0.1]:5353", "ok"),
        ("udp-send", "[::ffff:127.0.0.1]:53", "EPERM"),
        ("udp-connect", "[::ffff:127.0.0.1]:5353", "ok"),
        ("udp-connect", "[::ffff:192.0.2.1]:5353", "EPERM"),
        ("udp6-send-v4", "127.0.0.1:5353", "ok"),
        ("udp6-send-v4", "127.0.0.1:53", "EPERM"),
        ("udp6-connect-v4", "127.0.0.1:5353", "ok"),
        ("udp6-connect-v4", "192.0.2.1:5353", "EPERM"),
        ("udp-connect-send-control", "[::ffff:127.0.0.1]:5353", "ok"),
    ];
    for (act, address, expected) in table {
        assert_eq!(layer.act([act, address]), *expected, "{act} {address}");
    }
    assert_eq!(layer.counts(0).0, 1);
}

#[test]
fn the_unspecified_address_is_loopback() {
    needs!(root(), "root");
    let layer = Layer::live(host(granted(), Vec::new()));
    let _servers = servers();
    let table: &[(&str, &str, &str)] = &[
        ("tcp", "0.0.0.0:8080", "ok"),
        ("tcp", "0.0.0.0:9090", "EPERM"),
        ("tcp", "[::]:8080", "ok"),
        ("tcp", "[::]:9090", "EPERM"),
        ("tcp", "[::ffff:0.0.0.0]:8080", "ok"),
        ("tcp", "[::ffff:0.0.0.0]:9090", "EPERM"),
        ("udp-send", "0.0.0.0:5353", "ok"),
        ("udp-send", "0.0.0.0:53", "EPERM"),
        ("udp-send", "[::]:53", "EPERM"),
        ("udp-send-unspec", "127.0.0.1:5353", "ok"),
        ("udp-send-unspec", "127.0.0.1:53", "EPERM"),
    ];
    for (act, address, expected) in table {
        assert_eq!(layer.act([act, address]), *expected, "{act} {address}");
    }
}

#[test]
fn a_connected_socket_gets_no_further_than_its_peer() {
    needs!(root(), "root");
    let layer = Layer::live(host(granted(), Vec::new()));
    let _servers = servers();
    // The hook of sendmsg sees zeros here and must ask the socket.
    for peer in ["127.0.0.1:5353", "[::1]:5353"] {
        assert_eq!(
            layer.act(["udp-connect-send-control", peer]),
            "ok",
            "{peer}"
        );
    }
    let elsewhere = [
        "udp-connect-send-elsewhere",
        "127.0.0.1:5353",
        "127.0.0.1:53",
    ];
    assert_eq!(layer.act(elsewhere), "EPERM");
    let elsewhere = ["udp-connect-send-elsewhere", "[::1]:5353", "[::1]:53"];
    assert_eq!(layer.act(elsewhere), "EPERM");
    // A dissolved association does not carry its verdict over.
    let dissolved = ["tcp-reconnect", "127.0.0.1:8080", "127.0.0.1:9090"];
    assert_eq!(layer.act(dissolved), "EPERM");
    let dissolved = ["tcp-reconnect", "127.0.0.1:8080", "127.0.0.1:8080"];
    assert_eq!(layer.act(dissolved), "ok");
}

#[test]
fn fast_open_and_multipath_are_tcp() {
    needs!(root(), "root");
    let layer = Layer::live(host(granted(), Vec::new()));
    let _servers = servers();
    assert_eq!(layer.act(["tcp-fastopen", "127.0.0.1:8080"]), "ok");
    assert_eq!(layer.act(["tcp-fastopen", "127.0.0.1:9090"]), "EPERM");
    assert_eq!(layer.act(["tcp-fastopen", "[::1]:9090"]), "EPERM");
    needs!(
        layer.outside(["mptcp", "127.0.0.1:8080"]) == "ok",
        "a kernel with MPTCP"
    );
    assert_eq!(layer.act(["mptcp", "127.0.0.1:8080"]), "ok");
    assert_eq!(layer.act(["mptcp", "127.0.0.1:9090"]), "EPERM");
    assert_eq!(layer.act(["mptcp", "[::1]:8080"]), "ok");
    assert_eq!(layer.act(["mptcp", "[::1]:9090"]), "EPERM");
}

#[test]
fn udp_lite_is_udp() {
    needs!(root(), "root");
    let layer = Layer::live(host(granted(), Vec::new()));
    needs!(
        layer.outside(["udp-lite-send", "127.0.0.1:5353"]) == "ok",
        "a kernel with UDP-Lite"
    );
    assert_eq!(layer.act(["udp-lite-send", "127.0.0.1:5353"]), "ok");
    assert_eq!(layer.act(["udp-lite-send", "127.0.0.1:53"]), "EPERM");
}

#[test]
fn only_tcp_and_udp_sockets_are_made() {
    needs!(root(), "root");
    let layer = Layer::live(host(granted(), Vec::new()));
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").expect("open ping sockets");
    // Family, type, protocol: stream and datagram, ping, raw, and IPv6's.
    let table: &[([&str; 3], &str)] = &[
        (["2", "1", "0"], "ok"),
        (["2", "2", "0"], "ok"),
        (["10", "1", "0"], "ok"),
        (["10", "2", "0"], "ok"),
        (["2", "2", "1"], "EPERM"),
        (["10", "2", "58"], "EPERM"),
        (["2", "3", "1"], "EPERM"),
        (["2", "3", "255"], "EPERM"),
        (["2", "3", "6"], "EPERM"),
        (["10", "3", "58"], "EPERM"),
        (["10", "3", "17"], "EPERM"),
    ];
    for ([family, kind, protocol], expected) in table {
        let bare = layer.outside(["socket", family, kind, protocol]);
        assert_eq!(bare, "ok", "{family} {kind} {protocol} bare");
        let answer = layer.act(["socket", family, kind, protocol]);
        assert_eq!(answer, *expected, "{family} {kind} {protocol}");
    }
    assert_eq!(layer.act(["ping", "127.0.0.1:0"]), "EPERM");
    assert!(
        layer
            .denials()
            .contains(&"Socket protocol 1 (icmp) None 3 EPERM probe".to_owned()),
        "{:#?}",
        layer.denials()
    );
}

#[test]
fn sorting_addresses_is_no_denial_and_sends_nothing() {
    needs!(root(), "root");
    let layer = Layer::live(host(granted(), Vec::new()));
    let stranger = open_udp("127.0.0.1:8080");
    // The C library connects a UDP socket to each address that TCP is meant for.
    assert_eq!(layer.act(["udp-connect", "127.0.0.1:8080"]), "ok");
    assert_eq!(layer.act(["udp-connect", "127.0.0.1:0"]), "ok");
    assert_eq!(layer.denials(), [""; 0]);
    assert_eq!(layer.counts(0), (0, 0));
    assert_eq!(layer.act(["udp-connect-send", "127.0.0.1:8080"]), "EPERM");
    assert!(
        stranger.recv(&mut [0; 8]).is_err(),
        "a datagram came through"
    );
    assert_eq!(
        layer.denials(),
        ["Egress udp://127.0.0.1:8080 None 1 EPERM probe"]
    );
    assert_eq!(
        layer.act(["udp-connect-send-control", "127.0.0.1:8080"]),
        "EPERM"
    );
}

#[test]
fn what_takes_away_wins() {
    needs!(root(), "root");
    // 127.0.0.0/8 is granted, 127.0.0.2 taken away: the longer prefix carries both.
    let all = candidate((1, u16::MAX), PROTOCOL_TCP, VERDICT_ALLOW, 0);
    let rules = vec![
        prefix("127.0.0.0/8", vec![all]),
        prefix("127.0.0.2", vec![deny(1), all]),
        prefix("127.0.0.3", vec![]),
    ];
    let layer = Layer::live(host(rules, Vec::new()));
    for address in ["127.0.0.1:8080", "127.0.0.2:8080", "127.0.0.3:8080"] {
        serve_tcp(address);
    }
    assert_eq!(layer.act(["tcp", "127.0.0.1:8080"]), "ok");
    assert_eq!(layer.act(["tcp", "127.0.0.2:8080"]), "EPERM");
    assert_eq!(layer.act(["udp-connect", "127.0.0.2:0"]), "EPERM");
    assert_eq!(layer.act(["tcp", "127.0.0.3:8080"]), "EPERM");
    assert_eq!((layer.counts(0), layer.counts(1)), ((1, 0), (0, 2)));
    assert_eq!(
        layer.denials(),
        [
            "Connect 127.0.0.2:8080 Some(1) 1 EPERM probe",
            "Connect 127.0.0.3:8080 None 1 EPERM probe",
            "Connect udp://127.0.0.2:0 Some(1) 1 EPERM probe",
        ]
    );
}

#[test]
fn bind_needs_a_listen_rule_but_for_port_0() {
    needs!(root(), "root");
    let listeners = vec![
        prefix("127.0.0.1", vec![tcp(8080, 2), udp(5353, 3), tcp(80, 2)]),
        prefix("::1", vec![tcp(8080, 2)]),
    ];
    let layer = Layer::live(host(Vec::new(), listeners));
    let table: &[(&str, &str, &str)] = &[
        ("bind-tcp", "127.0.0.1:8080", "ok"),
        ("bind-tcp", "127.0.0.1:80", "ok"),
        ("bind-tcp", "[::1]:8080", "ok"),
        ("bind-tcp", "[::ffff:127.0.0.1]:8080", "ok"),
        ("bind-udp", "127.0.0.1:5353", "ok"),
        ("bind-tcp", "127.0.0.1:0", "ok"),
        ("bind-tcp", "0.0.0.0:0", "ok"),
        ("bind-udp", "[::]:0", "ok"),
        ("bind-tcp", "127.0.0.1:8081", "EPERM"),
        ("bind-tcp", "127.0.0.1:5353", "EPERM"),
        ("bind-udp", "127.0.0.1:8080", "EPERM"),
        ("bind-tcp", "0.0.0.0:8080", "EPERM"),
        ("bind-tcp", "[::]:8080", "EPERM"),
        ("bind-tcp", "[::1]:8081", "EPERM"),
        ("bind-udp", "[::1]:8080", "EPERM"),
        ("bind-tcp", "[::ffff:127.0.0.1]:8081", "EPERM"),
    ];
    for (act, address, expected) in table {
        assert_eq!(layer.act([act, address]), *expected, "{act} {address}");
    }
    assert_eq!((layer.counts(2), layer.counts(3)), ((4, 0), (1, 0)));
}
