// SPDX-License-Identifier: MIT OR Apache-2.0
//! What arrives: only what `listen` grants, answers of what was asked, and the run's own.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::needs;
use crate::support::root;

/// Whether somebody outside the run reaches a TCP server and is answered.
fn reached(address: &str) -> bool {
    let address = address.parse().expect("an address");
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(400)) else {
        return false;
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("set a time-out");
    stream.write_all(b"question").is_ok() && matches!(stream.read(&mut [0; 64]), Ok(8))
}

#[test]
fn a_granted_port_serves_and_its_bytes_are_counted() {
    needs!(root(), "root");
    let layer = Layer::live(host(
        Vec::new(),
        vec![prefix("127.0.0.1", vec![tcp(8080, 2)])],
    ));
    let server = layer.start(["tcp-serve", "127.0.0.1:8080"]);
    wait_for("tcp", 8080);
    assert!(reached("127.0.0.1:8080"));
    assert_eq!(server.answer(), "ok");
    assert_eq!(layer.counts(2), (1, 0));
    let (out, arrived) = layer.bytes(2);
    // Headers of 40 to 60 bytes around eight of payload, both ways.
    assert!(
        (100..1000).contains(&out) && (100..1000).contains(&arrived),
        "{out} {arrived}"
    );
    assert_eq!(layer.denials(), [""; 0]);
}

#[test]
fn a_server_that_nobody_granted_is_not_reached() {
    needs!(root(), "root");
    let layer = Layer::live(host(Vec::new(), Vec::new()));
    // Bound to port 0, and not bound at all: both listen, nobody gets in.
    for act in [
        ["tcp-serve", "127.0.0.1:0"].as_slice(),
        &["tcp-serve-unbound"],
    ] {
        let before = local_ports("tcp");
        let server = match act {
            [name, address] => layer.start([*name, *address]),
            _ => layer.start(["tcp-serve-unbound"]),
        };
        let start = Instant::now();
        let port = loop {
            if let Some(port) = local_ports("tcp").into_iter().find(|p| !before.contains(p)) {
                break port;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{act:?} does not listen"
            );
            thread::sleep(Duration::from_millis(5));
        };
        assert!(!reached(&format!("127.0.0.1:{port}")), "{act:?}");
        server.stop();
        let denials = layer.run.denials().expect("read");
        let target = format!("127.0.0.1:{port}");
        let seen = denials
            .iter()
            .find(|denial| denial.target == target.as_bytes());
        assert!(
            seen.is_some_and(|denial| denial.comm == b"probe"),
            "{denials:?}"
        );
    }
}

#[test]
fn a_granted_udp_port_answers_who_asked_and_nobody_else() {
    needs!(root(), "root");
    let layer = Layer::live(host(
        Vec::new(),
        vec![prefix("127.0.0.1", vec![udp(5353, 3)])],
    ));
    let client = open_udp("127.0.0.1:40000");
    let server = layer.start(["udp-answer", "127.0.0.1:5353"]);
    wait_for("udp", 5353);
    client.send_to(b"question", "127.0.0.1:5353").expect("send");
    assert_eq!(client.recv(&mut [0; 64]).expect("an answer"), 8);
    assert_eq!(server.answer(), "ok");
    // The same port to somebody who never asked.
    assert_eq!(layer.act(["udp-send", "127.0.0.1:40000"]), "EPERM");
    assert_eq!(layer.counts(3), (1, 0));
    assert_eq!(layer.bytes(3), (36, 36));
}

#[test]
fn an_unasked_datagram_is_dropped_and_an_answer_is_not() {
    needs!(root(), "root");
    let layer = Layer::live(host(
        vec![prefix("127.0.0.1", vec![udp(5353, 1)])],
        Vec::new(),
    ));
    let server = open_udp("127.0.0.1:5353");
    server
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set a time-out");
    let answer = thread::spawn(move || {
        let (_, from) = server.recv_from(&mut [0; 64]).expect("a question");
        server.send_to(b"answer", from).expect("send");
    });
    assert_eq!(layer.act(["udp-send-receive", "127.0.0.1:5353"]), "ok");
    answer.join().expect("the server ends");
    assert_eq!(layer.bytes(1), (36, 34));

    let before = local_ports("udp");
    let waiting = layer.start(["udp-receive", "127.0.0.1:0"]);
    let start = Instant::now();
    let port = loop {
        if let Some(port) = local_ports("udp").into_iter().find(|p| !before.contains(p)) {
            break port;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(5));
    };
    let stranger = open_udp("127.0.0.1:0");
    stranger
        .send_to(b"hello", ("127.0.0.1", port))
        .expect("send");
    assert_eq!(waiting.answer(), "ETIMEDOUT");
    let seen = format!("Ingress udp://127.0.0.1:{port} None 1  probe");
    assert!(layer.denials().contains(&seen), "{:#?}", layer.denials());
}

#[test]
fn a_sender_that_is_taken_away_does_not_reach_a_granted_port() {
    needs!(root(), "root");
    let destinations = vec![prefix("127.0.0.9", vec![deny(1)])];
    let listeners = vec![prefix("127.0.0.1", vec![tcp(8080, 2)])];
    let layer = Layer::live(host(destinations, listeners));
    let server = layer.start(["tcp-serve", "127.0.0.1:8080"]);
    wait_for("tcp", 8080);
    let refused = layer.outside(["tcp-from", "127.0.0.9:0", "127.0.0.1:8080"]);
    assert_eq!(refused, "ETIMEDOUT");
    assert!(
        layer.counts(1).1 >= 1,
        "the rule that takes away has refused nothing"
    );
    assert!(reached("127.0.0.1:8080"));
    assert_eq!(server.answer(), "ok");
}

#[test]
fn itself_is_reached_in_a_namespace_of_its_own() {
    needs!(root(), "root");
    let layer = Layer::live(own(true));
    assert_eq!(layer.act(["tcp-itself", "127.0.0.1:0"]), "ok");
    assert_eq!(layer.act(["tcp-itself", "[::1]:8080"]), "ok");
    assert_eq!(layer.act(["tcp-itself", "0.0.0.0:8081"]), "ok");
    // Three connects and two binds of a port.
    assert_eq!(layer.counts(0).0, 5);
    // What leaves arrives; the last acknowledgement of a connection has no socket any more.
    let (out, arrived) = layer.bytes(0);
    assert!(
        out > 1000 && arrived.abs_diff(out) <= 3 * 60,
        "{out} {arrived}"
    );
    assert_eq!(layer.act(["tcp", "192.0.2.1:80"]), "EPERM");
}

#[test]
fn nothing_is_reached_in_a_namespace_without_the_rule() {
    needs!(root(), "root");
    let layer = Layer::live(own(false));
    serve_tcp("127.0.0.1:8080");
    assert_eq!(layer.act(["tcp", "127.0.0.1:8080"]), "EPERM");
    assert_eq!(layer.act(["udp-send", "127.0.0.1:5353"]), "EPERM");
    assert_eq!(layer.act(["bind-tcp", "127.0.0.1:8081"]), "EPERM");
    assert_eq!(layer.act(["tcp-itself", "127.0.0.1:0"]), "EPERM");
}
