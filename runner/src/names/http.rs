// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests on a connection of plain HTTP/1: for which host each is, and where it ends, so
//! that the next one is judged too. What two readers could understand in two ways is refused:
//! lp-run and the server must agree on where a request ends.

use crate::policy::name::normal;

/// Most bytes of a request's head, or of a line between chunks.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most header fields.
const MAX_FIELDS: usize = 128;

/// A request for another host.
pub const OTHER_HOST: &str = "other-host";
/// Not HTTP/1, or ambiguous.
pub const UNREADABLE: &str = "unreadable";

/// How a request goes on after its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes more.
    Length(u64),
    /// In chunks.
    Chunked,
    /// None; if the server agrees, what follows is WebSocket.
    Upgrade,
}

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Not enough yet.
    More,
    /// A head of so many bytes, for the right host.
    Done(usize, Body),
    /// Refused, and why.
    Bad(&'static str),
}

/// Reads the head of a request that must be for `name` at `port`.
pub fn head(bytes: &[u8], name: &str, port: u16) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Head::More,
        _ => return Head::Bad(UNREADABLE),
    };
    if !ends_lines_in_one_way(&bytes[..length]) {
        return Head::Bad(UNREADABLE);
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Head::Bad(UNREADABLE);
    };
    if method == "CONNECT" {
        return Head::Bad(UNREADABLE);
    }
    match body(request.headers, request.version == Some(1)) {
        Some(body) => match is_for(target, request.headers, name, port) {
            true => Head::Done(length, body),
            false => Head::Bad(OTHER_HOST),
        },
        None => Head::Bad(UNREADABLE),
    }
}

/// A lone line feed ends a line for some readers, a lone carriage return for others.
fn ends_lines_in_one_way(head: &[u8]) -> bool {
    let mut before = 0;
    let mut fine = head.last() == Some(&b'\n');
    for byte in head {
        fine &= (before == b'\r') == (*byte == b'\n');
        before = *byte;
    }
    fine
}

fn values<'h>(
    headers: &'h [httparse::Header<'_>],
    name: &'static str,
) -> impl Iterator<Item = &'h [u8]> {
    let named = move |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
    headers.iter().filter(named).map(|header| header.value)
}

/// Exactly one `Host`, and a target that does not say otherwise.
fn is_for(target: &str, headers: &[httparse::Header<'_>], name: &str, port: u16) -> bool {
    let mut hosts = values(headers, "host");
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let host = std::str::from_utf8(host).unwrap_or_default();
    let target = match target.as_bytes().first() {
        Some(b'/') => true,
        _ if target == "*" => true,
        _ => target
            .get(..7)
            .filter(|scheme| scheme.eq_ignore_ascii_case("http://"))
            .is_some_and(|_| {
                let rest = &target[7..];
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                is_authority(&rest[..end], name, port)
            }),
    };
    target && is_authority(host, name, port)
}

fn is_authority(text: &str, name: &str, port: u16) -> bool {
    let (host, at) = match text.split_once(':') {
        Some((host, at)) => (host, at.parse().ok()),
        None => (text, Some(port)),
    };
    at == Some(port) && normal(host).as_deref() == Some(name)
}

/// How the request goes on; `None` where it is not said in one way.
fn body(headers: &[httparse::Header<'_>], version_1_1: bool) -> Option<Body> {
    let mut codings = values(headers, "transfer-encoding");
    let mut lengths = values(headers, "content-length");
    let body = match (codings.next(), lengths.next()) {
        (None, None) => Body::Length(0),
        (Some(coding), None) if version_1_1 && coding.eq_ignore_ascii_case(b"chunked") => {
            Body::Chunked
        }
        (None, Some(length)) => Body::Length(decimal(length)?),
        _ => return None,
    };
    if codings.next().is_some() || lengths.next().is_some() {
        return None;
    }
    let mut upgrades = values(headers, "upgrade");
    match (upgrades.next(), upgrades.next()) {
        (None, _) => Some(body),
        // Other protocols carry requests of their own, which nobody would judge.
        (Some(to), None) if to.eq_ignore_ascii_case(b"websocket") => {
            (body == Body::Length(0)).then_some(Body::Upgrade)
        }
        _ => None,
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

/// Where in a chunked body the stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunks {
    /// Before the line with a chunk's size.
    #[default]
    Size,
    /// In a chunk, so many bytes before the end of its data.
    Data(u64),
    /// Before the end of the line that follows the data.
    End,
    /// After the last chunk: lines up to an empty one.
    Trailer,
    /// After the body.
    Done,
}

impl Chunks {
    /// How many of `bytes` belong to the body and may be passed on; `Err` for what is no chunk,
    /// `Ok(0)` when more are needed to tell.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            match *self {
                Self::Done => return Ok(taken),
                Self::Data(left) => {
                    let part = left.min(rest.len() as u64);
                    taken += part as usize;
                    if left > part {
                        *self = Self::Data(left - part);
                        return Ok(taken);
                    }
                    *self = Self::End;
                }
                Self::End => match rest {
                    [b'\r', b'\n', ..] => {
                        taken += 2;
                        *self = Self::Size;
                    }
                    [] | [b'\r'] => return Ok(taken),
                    _ => return Err(UNREADABLE),
                },
                Self::Size | Self::Trailer => {
                    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                        return match rest.len() < MAX_HEAD {
                            true => Ok(taken),
                            false => Err(UNREADABLE),
                        };
                    };
                    let line = &rest[..end];
                    if line.contains(&b'\n') || line.contains(&b'\r') {
                        return Err(UNREADABLE);
                    }
                    taken += end + 2;
                    *self = match *self {
                        Self::Trailer if line.is_empty() => Self::Done,
                        Self::Trailer => Self::Trailer,
                        _ => match size(line).ok_or(UNREADABLE)? {
                            0 => Self::Trailer,
                            size => Self::Data(size),
                        },
                    };
                }
            }
        }
    }
}

