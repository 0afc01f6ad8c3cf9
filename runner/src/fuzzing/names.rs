// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes that the agent sends to resolver and relay, and that a name server sends back.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::names::hello::{self, Hello};
use crate::names::http::{self, Body, Chunks, Head};
use crate::names::question::{self, Known};

/// A question: the answer is an answer to it, and has no addresses for what is not known.
pub fn question(bytes: &[u8]) {
    let here = Known::Here(Ipv4Addr::new(198, 18, 1, 0), Ipv6Addr::LOCALHOST);
    for known in [here, Known::Nowhere, Known::Exhausted] {
        let mut asked = None;
        let answer = question::answer(bytes, |text, name| {
            asked = Some(text.len());
            assert!(text.len() <= 4 * 256 && text.is_ascii());
            assert!(name.is_none_or(|name| name.len() <= 253));
            known
        });
        let Some(answer) = answer else { continue };
        assert_eq!(answer[..2], bytes[..2], "the id");
        assert!(answer[2] & 0x80 != 0 && answer.len() <= 1232);
        assert!(answer[7] <= 1 && answer[6] == 0);
        assert!(known == here || answer[7] == 0, "an answer for nobody");
        assert!(asked.is_some() || answer[7] == 0, "an answer to nothing");
    }
}

pub fn question_seeds() -> Vec<Vec<u8>> {
    let question = |name: &[u8], kind: u8| {
        let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(name);
        bytes.extend([0, kind, 0, 1]);
        bytes
    };
    let mut edns = question(b"\x03api\x02ok\x07example\0", 28);
    edns[11] = 1;
    edns.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    vec![
        question(b"\x03api\x02ok\x07example\0", 1),
        question(b"\0", 65),
        question(b"\xc0\x0c", 1),
        edns,
    ]
}

/// The beginning of a connection: what is decided does not change when more arrives, and half
/// of it decides nothing else.
pub fn hello(bytes: &[u8]) {
    let whole = hello::read(bytes);
    let half = hello::read(&bytes[..bytes.len() / 2]);
    if let Hello::Name(_) = half {
        assert_eq!(half, whole, "a name that was read stays");
    }
    if let Hello::Name(name) = whole {
        assert!(bytes.windows(name.len().max(1)).count() > 0);
        assert!(name.len() <= bytes.len());
    }
}

pub fn hello_seeds() -> Vec<Vec<u8>> {
    let name = b"api.ok.example";
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0, 0, 23, 0, 0, 0, 19, 0, 17, 0, 0, 14]);
    body.extend(name);
    let mut handshake = vec![1, 0, 0, body.len() as u8];
    handshake.extend(body);
    let records = |size: usize| {
        let mut bytes = Vec::new();
        for part in handshake.chunks(size) {
            bytes.extend([22, 3, 1, 0, part.len() as u8]);
            bytes.extend(part);
        }
        bytes
    };
    assert_eq!(
        hello::read(&records(200)),
        Hello::Name("api.ok.example".to_owned())
    );
    vec![records(200), records(30), records(1)]
}

/// Requests on a connection: a head that passes names the host, and its body is found.
pub fn requests(bytes: &[u8]) {
    let mut rest = bytes;
    while let Head::Done(length, body) = http::head(rest, "ok.example", 80) {
        assert!(length > 0 && length <= rest.len());
        let head = rest[..length].to_ascii_lowercase();
        assert!(head.windows(10).any(|part| part == b"ok.example"));
        assert!(head.ends_with(b"\r\n\r\n"));
        rest = &rest[length..];
        match body {
            Body::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                rest = &rest[length.min(rest.len())..];
            }
            Body::Chunked => {
                let mut chunks = Chunks::default();
                let Ok(taken) = chunks.take(rest) else { return };
                assert!(taken <= rest.len());
                if chunks != Chunks::Done {
                    return;
                }
                rest = &rest[taken..];
            }
            Body::Upgrade => return,
        }
    }
}

pub fn request_seeds() -> Vec<Vec<u8>> {
    [
        "GET / HTTP/1.1\r\nHost: ok.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: ok.example:80\r\n\r\n",
        "POST http://ok.example/ HTTP/1.1\r\nHost: ok.example\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: ok.example\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: ok.example\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
