// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plain HTTP by name: each request on a connection is for the name, or the connection ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::server::{Dns, accept};
use super::{RESOLVER, python};
use crate::support::{Jail, root};

/// An HTTP server on port 80 that answers each request with its line and its body's length;
/// gives the request lines with their hosts as it saw them.
fn server() -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&seen);
    let listener = TcpListener::bind("127.0.0.1:80").expect("listen");
    accept(listener, move |client| {
        let mut writer = client.try_clone().expect("a second handle");
        let mut reader = BufReader::new(client);
        loop {
            let mut head = Vec::new();
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                head.push(line.trim_end().to_ascii_lowercase());
                line.clear();
            }
            let Some(first) = head.first() else { return };
            let host = head.iter().find(|line| line.starts_with("host:"));
            list.lock().expect("the list").push(format!(
                "{first} {}",
                host.map_or("", |host| &host[5..]).trim()
            ));
            if head.iter().any(|line| line.starts_with("upgrade:")) {
                let _ = writer.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
                let mut bytes = [0; 64];
                while let Ok(length @ 1..) = reader.read(&mut bytes) {
                    let _ = writer.write_all(&bytes[..length]);
                }
                return;
            }
            let value = |name: &str| {
                let line = head.iter().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            let mut body = 0;
            if let Some(length) = value("content-length:") {
                body = length.parse().expect("a length");
                let mut bytes = vec![0; body];
                reader.read_exact(&mut bytes).expect("a body");
            } else if value("transfer-encoding:").is_some() {
                loop {
                    let mut size = String::new();
                    let _ = reader.read_line(&mut size);
                    let size = usize::from_str_radix(size.trim(), 16).expect("a size");
                    let mut bytes = vec![0; size + 2];
                    reader.read_exact(&mut bytes).expect("a chunk");
                    body += size;
                    if size == 0 {
                        break;
                    }
                }
            }
            let text = format!("{body}\n");
            let _ = write!(
                writer,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
        }
    });
    seen
}

const ALLOW: &str = "allow = [{ to = \"web.ok.example:80\", private = true }]";

#[test]
fn each_request_is_for_the_name() {
    crate::needs!(root(), "root");
    let jail = Jail::new();
    let _dns = Dns::start(RESOLVER);
    let seen = server();
    let script = r#"
import http.client
c = http.client.HTTPConnection("web.ok.example", 80, timeout=20)
def ask(method, path, **more):
    c.request(method, path, **more)
    return c.getresponse().read().decode().strip()
print(ask("GET", "/1"), ask("POST", "/2", body=b"x" * 100000))
print(ask("POST", "/3", body=iter([b"ab", b"cde"]), encode_chunked=True,
          headers={"Transfer-Encoding": "chunked"}))
def evil():
    return ask("GET", "/secret", headers={"Host": "evil.example"})
try: print(evil())
except (OSError, http.client.HTTPException) as error: print("refused")
def raw(text):
    s = socket.create_connection(("web.ok.example", 80), 20)
    s.sendall(text)
    got = b""
    while part := s.recv(4096): got += part
    return got
ok = b"GET /4 HTTP/1.1\r\nHost: web.ok.example\r\n"
say(lambda: raw(b"GET /secret HTTP/1.1\r\nHost: evil.example\r\n\r\n"))
say(lambda: raw(b"GET http://evil.example/secret HTTP/1.1\r\nHost: web.ok.example\r\n\r\n"))
say(lambda: raw(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: web.ok.example\r\n\r\n"))
say(lambda: raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
say(lambda: raw(ok + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
s = socket.create_connection(("web.ok.example", 80), 20)
s.sendall(ok + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
print(s.recv(4096).split(b"\r\n")[0])
s.sendall(b"\x81\x05hello"); print(s.recv(64))
"#;
    let outcome = python(&jail, ALLOW, script);
    assert_eq!(
        outcome.stdout,
        "0 100000\n5\nrefused\nECONNRESET\nECONNRESET\nECONNRESET\nECONNRESET\nECONNRESET\n\
         b'HTTP/1.1 101 Switching Protocols'\nb'\\x81\\x05hello'\n",
        "{outcome:#?}"
    );
    let seen = seen.lock().expect("the list").clone();
    assert_eq!(
        seen,
        [
            "get /1 http/1.1 web.ok.example",
            "post /2 http/1.1 web.ok.example",
            "post /3 http/1.1 web.ok.example",
            "get /4 http/1.1 web.ok.example",
        ],
        "nothing of a refused request arrives"
    );
    let rows = outcome.denials("web.ok.example:80");
    let reasons: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["reason"].as_str())
        .collect();
    assert!(reasons.contains(&"other-host"), "{outcome:#?}");
    assert!(reasons.contains(&"unreadable"), "{outcome:#?}");
}
