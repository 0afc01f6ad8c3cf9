// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asks the host's name servers, or those of the policy, for the addresses of a name. Only names
//! that a rule grants are ever asked for. An answer counts when it has the question's id, name
//! and type and comes from the server that was asked; a truncated one is asked for again as a
//! stream.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::base::iana::{Rcode, Rtype};
use domain::base::message_builder::PushError;
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::{A, Aaaa};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

/// How long one server has for one question.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often all servers are asked.
const ROUNDS: usize = 2;
/// How long an answer is kept, whatever it says.
const LONGEST: u32 = 3600;
/// How long it is kept that there is none.
const NEGATIVE: u32 = 5;
/// Most addresses of a name that are kept.
const MAX_ADDRESSES: usize = 32;
/// Bytes of an answer in one datagram.
const PAYLOAD: u16 = 1232;

/// The servers, and what they said.
pub struct Upstream {
    servers: Vec<SocketAddr>,
    cache: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Entry>>>>>,
}

#[derive(Clone)]
struct Entry {
    addresses: Vec<IpAddr>,
    until: Instant,
}

impl Upstream {
    /// Asks `servers`, in order.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            cache: Mutex::default(),
        }
    }

    /// The addresses of `name`; none where it has none, or nobody says. Many who ask at once
    /// wait for one question.
    pub async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let slot = {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cache.entry(name.to_owned()).or_default())
        };
        let mut entry = slot.lock().await;
        if let Some(known) = &*entry
            && known.until > Instant::now()
        {
            return known.addresses.clone();
        }
        let (v4, v6) = tokio::join!(self.ask(name, Rtype::A), self.ask(name, Rtype::AAAA));
        let mut addresses = Vec::new();
        let mut seconds = LONGEST;
        for (found, ttl) in [v4, v6].into_iter().flatten() {
            seconds = seconds.min(if found.is_empty() { LONGEST } else { ttl });
            addresses.extend(found);
        }
        if addresses.is_empty() {
            seconds = NEGATIVE;
        }
        *entry = Some(Entry {
            addresses: addresses.clone(),
            until: Instant::now() + Duration::from_secs(seconds.max(1).into()),
        });
        addresses
    }

    /// The first server that answers decides.
    async fn ask(&self, name: &str, kind: Rtype) -> Option<(Vec<IpAddr>, u32)> {
        for _ in 0..ROUNDS {
            for server in &self.servers {
                if let Ok(Some(found)) = ask(*server, name, kind).await {
                    return Some(found);
                }
            }
        }
        None
    }
}

/// Asks one server; `None`: it has said nothing that counts.
async fn ask(
    server: SocketAddr,
    name: &str,
    kind: Rtype,
) -> io::Result<Option<(Vec<IpAddr>, u32)>> {
    let until = Instant::now() + PATIENCE;
    let question = question(name, kind).map_err(|_| io::ErrorKind::InvalidInput)?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut bytes = vec![0; 65535];
    loop {
        let length = timeout_at(until, socket.recv(&mut bytes)).await??;
        match read(&question, &bytes[..length], kind) {
            // Somebody else's guess: the true one may still come.
            Answer::Foreign => {}
            Answer::Truncated => break,
            Answer::Failed => return Ok(None),
            Answer::Addresses(addresses, ttl) => return Ok(Some((addresses, ttl))),
        }
    }
    let stream = timeout(PATIENCE, by_stream(server, &question)).await??;
    Ok(match read(&question, &stream, kind) {
        Answer::Addresses(addresses, ttl) => Some((addresses, ttl)),
        _ => None,
    })
}

async fn by_stream(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = (question.len() as u16).to_be_bytes().to_vec();
    framed.extend(question);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn question(name: &str, kind: Rtype) -> Result<Vec<u8>, PushError> {
    // A fresh hasher has a key that nobody outside can know.
    let id = RandomState::new().hash_one(name) as u16;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    let name = Name::vec_from_str(name).map_err(|_| PushError::ShortBuf)?;
    builder.push((name, kind))?;
    let mut builder = builder.additional();
    builder.opt(|opt| {
        opt.set_udp_payload_size(PAYLOAD);
        Ok(())
    })?;
    Ok(builder.finish())
}

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Not to this question.
    Foreign,
    /// There is more than a datagram holds.
    Truncated,
    /// The server cannot say.
    Failed,
    /// Addresses, perhaps none, and for how many seconds.
    Addresses(Vec<IpAddr>, u32),
}

