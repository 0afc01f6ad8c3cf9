// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rule `self` in the host's namespace: the run reaches what it listens on itself, and
//! nothing else of the host's loopback; nobody else reaches the run by it.

use super::*;
use crate::needs;
use crate::support::root;

/// `self` in row 0 beside what a listen rule in row 2 grants.
fn rules(listeners: Vec<Prefix>) -> Rules {
    Rules {
        self_row: Some(0),
        ..host(Vec::new(), listeners)
    }
}

#[test]
fn a_run_reaches_its_own_server_on_a_port_that_nobody_granted() {
    needs!(root(), "root");
    let layer = Layer::live(rules(Vec::new()));
    assert_eq!(layer.act(["tcp-itself", "127.0.0.1:0"]), "ok");
    assert_eq!(layer.act(["tcp-itself", "[::1]:0"]), "ok");
    assert_eq!(layer.act(["tcp-itself", "0.0.0.0:0"]), "ok");
    assert_eq!(layer.counts(0), (3, 0));
    assert_eq!(layer.denials(), [""; 0]);
    assert_eq!(layer.act(["bind-tcp", "127.0.0.1:8080"]), "EPERM");
}

#[test]
fn servers_of_others_stay_closed_and_silence_answers_as_ever() {
    needs!(root(), "root");
    let layer = Layer::live(rules(Vec::new()));
    serve_tcp("127.0.0.1:9090");
    serve_tcp("[::1]:9090");
    let stranger = open_udp("127.0.0.1:5353");
    assert_eq!(layer.act(["tcp", "127.0.0.1:9090"]), "EPERM");
    assert_eq!(layer.act(["tcp", "[::1]:9090"]), "EPERM");
    assert_eq!(layer.act(["tcp", "[::ffff:127.0.0.1]:9090"]), "EPERM");
    assert_eq!(layer.act(["mptcp", "127.0.0.1:9090"]), "EPERM");
    assert_eq!(layer.act(["udp-send", "127.0.0.1:5353"]), "EPERM");
    assert_eq!(layer.act(["udp-connect", "127.0.0.1:5353"]), "EPERM");
    assert!(
        stranger.recv(&mut [0; 8]).is_err(),
        "a datagram came through"
    );
    assert_eq!(layer.act(["tcp", "127.0.0.1:9191"]), "ECONNREFUSED");
    assert_eq!(layer.act(["udp-send", "127.0.0.1:5454"]), "EPERM");
    assert_eq!(layer.act(["udp-connect-send", "127.0.0.1:5454"]), "EPERM");
}

#[test]
fn a_server_of_the_run_is_reached_by_the_run_only() {
    needs!(root(), "root");
    let layer = Layer::live(rules(Vec::new()));
    let server = layer.start(["tcp-serve-unbound"]);
    let start = Instant::now();
    let port = loop {
        if let Some(port) = local_ports("tcp").first() {
            break *port;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(5));
    };
    let address = format!("127.0.0.1:{port}");
    assert_eq!(
        layer.outside(["tcp-from", "127.0.0.1:0", &address]),
        "ETIMEDOUT"
    );
    assert_eq!(layer.act(["tcp-send", &address]), "ok");
    assert_eq!(server.answer(), "ok");
}

#[test]
fn a_granted_server_is_reached_by_the_run_and_by_others() {
    needs!(root(), "root");
    let layer = Layer::live(rules(vec![prefix("127.0.0.1", vec![tcp(8080, 2)])]));
    for outside in [false, true] {
        let server = layer.start(["tcp-serve", "127.0.0.1:8080"]);
        wait_for("tcp", 8080);
        let answer = if outside {
            layer.outside(["tcp-send", "127.0.0.1:8080"])
        } else {
            layer.act(["tcp-send", "127.0.0.1:8080"])
        };
        assert_eq!(answer, "ok", "outside: {outside}");
        assert_eq!(server.answer(), "ok", "outside: {outside}");
    }
    // One connect by `self`, two binds by the listen rule.
    assert_eq!((layer.counts(0), layer.counts(2)), ((1, 0), (2, 0)));
}

#[test]
fn datagrams_go_between_sockets_of_the_run() {
    needs!(root(), "root");
    let layer = Layer::live(rules(vec![prefix("127.0.0.1", vec![udp(5353, 2)])]));
    let server = layer.start(["udp-answer", "127.0.0.1:5353"]);
    wait_for("udp", 5353);
    assert_eq!(layer.act(["udp-send-receive", "127.0.0.1:5353"]), "ok");
    assert_eq!(server.answer(), "ok");
    assert_eq!(layer.denials(), [""; 0]);
}