/// The size of a chunk; extensions are passed on unread.
fn size(line: &[u8]) -> Option<u64> {
    let end = line
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(line.len());
    let digits = line[..end].trim_ascii_end();
    let hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| hex)?;
    u64::from_str_radix(digits, 16)
        .ok()
        .filter(|size| i64::try_from(*size).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Head {
        head(text.as_bytes(), "ok.example", 80)
    }

    #[test]
    fn a_request_for_the_name_passes_with_its_length() {
        for (text, body) in [
            (
                "GET / HTTP/1.1\r\nHost: ok.example\r\n\r\n",
                Body::Length(0),
            ),
            (
                "GET / HTTP/1.0\r\nhost: OK.Example.:80\r\n\r\n",
                Body::Length(0),
            ),
            (
                "POST http://ok.example/a?b HTTP/1.1\r\nHost: ok.example\r\nContent-Length: 12\r\n\r\n",
                Body::Length(12),
            ),
            (
                "POST / HTTP/1.1\r\nHost: ok.example\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Body::Chunked,
            ),
            (
                "GET / HTTP/1.1\r\nHost: ok.example\r\nUpgrade: websocket\r\n\r\n",
                Body::Upgrade,
            ),
            (
                "OPTIONS * HTTP/1.1\r\nHost: ok.example\r\n\r\n",
                Body::Length(0),
            ),
        ] {
            assert_eq!(read(text), Head::Done(text.len(), body), "{text}");
            for cut in 0..text.len() {
                assert_eq!(read(&text[..cut]), Head::More, "{cut} of {text}");
            }
        }
    }

    #[test]
    fn another_host_is_refused_wherever_it_stands() {
        for text in [
            "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ok.example\r\nHost: evil.example\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ok.example:81\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ok.example@evil.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ok.example evil.example\r\n\r\n",
            "GET http://evil.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n",
            "GET http://ok.example@evil.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n",
            "GET http://ok.example:81/ HTTP/1.1\r\nHost: ok.example\r\n\r\n",
            "GET evil.example:80 HTTP/1.1\r\nHost: ok.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: notok.example\r\n\r\n",
        ] {
            assert_eq!(read(text), Head::Bad(OTHER_HOST), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: ok.example\r\n{fields}\r\n");
        for text in [
            with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            with("Content-Length: 1\r\nContent-Length: 1\r\n"),
            with("Content-Length: +1\r\n"),
            with("Content-Length: 1, 1\r\n"),
            with("Content-Length: 99999999999999999999\r\n"),
            with("Transfer-Encoding: gzip, chunked\r\n"),
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            with("Transfer-Encoding : chunked\r\n"),
            with("X: a\r\n b\r\n"),
            with("X: a\nHost: evil.example\r\n"),
            "GET / HTTP/1.1\nHost: ok.example\n\n".to_owned(),
            with("Upgrade: h2c\r\n"),
            with("Upgrade: websocket\r\nUpgrade: h2c\r\n"),
            with("Upgrade: websocket\r\nContent-Length: 3\r\n"),
            "CONNECT evil.example:443 HTTP/1.1\r\nHost: ok.example\r\n\r\n".to_owned(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "POST / HTTP/1.0\r\nHost: ok.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "\x16\x03\x01".to_owned(),
            format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD)),
        ] {
            assert_eq!(read(&text), Head::Bad(UNREADABLE), "{text}");
        }
    }

    #[test]
    fn a_chunked_body_ends_where_its_last_chunk_says() {
        let body = b"5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n";
        let next = b"GET / HTTP/1.1\r\n";
        let all = [&body[..], next].concat();
        for step in 1..all.len() {
            let (mut state, mut from, mut to) = (Chunks::default(), 0, 0);
            while state != Chunks::Done {
                to = (to + step).min(all.len());
                from += state.take(&all[from..to]).expect("chunks");
            }
            assert_eq!(from, body.len(), "in steps of {step}");
        }
        for bad in [
            &b"x\r\n"[..],
            b"-1\r\n",
            b" 5\r\nhello\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloXX0\r\n\r\n",
            b"ffffffffffffffff\r\n",
            b"10000000000000000\r\n",
            b"\r\n",
        ] {
            let mut state = Chunks::default();
            assert!(
                state.take(bad).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }
}
