// SPDX-License-Identifier: MIT OR Apache-2.0
//! Destinations by name from inside a run, with real programs, and servers and a name server on
//! the loopback interface of the test's own network namespace.

mod http;
mod kits;
mod server;
mod tls;

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::support::{Jail, Outcome, root};
use server::{Dns, accept, echo};

/// Where the test's name server listens.
const RESOLVER: &str = "127.0.0.1:5353";

/// A policy for python with these entries of `network.allow`.
fn policy(allow: &str) -> String {
    format!(
        "version = 1\nname = \"names\"\nextends = [\"@python\"]\n\
         [files]\nexec = [\"${{COMMAND}}\", \"/usr/bin/curl\", \"/usr/bin/openssl\", \"/bin/sh\"]\n\
         [network]\nresolver = [\"{RESOLVER}\"]\n{allow}\n"
    )
}

/// Runs a python script under the policy.
fn python(jail: &Jail, allow: &str, script: &str) -> Outcome {
    without(jail, "", allow, script)
}

/// The same with one act of lp-run left out.
fn without(jail: &Jail, act: &str, allow: &str, script: &str) -> Outcome {
    let script = format!("{HELPERS}\n{script}");
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run.env("LP_RUN_FAULT", format!("skip={act}"));
    let command = ["/usr/bin/python3", "-c", &script];
    jail.run_as(lp_run, &policy(allow), &[], &command)
}

const HELPERS: &str = r#"
import errno, socket, struct, sys
def name(error):
    if isinstance(error, socket.gaierror): return "no name"
    if isinstance(error, TimeoutError): return "timeout"
    return errno.errorcode.get(error.errno, str(error))
def say(f):
    try: print(f(), flush=True)
    except OSError as error: print(name(error), flush=True)
def talk(host, port, text=b"hello\n"):
    s = socket.create_connection((host, port), 20)
    s.sendall(text)
    s.shutdown(socket.SHUT_WR)
    got = b""
    while True:
        part = s.recv(65536)
        if not part: break
        got += part
    return got.decode()
"#;

#[test]
fn a_name_is_reached_under_that_name_and_nothing_else_is() {
    crate::needs!(root(), "root");
    let jail = Jail::new();
    let dns = Dns::start(RESOLVER);
    let port = echo();
    let allow = format!(
        "allow = [{{ to = \"db.ok.example:{port}\", private = true }},\n\
                  {{ to = \"*.wild.example:{port}\", private = true }}]"
    );
    let script = format!(
        "say(lambda: talk('db.ok.example', {port}))\n\
         say(lambda: talk('DB.OK.EXAMPLE.', {port}))\n\
         say(lambda: talk('a.b.wild.example', {port}))\n\
         say(lambda: talk('wild.example', {port}))\n\
         say(lambda: talk('notwild.example', {port}))\n\
         say(lambda: talk('evil.example', {port}))\n\
         say(lambda: talk('127.0.0.1', {port}))\n\
         say(lambda: talk('::1', {port}))\n\
         say(lambda: talk('192.0.2.1', {port}))\n\
         say(lambda: talk('198.18.77.1', {port}))\n\
         say(lambda: talk('db.ok.example', {}))",
        port + 1
    );
    let outcome = python(&jail, &allow, &script);
    assert_eq!(
        outcome.stdout,
        "HELLO\n\nHELLO\n\nHELLO\n\nno name\nno name\nno name\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\n",
        "{outcome:#?}"
    );
    let asked = dns.asked();
    assert!(
        asked
            .iter()
            .all(|name| name == "db.ok.example" || name == "a.b.wild.example"),
        "nothing else leaves the host: {asked:?}"
    );
    let denied = outcome.denials("evil.example");
    assert_eq!(denied.len(), 1, "{outcome:#?}");
    assert_eq!(denied[0]["kind"], "resolve");
    assert_eq!(denied[0]["errno"], "NXDOMAIN");
    let rules = outcome.report.as_ref().expect("a report")["rules"].clone();
    let allowed = |key: &str| {
        let rules = rules.as_array().expect("rows");
        let row = rules.iter().find(|row| row["key"] == key);
        row.unwrap_or_else(|| panic!("{key} in {rules:#?}"))["allowed"].as_u64()
    };
    assert_eq!(allowed("network.allow[0]"), Some(2));
    assert_eq!(allowed("network.allow[1]"), Some(1));
    assert!(allowed("network.resolver") > Some(3));
}

