// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on the network through a whole run: every way to a peer that no rule names, socket
//! families and types, listening, and the exact counts of what was allowed and refused. The
//! programs by themselves are tried under `network`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};

use super::{Arm, Row, bare, confined, lp_run_without};
use crate::needs;
use crate::support::{Jail, probe, root};

const HEAD: &str = "version = 1\nname = \"attacks-network\"\n\
                    [files]\nread = [\"${BASE}\"]\nexec = [\"${COMMAND}\"]\n";

/// `@A@` is granted, `@B@` is not; servers of the test listen on both, for TCP and UDP.
const REACHING: &[Row] = &[
    ("NET-01a", "tcp 127.0.0.1:@A@", "ok", "ok", "ok"),
    ("NET-01", "tcp 127.0.0.1:@B@", "ok", "EPERM", "ok"),
    ("NET-01v6", "tcp [::1]:@B@", "ECONNREFUSED", "EPERM", ""),
    ("NET-02", "tcp [::ffff:127.0.0.1]:@B@", "ok", "EPERM", "ok"),
    ("NET-02a", "tcp [::ffff:127.0.0.1]:@A@", "ok", "ok", "ok"),
    (
        "NET-03",
        "udp-connect-send [::ffff:127.0.0.1]:@B@",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "NET-03s",
        "udp-send [::ffff:127.0.0.1]:@B@",
        "ok",
        "EPERM",
        "ok",
    ),
    // A connect that sends nothing passes where another port of the address is granted.
    ("NET-04c", "udp6-connect-v4 127.0.0.1:@B@", "ok", "ok", "ok"),
    ("NET-04", "udp6-connect-v4 127.0.0.2:@B@", "ok", "EPERM", ""),
    ("NET-14", "ping 127.0.0.1:0", "ok", "EPERM", "EPERM"),
    ("NET-14v6", "ping [::1]:0", "*", "EPERM", "EPERM"),
    ("NET-04s", "udp6-send-v4 127.0.0.1:@B@", "ok", "EPERM", "ok"),
    (
        "NET-06",
        "tcp-reconnect 127.0.0.1:@A@ 127.0.0.1:@B@",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "NET-06u",
        "udp-connect-send-elsewhere 127.0.0.1:@A@ 127.0.0.1:@B@",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "NET-07",
        "udp-connect-send-control 127.0.0.1:@A@",
        "ok",
        "ok",
        "ok",
    ),
    ("NET-09", "tcp-fastopen 127.0.0.1:@B@", "ok", "EPERM", "ok"),
    (
        "NET-10",
        "tcp-fastopen-connect 127.0.0.1:@B@",
        "ok",
        "EPERM",
        "ok",
    ),
    ("NET-11", "mptcp 127.0.0.1:@B@", "ok", "EPERM", "ok"),
    ("NET-24", "udp-send 127.0.0.53:53", "ok", "EPERM", ""),
    (
        "NET-24s",
        "udp-send-unspec 127.0.0.1:@B@",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "NET-25",
        "tcp 169.254.169.254:80",
        "ENETUNREACH",
        "EPERM",
        "",
    ),
    (
        "NET-25v6",
        "tcp [fd00:ec2::254]:80",
        "ENETUNREACH",
        "EPERM",
        "",
    ),
    ("NET-27", "udp-send 224.0.0.251:5353", "*", "EPERM", ""),
    ("NET-28", "udp-send 8.8.8.8:53", "ENETUNREACH", "EPERM", ""),
    ("NET-28t", "tcp 8.8.8.8:853", "ENETUNREACH", "EPERM", ""),
    ("NET-34", "listen 0.0.0.0:@C@", "ok", "EPERM", "ok"),
    ("NET-34v6", "bind-tcp [::]:@C@", "ok", "EPERM", "ok"),
    ("NET-34p", "bind-tcp 127.0.0.1:80", "ok", "EPERM", ""),
    ("NET-34u", "bind-udp 0.0.0.0:@C@", "ok", "EPERM", "ok"),
    ("NET-34z", "bind-tcp 0.0.0.0:0", "ok", "ok", "ok"),
];

