// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server name in the first bytes of TLS. A `ClientHello` may come in pieces, in several
//! records, and is larger than a packet with keys of the new kinds: it is put together, up to a
//! bound. What says no name, several, or hides the true one is told apart by its reason.

use crate::policy::name::MAX_NAME;
use tls_parser::{
    SNIType, TlsExtension, parse_tls_client_hello_extensions, parse_tls_handshake_client_hello,
};

/// Most bytes of a `ClientHello` with its records; with the largest keys of today it has 2,000.
pub const MAX_HELLO: usize = 64 * 1024;

/// Record type of a handshake, the first byte of TLS.
pub const HANDSHAKE: u8 = 22;
/// Handshake type of a `ClientHello`.
const CLIENT_HELLO: u8 = 1;
/// Longest record (RFC 8446, 5.1).
const MAX_RECORD: usize = 1 << 14;
/// `encrypted_client_hello`, and the draft before it that had another form, ESNI.
const HIDING: [u16; 2] = [0xfe0d, 0xffce];

/// What the bytes so far say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Not enough yet.
    More,
    /// The server name, as it was sent.
    Name(String),
    /// Refused, and why.
    Bad(&'static str),
}

/// The reason of a `ClientHello` that names nobody.
pub const NO_NAME: &str = "no-server-name";
/// The reason of one whose true name is encrypted.
pub const ENCRYPTED: &str = "encrypted-client-hello";
/// The reason of one that is none.
pub const UNREADABLE: &str = "unreadable";

/// Reads the beginning of a connection.
pub fn read(bytes: &[u8]) -> Hello {
    let (handshake, whole) = match records(bytes) {
        Some(read) => read,
        None => return Hello::Bad(UNREADABLE),
    };
    match handshake.first() {
        None | Some(&CLIENT_HELLO) => {}
        Some(_) => return Hello::Bad(UNREADABLE),
    }
    let length = match handshake.get(1..4) {
        Some(length) => u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize,
        None => return more(whole),
    };
    if length > MAX_HELLO {
        return Hello::Bad(UNREADABLE);
    }
    match handshake.get(4..4 + length) {
        Some(hello) => name(hello),
        None => more(whole),
    }
}

fn more(fits: bool) -> Hello {
    match fits {
        true => Hello::More,
        false => Hello::Bad(UNREADABLE),
    }
}

/// The handshake bytes of all records, and whether more may come; `None` for what is no record
/// of a handshake.
fn records(mut bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let fits = bytes.len() < MAX_HELLO;
    let mut handshake = Vec::new();
    // After the hello itself, anything may come.
    while !is_whole(&handshake) {
        let Some(kind) = bytes.first() else { break };
        // Major version 3, whatever the minor: SSL 2 has no name.
        if *kind != HANDSHAKE || bytes.get(1).is_some_and(|major| *major != 3) {
            return None;
        }
        let Some(length) = bytes.get(3..5) else { break };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length == 0 || length > MAX_RECORD {
            return None;
        }
        let rest = &bytes[5..];
        let part = &rest[..length.min(rest.len())];
        handshake.extend_from_slice(part);
        bytes = &rest[part.len()..];
    }
    Some((handshake, fits))
}

fn is_whole(handshake: &[u8]) -> bool {
    handshake.get(1..4).is_some_and(|length| {
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
        handshake.len() >= 4 + length
    })
}

fn name(hello: &[u8]) -> Hello {
    let Ok((b"", hello)) = parse_tls_handshake_client_hello(hello) else {
        return Hello::Bad(UNREADABLE);
    };
    let extensions = hello.ext.unwrap_or_default();
    // Read twice: by the library, and as a plain list that must agree with it on what is there.
    let Some(kinds) = kinds(extensions) else {
        return Hello::Bad(UNREADABLE);
    };
    if kinds.iter().any(|kind| HIDING.contains(kind)) {
        return Hello::Bad(ENCRYPTED);
    }
    match kinds.iter().filter(|kind| **kind == 0).count() {
        0 => return Hello::Bad(NO_NAME),
        1 => {}
        _ => return Hello::Bad(UNREADABLE),
    }
    let Ok((b"", extensions)) = parse_tls_client_hello_extensions(extensions) else {
        return Hello::Bad(UNREADABLE);
    };
    let names = extensions.iter().find_map(|extension| match extension {
        TlsExtension::SNI(names) => Some(names.as_slice()),
        _ => None,
    });
    match names {
        Some([(SNIType::HostName, name)]) => match std::str::from_utf8(name) {
            Ok(name) if name.len() <= MAX_NAME => Hello::Name(name.to_owned()),
            _ => Hello::Bad(UNREADABLE),
        },
        _ => Hello::Bad(NO_NAME),
    }
}