/// NET-29.
#[test]
fn every_port_53_is_lp_runs_and_answers_from_the_address_that_was_asked() {
    crate::needs!(root(), "root");
    let jail = Jail::new();
    let dns = Dns::start(RESOLVER);
    let script = r#"
def question(name, kind=1):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    return b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack(">HH", kind, 1)
def show(reply):
    return "rcode %d answers %d" % (reply[3] & 15, reply[7])
def udp(server, name, connected, kind=1):
    s = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    if connected:
        s.connect((server, 53)); s.send(question(name, kind)); reply = s.recv(512)
    else:
        s.sendto(question(name, kind), (server, 53)); reply, sender = s.recvfrom(512)
        assert sender[:2] == (server, 53), sender
    return show(reply)
def tcp(server, name):
    s = socket.create_connection((server, 53), 10)
    for _ in range(2):
        q = question(name); s.sendall(struct.pack(">H", len(q)) + q)
        length = struct.unpack(">H", s.recv(2))[0]
        reply = s.recv(length)
    return show(reply)
for server in "8.8.8.8", "127.0.0.1", "198.18.0.53", "2001:db8::1", "::1", "::ffff:1.1.1.1":
    got = {udp(server, "a.ok.example", c) for c in (0, 1)} | {tcp(server, "a.ok.example")}
    got |= {udp(server, "evil.example", c) for c in (0, 1)} | {tcp(server, "evil.example")}
    print(server, sorted(got))
for kind in 28, 65, 64, 16, 15, 255: print(kind, udp("8.8.8.8", "a.ok.example", 1, kind))
say(lambda: udp("8.8.8.8", "x" * 63 + ".ok.example", 1))
say(lambda: socket.create_connection(("8.8.8.8", 853), 5))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
say(lambda: s.sendto(b"x", ("8.8.8.8", 54)))
say(lambda: s.bind(("0.0.0.0", 53)))
"#;
    let allow = "allow = [\"a.ok.example:443\"]";
    let outcome = python(&jail, allow, script);
    let both = "['rcode 0 answers 1', 'rcode 3 answers 0']";
    let mut expected: String = [
        "8.8.8.8",
        "127.0.0.1",
        "198.18.0.53",
        "2001:db8::1",
        "::1",
        "::ffff:1.1.1.1",
    ]
    .iter()
    .map(|server| format!("{server} {both}\n"))
    .collect();
    expected += "28 rcode 0 answers 1\n65 rcode 0 answers 0\n64 rcode 0 answers 0\n\
                 16 rcode 0 answers 0\n15 rcode 0 answers 0\n255 rcode 0 answers 1\n\
                 rcode 3 answers 0\nEPERM\nEPERM\nEPERM\n";
    assert_eq!(outcome.stdout, expected, "{outcome:#?}");
    assert!(dns.asked().is_empty(), "a question alone asks nobody");
}

/// NET-32.
#[test]
fn what_a_name_leads_to_is_judged() {
    crate::needs!(root(), "root");
    let jail = Jail::new();
    let _dns = Dns::start(RESOLVER);
    let port = echo();
    let script = format!("say(lambda: talk('db.ok.example', {port}))");
    let target = format!("db.ok.example:{port}");
    let open = format!("{{ to = \"db.ok.example:{port}\", private = true }}");
    let granted = python(&jail, &format!("allow = [{open}]"), &script);
    assert_eq!(granted.stdout, "HELLO\n\n", "{granted:#?}");
    let private = python(&jail, &format!("allow = [\"{target}\"]"), &script);
    assert_eq!(private.stdout, "ECONNRESET\n", "{private:#?}");
    let rows = private.denials(&target);
    assert_eq!(rows[0]["reason"], "private-address", "{private:#?}");
    assert_eq!(rows[0]["rule"], "network.allow[0]");
    let blind = format!("allow = [\"{target}\"]");
    let blind = without(&jail, "judge addresses", &blind, &script);
    assert_eq!(blind.stdout, "HELLO\n\n", "{blind:#?}");
    let denied = format!("allow = [{open}]\ndeny = [\"127.0.0.0/8\"]");
    let denied = python(&jail, &denied, &script);
    assert_eq!(denied.stdout, "ECONNRESET\n", "{denied:#?}");
    let rows = denied.denials(&target);
    assert_eq!(rows[0]["reason"], "denied-address", "{denied:#?}");
    assert_eq!(rows[0]["rule"], "network.deny[0]");
    let taken = format!("allow = [{open}]\ndeny = [\"*.ok.example\"]");
    let taken = python(&jail, &taken, &script);
    assert_eq!(taken.stdout, "no name\n", "{taken:#?}");
    assert_eq!(taken.denials("db.ok.example")[0]["rule"], "network.deny[0]");
}

/// NET-32: the host's services listen on its public address too.
#[test]
fn a_public_address_of_this_machine_is_its_own() {
    crate::needs!(root() && Path::new("/usr/sbin/ip").exists(), "root and ip");
    let jail = Jail::new();
    let added = Command::new("ip")
        .args(["address", "add", "11.0.0.9/32", "dev", "lo"])
        .status();
    assert!(added.expect("start ip").success());
    let _dns = Dns::leading_to([11, 0, 0, 9], RESOLVER);
    let listener = TcpListener::bind("11.0.0.9:7000").expect("listen");
    accept(listener, |mut client| {
        drop(client.write_all(b"own service\n"))
    });
    let script = "say(lambda: talk('db.ok.example', 7000, b''))";
    let granted = "allow = [{ to = \"db.ok.example:7000\", private = true }]";
    let granted = python(&jail, granted, script);
    assert_eq!(granted.stdout, "own service\n\n", "{granted:#?}");
    let allow = "allow = [\"db.ok.example:7000\"]";
    let refused = python(&jail, allow, script);
    assert_eq!(refused.stdout, "ECONNRESET\n", "{refused:#?}");
    let rows = refused.denials("db.ok.example:7000");
    assert_eq!(rows[0]["reason"], "own-address", "{refused:#?}");
    assert_eq!(rows[0]["rule"], "network.allow[0]");
    let blind = without(&jail, "judge addresses", allow, script);
    assert_eq!(blind.stdout, "own service\n\n", "{blind:#?}");
}