/// Kinds of sockets that have no business in a run.
const FAMILIES: &[Row] = &[
    ("NET-14", "socket 2 2 1", "", "EACCES", ""),
    ("NET-15", "socket 2 3 255", "ok", "EPERM", ""),
    ("NET-15v6", "socket 10 3 58", "ok", "EPERM", ""),
    ("NET-15p", "socket 17 3 768", "ok", "EPERM", ""),
    ("NET-16", "socket 40 1 0", "*", "EPERM", ""),
    ("NET-17alg", "socket 38 5 0", "*", "EPERM", ""),
    ("NET-17nl", "socket 16 3 16", "ok", "EPERM", ""),
    ("NET-17nf", "socket 16 3 12", "*", "EPERM", ""),
    ("NET-17ud", "socket 16 3 15", "ok", "EPERM", ""),
    ("NET-17route", "socket 16 3 0", "ok", "ok", ""),
    ("NET-17key", "socket 15 3 2", "*", "EPERM", ""),
    ("NET-17can", "socket 29 3 1", "*", "EPERM", ""),
    ("NET-17tipc", "socket 30 4 0", "*", "EPERM", ""),
    ("NET-17bt", "socket 31 1 3", "*", "EPERM", ""),
    ("NET-17xdp", "socket 44 3 0", "*", "EPERM", ""),
    ("NET-18", "socket 43 1 0", "*", "EPERM", ""),
    ("NET-17hi", "socket 46 1 0", "*", "EPERM", ""),
    ("NET-17tcp", "socket 2 1 0", "ok", "ok", ""),
    ("NET-17unix", "socket 1 1 0", "ok", "EPERM", ""),
];

/// The ports of a test's servers, held open for TCP and UDP.
struct Servers {
    ports: [u16; 2],
    _sockets: Vec<(TcpListener, UdpSocket)>,
    free: u16,
}

impl Servers {
    /// Call it on the jail's thread: the servers belong to its network.
    fn start() -> Self {
        let both = |port: u16| {
            let tcp = TcpListener::bind(("127.0.0.1", port)).expect("listen");
            let udp = UdpSocket::bind(("127.0.0.1", port)).expect("bind");
            (tcp, udp)
        };
        Self {
            ports: [4001, 4002],
            _sockets: vec![both(4001), both(4002)],
            free: 4003,
        }
    }

    fn fill(&self, text: &str) -> String {
        text.replace("@A@", &self.ports[0].to_string())
            .replace("@B@", &self.ports[1].to_string())
            .replace("@C@", &self.free.to_string())
    }

    fn rows(&self, rows: &[Row]) -> Vec<Row> {
        let leak = |act: &str| -> &'static str { Box::leak(self.fill(act).into_boxed_str()) };
        rows.iter()
            .map(|(id, act, bare, denied, granted)| (*id, leak(act), *bare, *denied, *granted))
            .collect()
    }
}

fn both(port: &str) -> String {
    format!("\"127.0.0.1:{port}\", \"udp://127.0.0.1:{port}\"")
}

#[test]
fn only_peers_that_a_rule_names_are_reached_by_any_call() {
    needs!(root(), "root");
    let jail = Jail::new();
    let servers = Servers::start();
    // Ping sockets for everybody, so that not the kernel's own setting refuses them.
    let everybody = "0 2147483647";
    fs::write("/proc/sys/net/ipv4/ping_group_range", everybody).expect("open ping sockets");
    let rows = servers.rows(REACHING);
    bare(&jail, &rows);
    let denied = servers.fill(&format!("{HEAD}[network]\nallow = [{}]\n", both("@A@")));
    let outcome = confined(&jail, &rows, Arm::Denied, &denied);
    let refused = outcome.denials("169.254.169.254:80");
    assert_eq!(refused.len(), 1, "{outcome:?}");
    assert_eq!(refused[0]["errno"], "EPERM");
    assert_eq!(refused[0]["comm"], "probe");
    let granted = servers.fill(&format!(
        "{HEAD}[network]\nallow = [{}, {}]\nlisten = [\"0.0.0.0:@C@\", \"[::]:@C@\", \"udp://0.0.0.0:@C@\"]\n",
        both("@A@"),
        both("@B@")
    ));
    confined(&jail, &rows, Arm::Granted, &granted);
}

#[test]
fn no_other_kind_of_socket_is_made() {
    needs!(root(), "root");
    let jail = Jail::new();
    bare(&jail, FAMILIES);
    confined(&jail, FAMILIES, Arm::Denied, HEAD);
}

#[test]
fn connects_are_counted_exactly_and_denied_means_120_where_asked() {
    needs!(root(), "root");
    let jail = Jail::new();
    let servers = Servers::start();
    let act = |act, wanted| ("count", act, "", wanted, "");
    let rows: Vec<Row> = (0..30)
        .map(|_| act("tcp 127.0.0.1:@A@", "ok"))
        .chain((0..11).map(|_| act("tcp 127.0.0.1:@B@", "EPERM")))
        .chain((0..5).map(|_| act("udp-send 127.0.0.1:@A@", "EPERM")))
        .collect();
    let rows = servers.rows(&rows);
    let policy = servers.fill(&format!("{HEAD}[network]\nallow = [\"127.0.0.1:@A@\"]\n"));
    let outcome = confined(&jail, &rows, Arm::Denied, &policy);
    assert_eq!(outcome.code(), 0);
    let rule = outcome.rule("network.allow[0]");
    assert_eq!((&rule["allowed"], &rule["denied"]), (&30.into(), &0.into()));
    let denial = |target: &str, kind: &str| {
        let rows = outcome.denials(target).into_iter();
        let rows: Vec<_> = rows.filter(|row| row["kind"] == kind).collect();
        assert_eq!(rows.len(), 1, "{outcome:?}");
        rows[0]["count"].clone()
    };
    assert_eq!(denial("127.0.0.1:4002", "connect"), 11);
    assert_eq!(denial("127.0.0.1:4001", "sendto"), 5);
    let command = probe(["each", "tcp", "127.0.0.1:4002"]);
    let failed = jail.run_with(&policy, &["--fail-on-denied"], &command);
    assert_eq!(
        (failed.code(), failed.answer()),
        (120, "EPERM"),
        "{failed:?}"
    );
    let command = probe(["each", "tcp", "127.0.0.1:4001"]);
    let passed = jail.run_with(&policy, &["--fail-on-denied"], &command);
    assert_eq!((passed.code(), passed.answer()), (0, "ok"), "{passed:?}");
}

