// SPDX-License-Identifier: MIT OR Apache-2.0
//! A question to the run's resolver, and its answer: addresses for the names of the rules,
//! NXDOMAIN at once for everything else, no data for other types. An `HTTPS` or `SVCB` record
//! would name other hosts and keys to hide a name with; there is none. Nothing leaves the host.

use std::net::{Ipv4Addr, Ipv6Addr};

use domain::base::iana::{Class, ExtendedErrorCode, Opcode, Rcode, Rtype};
use domain::base::message_builder::PushError;
use domain::base::opt::exterr::ExtendedError;
use domain::base::{Message, MessageBuilder};
use domain::rdata::{A, Aaaa};

use crate::policy::name::normal;

/// Seconds for which an address may be kept; it is the same for the whole run.
const TTL: u32 = 300;
/// What a client may send in one datagram.
const PAYLOAD: u16 = 1232;

/// What the run's names say to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The addresses of the name.
    Here(Ipv4Addr, Ipv6Addr),
    /// No rule grants it, or one takes it away.
    Nowhere,
    /// There is no address left to give.
    Exhausted,
}

/// The answer to `question`, and what `know` is asked: the name as it was asked (escaped by DNS's
/// own rules), and in its one form where it is a host name. `None` for what is no question: it
/// is not answered.
pub fn answer(question: &[u8], know: impl FnOnce(&str, Option<&str>) -> Known) -> Option<Vec<u8>> {
    let message = Message::from_octets(question).ok()?;
    let header = message.header();
    if header.qr() {
        return None;
    }
    let asked = match message.sole_question() {
        Ok(asked) if header.opcode() == Opcode::QUERY => asked,
        _ => return refused(&message).ok(),
    };
    let text = asked.qname().to_string();
    let known = know(&text, normal(&text).as_deref());
    let rcode = match known {
        Known::Here(..) => Rcode::NOERROR,
        Known::Nowhere => Rcode::NXDOMAIN,
        Known::Exhausted => Rcode::SERVFAIL,
    };
    let build = || -> Result<Vec<u8>, PushError> {
        let mut answer = MessageBuilder::new_vec().start_answer(&message, rcode)?;
        answer.header_mut().set_ra(true);
        if let (Known::Here(v4, v6), Class::IN) = (known, asked.qclass()) {
            match asked.qtype() {
                Rtype::A | Rtype::ANY => {
                    answer.push((asked.qname(), Class::IN, TTL, A::new(v4)))?;
                }
                Rtype::AAAA => answer.push((asked.qname(), Class::IN, TTL, Aaaa::new(v6)))?,
                _ => {}
            }
        }
        let mut more = answer.additional();
        if message.opt().is_some() {
            more.opt(|opt| {
                opt.set_udp_payload_size(PAYLOAD);
                match known {
                    Known::Nowhere => opt.push(&ExtendedError::<Vec<u8>>::from(
                        ExtendedErrorCode::PROHIBITED,
                    )),
                    _ => Ok(()),
                }
            })?;
        }
        Ok(more.finish())
    };
    build().ok()
}