#[test]
fn an_address_beside_names_goes_through_the_relay_and_self_stays_the_runs_own() {
    crate::needs!(root(), "root");
    let jail = Jail::new();
    let _dns = Dns::start(RESOLVER);
    let port = echo();
    let script = format!(
        "say(lambda: talk('127.0.0.1', {port}))\n\
         say(lambda: talk('db.ok.example', {port}))\n\
         say(lambda: talk('127.0.0.1', {}))",
        port + 1
    );
    let name = format!("{{ to = \"db.ok.example:{port}\", private = true }}");
    let address = format!("allow = [{name}, \"127.0.0.1:{port}\"]");
    let outcome = python(&jail, &address, &script);
    assert_eq!(outcome.stdout, "HELLO\n\nHELLO\n\nEPERM\n", "{outcome:#?}");
    // The listener of the relay is in the run's own loopback, and leads nowhere from there.
    let direct = "
ports = [int(line.split()[1].split(':')[1], 16) for line in open('/proc/net/tcp6')
         if line.split()[3] == '0A']
for port in ports:
    for host in '127.0.0.1', '::1': say(lambda: talk(host, port))";
    let outcome = python(&jail, &format!("allow = [{name}, \"self\"]"), direct);
    assert_eq!(outcome.stdout, "ECONNRESET\nECONNRESET\n", "{outcome:#?}");
    let report = outcome.report.as_ref().expect("a report");
    let denials = report["denials"].as_array().expect("rows");
    let refused = denials.iter().filter(|row| row["reason"] == "not-granted");
    assert_eq!(refused.count(), 2, "nothing is dialled: {outcome:#?}");
    let own = format!(
        "l = socket.create_server(('127.0.0.1', {port}))\n\
         c = socket.create_connection(('127.0.0.1', {port}))\n\
         a, _ = l.accept(); a.sendall(b'own'); print(c.recv(9))\n\
         say(lambda: talk('db.ok.example', {port}))"
    );
    let outcome = python(&jail, &format!("allow = [{name}, \"self\"]"), &own);
    assert_eq!(outcome.stdout, "b'own'\nHELLO\n\n", "{outcome:#?}");
}

#[test]
fn without_the_steering_nothing_is_reached() {
    crate::needs!(root(), "root");
    let jail = Jail::new();
    let dns = Dns::start(RESOLVER);
    let port = echo();
    let allow = format!("allow = [{{ to = \"db.ok.example:{port}\", private = true }}]");
    let script = format!("say(lambda: talk('db.ok.example', {port}))");
    let outcome = without(&jail, "steer", &allow, &script);
    assert_eq!(outcome.stdout, "ECONNREFUSED\n", "{outcome:#?}");
    assert!(dns.asked().is_empty());
}

#[test]
fn a_thousand_connections_at_once_and_much_at_once_arrive_whole() {
    crate::needs!(root(), "root");
    let jail = Jail::new();
    let _dns = Dns::start(RESOLVER);
    let port = echo();
    let script = format!(
        "import hashlib\n\
         all = [socket.create_connection(('db.ok.example', {port}), 30) for _ in range(1000)]\n\
         print({{s.getpeername()[1] for s in all}} == {{{port}}})\n\
         print(len({{s.getpeername()[0] for s in all}}) <= 2)\n\
         for i, s in enumerate(all): s.sendall(b'%d\\n' % i)\n\
         print(all[0].recv(9), all[999].recv(9))\n\
         for s in all: s.close()\n\
         import threading\n\
         s = socket.create_connection(('db.ok.example', {port}), 30)\n\
         block = bytes(range(97, 123)) * 4000\n\
         def send():\n\
         \x20for _ in range(500): s.sendall(block)\n\
         \x20s.shutdown(socket.SHUT_WR)\n\
         t = threading.Thread(target=send); t.start()\n\
         got, want = hashlib.sha256(), hashlib.sha256()\n\
         while part := s.recv(1 << 20): got.update(part)\n\
         for _ in range(500): want.update(block.upper())\n\
         print(got.digest() == want.digest())"
    );
    let allow = format!("allow = [{{ to = \"db.ok.example:{port}\", private = true }}]");
    let policy = policy(&allow) + "[limits]\nopen_files = 4096\n";
    let script = format!("{HELPERS}\n{script}");
    let outcome = jail.run(&policy, &["/usr/bin/python3", "-c", &script]);
    assert_eq!(
        outcome.stdout, "True\nTrue\nb'0\\n' b'999\\n'\nTrue\n",
        "{outcome:#?}"
    );
}
