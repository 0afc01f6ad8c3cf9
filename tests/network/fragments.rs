// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams that the network takes in several packets: judged whole, counted whole.

use super::*;
use crate::needs;
use crate::support::root;

/// More than three packets of [`MTU`].
const SIZE: u64 = 4000;
/// The smallest that IPv6 takes.
const MTU: &str = "1280";

/// Makes `lo` of the test's own network send large datagrams in parts.
fn small_packets() {
    let mut ip = Command::new("ip");
    let done = ip.args(["link", "set", "lo", "mtu", MTU]).status();
    assert!(done.expect("start ip(8)").success());
}

/// How often a datagram of IPv4, and one of IPv6, was cut.
fn cut() -> (u64, u64) {
    let v4 = fs::read_to_string("/proc/thread-self/net/snmp").expect("read counters");
    let mut lines = v4.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut both = names.split(' ').zip(values.split(' '));
    let v4 = both
        .find(|(name, _)| *name == "FragOKs")
        .expect("FragOKs")
        .1;
    let v6 = fs::read_to_string("/proc/thread-self/net/snmp6").expect("read counters");
    let v6 = v6.lines().find(|line| line.starts_with("Ip6FragOKs"));
    let v6 = v6.expect("Ip6FragOKs").split_whitespace().nth(1);
    let number = |text: &str| text.parse().expect("a number");
    (number(v4), number(v6.expect("a value")))
}

fn arrived(server: &UdpSocket) -> Option<usize> {
    server.recv(&mut [0; 2 * SIZE as usize]).ok()
}

#[test]
fn what_leaves_in_parts_is_judged_and_counted_whole() {
    needs!(root(), "root");
    let layer = Layer::live(host(
        vec![
            prefix("127.0.0.1", vec![udp(5353, 0)]),
            prefix("::1", vec![udp(5353, 1)]),
            prefix("127.0.0.2", vec![deny(2)]),
        ],
        Vec::new(),
    ));
    small_packets();
    let size = SIZE.to_string();
    let (v4, v6) = (open_udp("127.0.0.1:5353"), open_udp("[::1]:5353"));
    let refused = [
        open_udp("127.0.0.1:5354"),
        open_udp("127.0.0.2:5353"),
        open_udp("[::1]:5354"),
    ];
    // Bare, each of them is cut and arrives.
    for server in [&v4, &v6].into_iter().chain(&refused) {
        let address = server.local_addr().expect("an address").to_string();
        assert_eq!(layer.outside(["udp-send-long", &address, &size]), "ok");
        assert_eq!(arrived(server), Some(SIZE as usize), "{address}");
    }
    assert_eq!(cut(), (3, 2));
    for (server, address) in [(&v4, "127.0.0.1:5353"), (&v6, "[::1]:5353")] {
        for _ in 0..3 {
            assert_eq!(layer.act(["udp-send-long", address, &size]), "ok");
            assert_eq!(arrived(server), Some(SIZE as usize), "{address}");
        }
    }
    assert_eq!(cut(), (6, 5));
    for server in &refused {
        let address = server.local_addr().expect("an address").to_string();
        assert_eq!(layer.act(["udp-send-long", &address, &size]), "EPERM");
        assert_eq!(arrived(server), None, "{address}");
    }
    assert_eq!(cut(), (6, 5), "nothing of what is refused leaves");
    // One header of UDP and one of IP for each datagram.
    assert_eq!(
        (layer.counts(0), layer.bytes(0)),
        ((3, 0), (3 * (SIZE + 28), 0))
    );
    assert_eq!(
        (layer.counts(1), layer.bytes(1)),
        ((3, 0), (3 * (SIZE + 48), 0))
    );
    assert_eq!((layer.counts(2), layer.bytes(2)), ((0, 1), (0, 0)));
}

#[test]
fn what_arrives_in_parts_is_judged_and_counted_whole() {
    needs!(root(), "root");
    let layer = Layer::live(host(
        Vec::new(),
        vec![
            prefix("127.0.0.1", vec![udp(5353, 0)]),
            prefix("::1", vec![udp(5353, 1)]),
        ],
    ));
    small_packets();
    for (row, header, address) in [(0, 28, "127.0.0.1:5353"), (1, 48, "[::1]:5353")] {
        let server = layer.start(["udp-receive", address]);
        wait_for(if row == 0 { "udp" } else { "udp6" }, 5353);
        let client = open_udp(if row == 0 { "127.0.0.1:0" } else { "[::1]:0" });
        client.send_to(&[8; SIZE as usize], address).expect("send");
        assert_eq!(server.answer(), "ok");
        assert_eq!(layer.counts(row), (1, 0), "{address}");
        assert_eq!(layer.bytes(row), (0, SIZE + header), "{address}");
    }
    assert_eq!(cut(), (1, 1));
    assert_eq!(layer.denials(), [""; 0]);
}

#[test]
fn what_arrives_in_parts_where_nobody_may_listen_is_dropped() {
    needs!(root(), "root");
    let layer = Layer::live(host(Vec::new(), Vec::new()));
    small_packets();
    // Bound to port 0, which harms nobody: no datagram gets in, whole or in parts.
    let before = local_ports("udp");
    let server = layer.start(["udp-receive", "127.0.0.1:0"]);
    let start = Instant::now();
    let port = loop {
        if let Some(port) = local_ports("udp").into_iter().find(|p| !before.contains(p)) {
            break port;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "nobody is bound");
        thread::sleep(Duration::from_millis(5));
    };
    let client = open_udp("127.0.0.1:0");
    for size in [8, SIZE as usize] {
        client
            .send_to(&vec![8; size], ("127.0.0.1", port))
            .expect("send");
    }
    let target = format!("127.0.0.1:{port}");
    let counted = || -> u64 {
        let denials = layer.run.denials().expect("read");
        let own = denials
            .iter()
            .filter(|denial| String::from_utf8_lossy(&denial.target).contains(&target));
        own.map(|denial| denial.count).sum()
    };
    let start = Instant::now();
    while counted() < 2 && start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(counted(), 2, "{:?}", layer.denials());
    assert_eq!(cut(), (1, 0));
    server.stop();
}