/// What is no plain question: other operations, none or several questions.
fn refused(message: &Message<&[u8]>) -> Result<Vec<u8>, PushError> {
    let mut builder = MessageBuilder::new_vec();
    let header = builder.header_mut();
    header.set_id(message.header().id());
    header.set_qr(true);
    header.set_opcode(message.header().opcode());
    header.set_rcode(match message.header().opcode() {
        Opcode::QUERY => Rcode::FORMERR,
        _ => Rcode::NOTIMP,
    });
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use domain::base::Name;

    use super::*;

    fn question(name: &str, kind: Rtype, edns: bool) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec().question();
        builder.header_mut().set_id(7);
        builder.header_mut().set_rd(true);
        builder
            .push((Name::vec_from_str(name).unwrap(), kind))
            .unwrap();
        let mut more = builder.additional();
        if edns {
            more.opt(|opt| {
                opt.set_udp_payload_size(4096);
                Ok(())
            })
            .unwrap();
        }
        more.finish()
    }

    const V4: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 0);
    const V6: Ipv6Addr = Ipv6Addr::new(0xfd6c, 0, 0, 0, 0, 0, 0, 1);

    fn only_ok(_: &str, name: Option<&str>) -> Known {
        match name {
            Some("api.ok.example") => Known::Here(V4, V6),
            _ => Known::Nowhere,
        }
    }

    fn reply(name: &str, kind: Rtype, edns: bool) -> Message<Vec<u8>> {
        let bytes = answer(&question(name, kind, edns), only_ok).expect("an answer");
        Message::from_octets(bytes).unwrap()
    }

    #[test]
    fn allowed_names_have_addresses_and_no_other_records() {
        for name in ["api.ok.example", "API.Ok.Example."] {
            let a = reply(name, Rtype::A, true);
            assert_eq!(a.header().rcode(), Rcode::NOERROR);
            assert_eq!(a.header().id(), 7);
            let found = a
                .answer()
                .unwrap()
                .limit_to_in::<A>()
                .next()
                .unwrap()
                .unwrap();
            assert_eq!(found.data().addr(), V4);
            let aaaa = reply(name, Rtype::AAAA, false);
            let found = aaaa.answer().unwrap().limit_to_in::<Aaaa>().next().unwrap();
            assert_eq!(found.unwrap().data().addr(), V6);
            assert!(aaaa.opt().is_none());
        }
        for kind in [Rtype::HTTPS, Rtype::SVCB, Rtype::TXT, Rtype::MX, Rtype::NS] {
            let none = reply("api.ok.example", kind, true);
            assert_eq!(none.header().rcode(), Rcode::NOERROR);
            assert_eq!(none.header_counts().ancount(), 0, "{kind}");
        }
    }

    #[test]
    fn everything_else_does_not_exist() {
        for name in ["evil.example", "ok.example", "api.ok.example.evil.com", "."] {
            for kind in [Rtype::A, Rtype::AAAA, Rtype::TXT, Rtype::HTTPS] {
                let reply = reply(name, kind, true);
                assert_eq!(reply.header().rcode(), Rcode::NXDOMAIN, "{name} {kind}");
                let error = reply.opt().unwrap().opt().iter::<ExtendedError<_>>().next();
                assert_eq!(
                    error.unwrap().unwrap().code(),
                    ExtendedErrorCode::PROHIBITED
                );
            }
        }
    }

    #[test]
    fn a_label_with_a_dot_or_a_nul_in_it_is_no_other_name() {
        // One label of 14 bytes that reads like three.
        let mut bytes = question("x.example", Rtype::A, false);
        let name = b"\x0eapi.ok.example\0";
        bytes.truncate(12);
        bytes.extend(name);
        bytes.extend([0, 1, 0, 1]);
        let reply = answer(&bytes, only_ok).unwrap();
        assert_eq!(reply[3] & 15, 3, "NXDOMAIN");
    }

    #[test]
    fn what_is_no_question_gets_no_addresses() {
        for bytes in [&b""[..], b"x", &[0; 12], &[0xff; 512], &[0; 11]] {
            if let Some(reply) = answer(bytes, |_, _| Known::Here(V4, V6)) {
                assert_eq!(reply[6..8], [0, 0], "no answer in it");
            }
        }
        // A pointer to itself.
        let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend([0xc0, 12, 0, 1, 0, 1]);
        let reply = answer(&bytes, |_, _| Known::Here(V4, V6)).unwrap();
        assert_eq!(reply[3] & 15, 1, "FORMERR");
        // An answer is not answered.
        let mut answered = question("api.ok.example", Rtype::A, false);
        answered[2] |= 0x80;
        assert_eq!(answer(&answered, only_ok), None);
    }
}