#[test]
fn without_network_rules_a_run_meets_no_server_of_the_host() {
    needs!(root(), "root");
    let jail = Jail::new();
    let servers = Servers::start();
    let rows: &[Row] = &[
        ("NET-24", "tcp 127.0.0.1:@A@", "ok", "EPERM", "ECONNREFUSED"),
        ("NET-40", "unshare 0x40000000", "ok", "EPERM", "EPERM"),
        ("NET-40s", "setns /proc/self/ns/net", "ok", "EPERM", "EPERM"),
        ("self", "tcp-itself 127.0.0.1:0", "ok", "EPERM", "ok"),
    ];
    let rows = servers.rows(rows);
    bare(&jail, &rows);
    confined(&jail, &rows, Arm::Denied, HEAD);
    // Its own servers it may meet, on a loopback of its own.
    let own = format!("{HEAD}[network]\nallow = [\"self\"]\n");
    confined(&jail, &rows, Arm::Granted, &own);
}

#[test]
fn a_kernel_without_bpf_refuses_a_rule_with_an_address() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = format!("{HEAD}[network]\nallow = [\"127.0.0.1:4001\"]\n");
    let command = probe(["each", "tcp", "127.0.0.1:4002"]);
    // Nothing gives up the network: asking for it is a mistake of the command line.
    for (options, code) in [(&[][..], 123), (&["--allow-degraded", "network"], 122)] {
        let lp_run = lp_run_without(&[libc::SYS_bpf]);
        let refused = jail.run_as(lp_run, &policy, options, &command);
        assert_eq!(
            (refused.code(), refused.answer()),
            (code, ""),
            "{refused:?}"
        );
    }
}

/// NET-41: no variable and no option of a tool decides.
#[test]
fn tools_that_ignore_proxies_meet_the_kernel() {
    needs!(root(), "root");
    let jail = Jail::new();
    let server = TcpListener::bind("127.0.0.1:4041").expect("listen");
    std::thread::spawn(move || {
        for client in server.incoming().flatten() {
            let mut line = String::new();
            let mut client = BufReader::new(client);
            let _ = client.read_line(&mut line);
            let _ = client.get_mut().write_all(b"HTTP/1.0 200 OK\r\n\r\nhi\n");
        }
    });
    let script = "unset HTTP_PROXY http_proxy ALL_PROXY all_proxy
        curl -s --noproxy '*' http://127.0.0.1:4041/ >/dev/null; echo curl $?
        wget -q --no-proxy --tries=1 -O /dev/null http://127.0.0.1:4041/; echo wget $?
        (exec 3<>/dev/tcp/127.0.0.1/4041 && echo >&3) 2>/dev/null; echo bash $?";
    let has = |tool: &str| std::path::Path::new("/usr/bin").join(tool).exists();
    needs!(
        has("curl") && has("wget") && has("bash"),
        "curl, wget and bash"
    );
    let command = ["bash", "-c", script];
    assert_eq!(jail.bare(&command).stdout, "curl 0\nwget 0\nbash 0\n");
    let policy = |rule: &str| {
        format!(
            "version = 1\nname = \"attacks-tools\"\nextends = [\"@shell\"]\n\
             [files]\nexec = [\"/usr/bin/curl\", \"/usr/bin/wget\", \"/usr/bin/bash\"]\n\
             [network]\nallow = [\"127.0.0.1:{rule}\"]\n"
        )
    };
    let denied = jail.run(&policy("4042"), &command);
    assert_eq!(denied.stdout, "curl 7\nwget 4\nbash 1\n", "{denied:?}");
    let rows = denied.denials("127.0.0.1:4041");
    assert_eq!(
        (rows.len(), &rows[0]["count"]),
        (1, &3.into()),
        "{denied:?}"
    );
    let granted = jail.run(&policy("4041"), &command);
    assert_eq!(granted.stdout, "curl 0\nwget 0\nbash 0\n", "{granted:?}");
}