/// The types of the extensions in order; `None` when they do not fill their place exactly.
fn kinds(mut bytes: &[u8]) -> Option<Vec<u16>> {
    let mut kinds = Vec::new();
    while !bytes.is_empty() {
        let head = bytes.get(..4)?;
        kinds.push(u16::from_be_bytes([head[0], head[1]]));
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        bytes = bytes.get(4 + length..)?;
    }
    Some(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn sni(names: &[&[u8]]) -> Vec<u8> {
        let mut list = Vec::new();
        for name in names {
            list.push(0);
            list.extend((name.len() as u16).to_be_bytes());
            list.extend(*name);
        }
        let mut body = (list.len() as u16).to_be_bytes().to_vec();
        body.extend(list);
        extension(0, &body)
    }

    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut handshake = vec![CLIENT_HELLO, 0];
        handshake.extend((body.len() as u16).to_be_bytes());
        handshake.extend(body);
        handshake
    }

    /// In records of `size` bytes.
    fn sent(handshake: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in handshake.chunks(size) {
            bytes.extend([HANDSHAKE, 3, 1]);
            bytes.extend((part.len() as u16).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    const OK: &[u8] = b"api.ok.example";

    #[test]
    fn a_name_is_found_however_it_comes() {
        let mut extensions = extension(0x2a2a, b"");
        extensions.extend(sni(&[OK]));
        // Larger than a packet, as keys of the new kinds are.
        extensions.extend(extension(51, &[0; 9000]));
        let handshake = hello(&extensions);
        let name = Hello::Name("api.ok.example".to_owned());
        for size in [1, 7, 100, 16000] {
            let bytes = sent(&handshake, size);
            assert_eq!(read(&bytes), name);
            for cut in (0..bytes.len()).step_by(97) {
                assert_eq!(read(&bytes[..cut]), Hello::More, "{size} {cut}");
            }
            let mut more = bytes.clone();
            more.extend([20, 3, 3, 0, 1, 1]);
            assert_eq!(read(&more), name);
        }
    }

    #[test]
    fn what_names_nobody_or_hides_the_name_is_told_apart() {
        let two = [sni(&[OK]), sni(&[b"evil.example"])].concat();
        let [ech, esni] = HIDING.map(|kind| [sni(&[OK]), extension(kind, &[0; 100])].concat());
        let torn = [sni(&[OK]), vec![0, 51, 0, 9]].concat();
        for (extensions, reason) in [
            (vec![], NO_NAME),
            (extension(51, &[0; 4]), NO_NAME),
            (sni(&[]), NO_NAME),
            (sni(&[OK, b"evil.example"]), NO_NAME),
            (two, UNREADABLE),
            (ech, ENCRYPTED),
            (esni, ENCRYPTED),
            (torn, UNREADABLE),
            (sni(&[b"\xff\xfe"]), UNREADABLE),
        ] {
            let bytes = sent(&hello(&extensions), 16000);
            assert_eq!(read(&bytes), Hello::Bad(reason), "{extensions:?}");
        }
    }

    #[test]
    fn what_is_no_hello_is_refused_and_what_is_endless_too() {
        assert_eq!(read(b""), Hello::More);
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Hello::Bad(UNREADABLE));
        assert_eq!(read(&[HANDSHAKE, 2, 0, 0, 1]), Hello::Bad(UNREADABLE));
        assert_eq!(
            read(&sent(&[2, 0, 0, 4, 0, 0, 0, 0], 8)),
            Hello::Bad(UNREADABLE)
        );
        assert_eq!(read(&[HANDSHAKE, 3, 1, 0, 0]), Hello::Bad(UNREADABLE));
        let endless = sent(
            &[&[CLIENT_HELLO, 0, 0xff, 0xff][..], &[0; 65000]].concat(),
            1,
        );
        assert_eq!(read(&endless[..MAX_HELLO]), Hello::Bad(UNREADABLE));
    }
}
