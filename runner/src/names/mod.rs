// SPDX-License-Identifier: MIT OR Apache-2.0
//! Destinations by name: a resolver that knows the names of a run and nobody else, and a relay
//! that alone leads out of the run's network namespace.
//!
//! Every address is local in that namespace. Questions to port 53 of any of them arrive at
//! lp-run's socket ([`Door`]), and are answered with addresses that only this run has
//! ([`question`]). A connection to such an address arrives at lp-run's listener and says by its
//! own destination which name was meant; the [`relay`] resolves the name ([`upstream`]), refuses
//! what may not be reached, compares what the client says it wants ([`hello`], [`http`]), and
//! passes bytes on. What the kernel's programs refuse never comes this far.

mod book;
mod dns_socket;
mod door;
pub mod hello;
pub mod http;
mod ledger;
pub mod question;
mod relay;
mod upstream;

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::plan::names::Names;
use crate::plan::{Plan, Prefix};
use book::Book;
pub use door::{Door, NamesError};
pub use ledger::Ledger;
use upstream::Upstream;

/// Most connections that are relayed at once; further ones are refused and counted.
const MAX_CONNECTIONS: usize = 4096;

/// What resolver and relay of a run share.
struct Shared {
    names: Names,
    destinations: Vec<Prefix>,
    book: Book,
    ledger: Arc<Ledger>,
    upstream: Upstream,
    room: Arc<Semaphore>,
}

/// Resolver and relay at work, until it is dropped.
pub struct Service {
    tasks: Vec<AbortHandle>,
}

impl Service {
    /// Starts them in the current tokio runtime.
    pub fn start(door: Door, plan: &Plan, ledger: Arc<Ledger>) -> io::Result<Self> {
        let Some(names) = plan.network.names.clone() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let parts = door.into_parts();
        let shared = Arc::new(Shared {
            book: Book::of(&names),
            names,
            destinations: plan.network.destinations.clone(),
            ledger,
            upstream: Upstream::new(parts.upstream),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        });
        parts.listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(parts.listener)?;
        let questions = dns_socket::watch(parts.questions)?;
        let answers = tokio::spawn(dns_socket::answer(questions, Arc::clone(&shared)));
        let steer = parts.steer;
        let relay = tokio::spawn(async move {
            relay::listen(listener, shared).await;
            drop(steer);
        });
        Ok(Self {
            tasks: vec![answers.abort_handle(), relay.abort_handle()],
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
