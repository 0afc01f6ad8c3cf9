// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counters are exact: under load, with a full table and a full ring.

use super::*;
use crate::needs;
use crate::support::root;
use lp_run::watch::Decoded;

#[test]
fn ten_thousand_connects_from_several_threads_are_ten_thousand() {
    needs!(root(), "root");
    let layer = Layer::live(host(
        vec![
            prefix("127.0.0.1", vec![udp(5353, 0)]),
            prefix("127.0.0.2", vec![deny(1)]),
        ],
        Vec::new(),
    ));
    assert_eq!(
        layer.act(["udp-connects", "10000", "8", "127.0.0.1:5353"]),
        "ok"
    );
    assert_eq!(
        layer.act(["udp-connects", "10000", "8", "127.0.0.2:5353"]),
        "EPERM"
    );
    assert_eq!(
        layer.act(["udp-connects", "2000", "8", "127.0.0.3:5353"]),
        "EPERM"
    );
    assert_eq!(
        (layer.counts(0), layer.counts(1)),
        ((10_000, 0), (0, 10_000))
    );
    assert_eq!(
        layer.denials(),
        [
            "Connect udp://127.0.0.2:5353 Some(1) 10000 EPERM probe",
            "Connect udp://127.0.0.3:5353 None 2000 EPERM probe",
        ]
    );
}

#[test]
fn bytes_are_whole_ip_packets() {
    needs!(root(), "root");
    let layer = Layer::live(host(
        vec![
            prefix("127.0.0.1", vec![udp(5353, 0)]),
            prefix("::1", vec![udp(5353, 1)]),
        ],
        Vec::new(),
    ));
    let _servers = (open_udp("127.0.0.1:5353"), open_udp("[::1]:5353"));
    for _ in 0..3 {
        assert_eq!(layer.act(["udp-send", "127.0.0.1:5353"]), "ok");
    }
    assert_eq!(layer.act(["udp-connect-send", "[::1]:5353"]), "ok");
    // Eight bytes of payload, eight of UDP, 20 or 40 of IP.
    assert_eq!((layer.counts(0), layer.bytes(0)), ((3, 0), (3 * 36, 0)));
    assert_eq!((layer.counts(1), layer.bytes(1)), ((1, 0), (56, 0)));
    let usage = layer.run.usage().expect("read")[0];
    assert!(usage.first.expect("used") < usage.last.expect("used"));
    assert_eq!(layer.run.usage().expect("read")[2].first, None);
}

#[test]
fn each_target_is_told_once_and_counted_always() {
    needs!(root(), "root");
    let mut layer = Layer::live(host(Vec::new(), Vec::new()));
    for _ in 0..3 {
        assert_eq!(layer.act(["tcp", "192.0.2.1:80"]), "EPERM");
        assert_eq!(layer.act(["udp-send", "[2001:db8::1]:53"]), "EPERM");
    }
    let mut events = Vec::new();
    let more = layer.run.drain(100, |event| match event {
        Decoded::Denial(denial) => {
            events.push(String::from_utf8_lossy(&denial.target).into_owned())
        }
        other => panic!("{other:?}"),
    });
    assert!(!more);
    assert_eq!(events, ["192.0.2.1:80", "udp://[2001:db8::1]:53"]);
    assert_eq!(
        layer.denials(),
        [
            "Connect 192.0.2.1:80 None 3 EPERM probe",
            "Sendto udp://[2001:db8::1]:53 None 3 EPERM probe",
        ]
    );
}

#[test]
fn a_flood_of_targets_is_bounded_and_none_is_forgotten() {
    needs!(root(), "root");
    let layer = Layer::live(host(Vec::new(), Vec::new()));
    assert_eq!(layer.act(["udp-sweep", "192.0.2.1:1", "1500"]), "EPERM");
    let told: u64 = layer
        .run
        .denials()
        .expect("read")
        .iter()
        .map(|denial| denial.count)
        .sum();
    let tallies = layer.run.tallies().expect("read");
    assert_eq!((told, tallies.other_addresses), (1000, 500));
    assert_eq!((tallies.sent, tallies.lost), (1000, 0));
}
