// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS by name: the server name is the name, or not a byte goes out.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{net, thread};

use super::server::Dns;
use super::{RESOLVER, policy, python, without};
use crate::support::{Jail, root};

/// `openssl s_server -www` on port 443 with a certificate for any of the test's names.
struct Server(Child);

impl Server {
    fn start(folder: &Path) -> Self {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args([
                "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=test",
            ])
            .args([
                "-addext",
                "subjectAltName=DNS:web.ok.example,DNS:*.wild.example",
            ])
            .current_dir(folder)
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("start openssl").success());
        let child = Command::new("openssl")
            .args(["s_server", "-www", "-accept", "127.0.0.1:443", "-quiet"])
            .args(["-key", "key.pem", "-cert", "cert.pem"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Self(child.expect("start openssl"));
        let until = Instant::now() + Duration::from_secs(20);
        while net::TcpStream::connect("127.0.0.1:443").is_err() {
            assert!(Instant::now() < until, "the server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ALLOW: &str = "allow = [{ to = \"web.ok.example:443\", private = true }, \
                     { to = \"*.wild.example:443\", private = true }]";

#[test]
fn curl_reaches_a_name_and_no_other_through_it() {
    let has = |tool: &str| Path::new("/usr/bin").join(tool).exists();
    crate::needs!(
        root() && has("curl") && has("openssl"),
        "root, curl and openssl"
    );
    let jail = Jail::new();
    let _dns = Dns::start(RESOLVER);
    let _server = Server::start(jail.path());
    let script =
        "curl() { /usr/bin/curl -s --cacert cert.pem -o /dev/null -w '%{http_code} ' \"$@\"
              echo $?; }
        curl https://web.ok.example/
        curl https://a.wild.example/
        curl https://evil.example/
        curl --connect-to evil.example:443:web.ok.example:443 -k https://evil.example/
        curl -k https://198.18.1.1/";
    let policy = policy(ALLOW).replace("[network]", "read = [\"@DIR@/cert.pem\"]\n[network]");
    let outcome = jail.run(&policy, &["/bin/sh", "-c", script]);
    assert_eq!(
        outcome.stdout, "200 0\n200 0\n000 6\n000 35\n000 35\n",
        "{outcome:#?}"
    );
    let rows = outcome.denials("evil.example:443");
    assert_eq!(rows[0]["reason"], "other-server-name", "{outcome:#?}");
    assert_eq!(rows[0]["rule"], "network.allow[0]");
    let rows = outcome.denials("web.ok.example:443");
    assert_eq!(rows[0]["reason"], "no-server-name", "{outcome:#?}");
}

#[test]
fn a_hello_in_pieces_is_put_together() {
    crate::needs!(root(), "root");
    let jail = Jail::new();
    let _dns = Dns::start(RESOLVER);
    let _server = Server::start(jail.path());
    let script = r#"
import ssl, time
def hello(name):
    context = ssl.create_default_context(); context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(inward, outward, server_hostname=name)
    try: tls.do_handshake()
    except ssl.SSLWantReadError: pass
    return outward.read()
def first(bytes, step):
    s = socket.create_connection(("web.ok.example", 443), 20)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(bytes), step):
        s.sendall(bytes[at:at + step]); time.sleep(0.01)
    return s.recv(1)
good, bad = hello("WEB.ok.example"), hello("evil.example")
assert b"WEB.ok.example" in good
for step in 10000, 40: say(lambda: first(good, step))
for step in 10000, 40: say(lambda: first(bad, step))
def records(bytes, size):
    body = bytes[5:]
    parts = [body[i:i + size] for i in range(0, len(body), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(p)) + p for p in parts)
say(lambda: first(records(bad, 50), 10000))
say(lambda: first(b"SSH-2.0-x\r\n", 10000))
"#;
    let outcome = python(&jail, ALLOW, script);
    let refused = "ECONNRESET\n".repeat(4);
    assert_eq!(
        outcome.stdout,
        format!("b'\\x16'\nb'\\x16'\n{refused}"),
        "{outcome:#?}"
    );
    let script = format!("{script}\nprint('blind'); say(lambda: first(bad, 10000))");
    let blind = without(&jail, "compare names", ALLOW, &script);
    assert!(blind.stdout.ends_with("blind\nb'\\x16'\n"), "{blind:#?}");
    let by_address = ALLOW.replace("private", "verify = \"address\", private");
    let outcome = python(
        &jail,
        &by_address,
        "say(lambda: talk('web.ok.example', 443, b'x'))",
    );
    // OpenSSL's own answer to what is no TLS.
    assert_ne!(outcome.stdout, "EPERM\n", "{outcome:#?}");
    assert!(
        outcome.denials("web.ok.example:443").is_empty(),
        "{outcome:#?}"
    );
}
