// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers of the test: a name server that says one address to everything, and one that sends back
//! what it hears in capitals.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// A name server.
pub struct Dns {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    /// Starts it in the calling thread's network namespace, until the test's process ends.
    pub fn start(at: &str) -> Self {
        Self::leading_to([127, 0, 0, 1], at)
    }

    /// The same with another address for everything.
    pub fn leading_to(address: [u8; 4], at: &str) -> Self {
        let socket = UdpSocket::bind(at).expect("bind the name server");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&asked);
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let (name, end) = name(&bytes[..length]);
                list.lock().expect("the list").push(name);
                let _ = socket.send_to(&reply(&bytes[..end], address), from);
            }
        });
        Self { asked }
    }

    /// The names that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("the list").clone()
    }
}

/// The name in a question, and where the question ends.
fn name(question: &[u8]) -> (String, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while question[at] != 0 {
        let length = usize::from(question[at]);
        let label = &question[at + 1..=at + length];
        labels.push(String::from_utf8_lossy(label).into_owned());
        at += 1 + length;
    }
    (labels.join("."), at + 5)
}

/// The address to a question for A, nothing to others.
fn reply(question: &[u8], address: [u8; 4]) -> Vec<u8> {
    let is_a = question[question.len() - 4..question.len() - 2] == [0, 1];
    let mut reply = question.to_vec();
    reply[2..4].copy_from_slice(&[0x81, 0x80]);
    reply[6..12].copy_from_slice(&[0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address);
    }
    reply
}

/// Sends everything back in capitals; its port.
pub fn echo() -> u16 {
    listen(|mut client| {
        let mut bytes = [0; 1 << 16];
        while let Ok(length @ 1..) = client.read(&mut bytes) {
            bytes[..length].make_ascii_uppercase();
            if client.write_all(&bytes[..length]).is_err() {
                return;
            }
        }
    })
}

/// Serves each connection by `serve` on a port of its own.
pub fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    accept(listener, serve);
    port
}

/// The same on a listener.
pub fn accept(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(client));
        }
    });
}