/// Reads an answer. Addresses count for the name that was asked, or the one that its aliases
/// lead to in the same answer.
pub(super) fn read(question: &[u8], answer: &[u8], kind: Rtype) -> Answer {
    let (Ok(asked), Ok(answer)) = (Message::from_octets(question), Message::from_octets(answer))
    else {
        return Answer::Foreign;
    };
    if !answer.is_answer(&asked) {
        return Answer::Foreign;
    }
    if answer.header().tc() {
        return Answer::Truncated;
    }
    match answer.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Answer::Addresses(Vec::new(), NEGATIVE),
        _ => return Answer::Failed,
    }
    let (Some(name), Ok(records)) = (answer.canonical_name(), answer.answer()) else {
        return Answer::Failed;
    };
    let mut found: Vec<IpAddr> = Vec::new();
    let mut seconds = LONGEST;
    let mut take = |address: IpAddr, ttl: u32| {
        if found.len() < MAX_ADDRESSES {
            found.push(address.to_canonical());
            seconds = seconds.min(ttl);
        }
    };
    match kind {
        Rtype::A => {
            for record in records.limit_to_in::<A>().flatten() {
                if *record.owner() == name {
                    take(record.data().addr().into(), record.ttl().as_secs());
                }
            }
        }
        _ => {
            for record in records.limit_to_in::<Aaaa>().flatten() {
                if *record.owner() == name {
                    take(record.data().addr().into(), record.ttl().as_secs());
                }
            }
        }
    }
    Answer::Addresses(found, seconds)
}

#[cfg(test)]
mod tests {
    use domain::base::iana::Class;
    use domain::rdata::Cname;

    use super::*;

    fn name(text: &str) -> Name<Vec<u8>> {
        Name::vec_from_str(text).unwrap()
    }

    fn reply(question: &[u8], fill: impl FnOnce(&mut Vec<(String, String)>)) -> Vec<u8> {
        let mut records = Vec::new();
        fill(&mut records);
        let message = Message::from_octets(question).unwrap();
        let mut answer = MessageBuilder::new_vec()
            .start_answer(&message, Rcode::NOERROR)
            .unwrap();
        for (owner, value) in records {
            match value.parse() {
                Ok(address) => answer
                    .push((name(&owner), Class::IN, 60, A::new(address)))
                    .unwrap(),
                Err(_) => answer
                    .push((name(&owner), Class::IN, 60, Cname::new(name(&value))))
                    .unwrap(),
            }
        }
        answer.finish()
    }

    fn records(list: &[(&str, &str)]) -> Answer {
        let question = question("a.example", Rtype::A).unwrap();
        let bytes = reply(&question, |records| {
            records.extend(list.iter().map(|(a, b)| (a.to_string(), b.to_string())));
        });
        read(&question, &bytes, Rtype::A)
    }

    #[test]
    fn only_the_name_and_its_aliases_count() {
        let one = Answer::Addresses(vec!["192.0.2.1".parse().unwrap()], 60);
        assert_eq!(records(&[("a.example", "192.0.2.1")]), one);
        assert_eq!(records(&[("A.Example", "192.0.2.1")]), one);
        let aliased = [
            ("a.example", "b.example"),
            ("b.example", "192.0.2.1"),
            ("evil.example", "192.0.2.66"),
        ];
        assert_eq!(records(&aliased), one);
        assert_eq!(
            records(&[("evil.example", "192.0.2.66")]),
            Answer::Addresses(Vec::new(), LONGEST)
        );
        let circle = [("a.example", "b.example"), ("b.example", "a.example")];
        assert_eq!(records(&circle), Answer::Failed);
    }

    #[test]
    fn an_answer_to_another_question_does_not_count() {
        let asked = question("a.example", Rtype::A).unwrap();
        let good = reply(&asked, |records| {
            records.push(("a.example".to_owned(), "192.0.2.1".to_owned()));
        });
        let mut other_id = good.clone();
        other_id[1] ^= 1;
        assert_eq!(read(&asked, &other_id, Rtype::A), Answer::Foreign);
        let other = question("b.example", Rtype::A).unwrap();
        let mut other_name = reply(&other, |_| ());
        other_name[..2].copy_from_slice(&asked[..2]);
        assert_eq!(read(&asked, &other_name, Rtype::A), Answer::Foreign);
        assert_eq!(read(&asked, &asked, Rtype::A), Answer::Foreign);
        assert_eq!(read(&asked, b"", Rtype::A), Answer::Foreign);
        let mut truncated = good.clone();
        truncated[2] |= 2;
        assert_eq!(read(&asked, &truncated, Rtype::A), Answer::Truncated);
        let mut failed = good;
        failed[3] |= 2;
        assert_eq!(read(&asked, &failed, Rtype::A), Answer::Failed);
    }
}
