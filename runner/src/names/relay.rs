// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections of the run: each arrives with its destination as its own address, is judged, and
//! is dialled anew on the host. Nothing that the client sends goes out before it was compared.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use lp_run_common::network::VERDICT_ALLOW;
use nix::sys::socket::{setsockopt, sockopt::Linger};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional_with_sizes};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::hello::{self, Hello};
use super::http::{self, Body, Chunks, Head};
use super::{Shared, dns_socket};
use crate::plan::names::Names;
use crate::plan::{network, special};
use crate::policy::address::DNS_PORT;
use crate::policy::model::{Protocol, Verify};
use crate::policy::name::normal;
use crate::record::event::Op;
use crate::sys::{fault, route};

/// How long a client may take to say whom it wants.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one address may take to answer.
const DIAL: Duration = Duration::from_secs(10);
/// Bytes that are passed on in one go.
const BUFFER: usize = 64 * 1024;

/// Why a connection was not relayed.
enum Refusal {
    /// By the policy: the target as it is reported, the rule, the reason.
    Policy(String, Option<u32>, &'static str),
    /// The other side does not answer, or either has gone.
    Gone,
}

/// Makes a refusal of a reason.
type Reason<'r> = &'r (dyn Fn(&'static str) -> Refusal + Sync);

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Accepts for ever.
pub(super) async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            // Out of descriptors, or a client that went while it waited.
            Err(_) => {
                sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&shared.room).try_acquire_owned() else {
            let target = client.local_addr().map_or_else(
                |_| String::new(),
                |to| SocketAddr::new(to.ip().to_canonical(), to.port()).to_string(),
            );
            shared
                .ledger
                .refused(Op::Connect, target.as_bytes(), None, "too-many-connections");
            reset(&client);
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut client = client;
            let _ = client.set_nodelay(true);
            match serve(&mut client, &shared).await {
                Ok(()) => {}
                Err(refusal) => {
                    if let Refusal::Policy(target, row, reason) = refusal {
                        shared
                            .ledger
                            .refused(Op::Connect, target.as_bytes(), row, reason);
                    }
                    reset(&client);
                }
            }
            drop(place);
        });
    }
}

/// The client sees at once that nobody answers it.
fn reset(client: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let _ = setsockopt(&client.as_fd(), Linger, &linger);
}

async fn serve(client: &mut TcpStream, shared: &Shared) -> Result<(), Refusal> {
    let to = client.local_addr()?;
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    if to.port() == DNS_PORT {
        let _ = dns_socket::stream(client, shared).await;
        return Ok(());
    }
    match Names::is_synthetic(to.ip()) {
        true => by_name(client, shared, to).await,
        false => by_address(client, shared, to).await,
    }
}

/// A rule grants the very address. The kernel's programs have said so; asked again, because the
/// relay is the only way out.
async fn by_address(
    client: &mut TcpStream,
    shared: &Shared,
    to: SocketAddr,
) -> Result<(), Refusal> {
    let candidates = network::lookup(&shared.destinations, to.ip());
    let decisive = network::decide(candidates, to.port(), Protocol::Tcp);
    // `self` grants the run's own loopback, where the listener's own port is: the host's is
    // another one.
    let own = to.ip().is_loopback() && !shared.names.loopback;
    if own || decisive.is_none_or(|one| one.verdict != VERDICT_ALLOW) {
        return Err(Refusal::Policy(to.to_string(), None, "not-granted"));
    }
    let mut server = dial(&[to]).await?;
    copy_bidirectional_with_sizes(client, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}

async fn by_name(client: &mut TcpStream, shared: &Shared, to: SocketAddr) -> Result<(), Refusal> {
    let unknown = || Refusal::Policy(to.to_string(), None, "no-name");
    let names = &shared.names;
    let host = names.of_address(to.ip()).ok_or_else(unknown)?;
    let name = shared.book.name(names, host, to.ip()).ok_or_else(unknown)?;
    let target = format!("{name}:{}", to.port());
    let rule = names.hosts[host].rule(to.port());
    let Some(rule) = rule.filter(|rule| !rule.takes_away) else {
        let row = rule.map(|rule| rule.row);
        return Err(Refusal::Policy(target, row, "not-granted"));
    };
    let row = rule.row;
    let refused = |reason| Refusal::Policy(target.clone(), Some(row), reason);
    let mut first = Vec::new();
    let is_tls = match rule.verify(to.port()) {
        Verify::Address => None,
        Verify::Sni => {
            read_more(client, &mut first, &refused).await?;
            Some(first.first() == Some(&hello::HANDSHAKE))
        }
    };
    if is_tls == Some(true) {
        compare_hello(client, &mut first, &name, to.port(), row, &refused).await?;
    }
    if is_tls == Some(false) {
        judge_head(client, &mut first, &name, to.port(), &refused).await?;
    }
    let addresses = reachable(shared, &name, to.port(), rule.private, &refused).await?;
    let mut server = dial(&addresses).await?;
    if is_tls == Some(false) {
        return requests(client, &mut server, first, &name, to.port(), &refused).await;
    }
    server.write_all(&first).await?;
    drop(first);
    copy_bidirectional_with_sizes(client, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}

/// The addresses of a name that may be dialled: exactly these are, nobody is asked twice.
async fn reachable(
    shared: &Shared,
    name: &str,
    port: u16,
    private: bool,
    refused: Reason<'_>,
) -> Result<Vec<SocketAddr>, Refusal> {
    let found = shared.upstream.addresses(name).await;
    if found.is_empty() {
        return Err(Refusal::Gone);
    }
    let special: Vec<_> = special::networks().collect();
    let inside = |address: &IpAddr| special.iter().any(|net| net.contains(address));
    let private = private || fault::skips("judge addresses");
    let fine = |address: &IpAddr| private || !inside(address);
    let mut open = found;
    open.retain(|address| fine(address) && !Names::is_synthetic(*address));
    if open.is_empty() {
        return Err(refused("private-address"));
    }
    // Whatever its range: the host's own services listen on its public address too. Asked at each
    // connection, as addresses come and go.
    open.retain(|address| private || !route::is_here(*address));
    if open.is_empty() {
        return Err(refused("own-address"));
    }
    let mut row = None;
    let left: Vec<SocketAddr> = open
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .filter(|to| match shared.names.denied(*to) {
            Some(by) => {
                row = Some(by);
                false
            }
            None => true,
        })
        .collect();
    match left.is_empty() {
        true => Err(Refusal::Policy(
            format!("{name}:{port}"),
            row,
            "denied-address",
        )),
        false => Ok(left),
    }
}

/// The first that answers, in order.
async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, Refusal> {
    for address in addresses {
        if let Ok(Ok(server)) = timeout(DIAL, TcpStream::connect(address)).await {
            server.set_nodelay(true)?;
            return Ok(server);
        }
    }
    Err(Refusal::Gone)
}

/// Reads what there is; a client that says nothing is refused.
async fn read_more(
    client: &mut TcpStream,
    bytes: &mut Vec<u8>,
    refused: Reason<'_>,
) -> Result<(), Refusal> {
    match timeout(PATIENCE, client.read_buf(bytes)).await {
        Ok(Ok(0)) | Ok(Err(_)) => Err(Refusal::Gone),
        Ok(Ok(_)) => Ok(()),
        Err(_) => Err(refused("silent")),
    }
}

async fn compare_hello(
    client: &mut TcpStream,
    first: &mut Vec<u8>,
    name: &str,
    port: u16,
    row: u32,
    refused: Reason<'_>,
) -> Result<(), Refusal> {
    loop {
        match hello::read(first) {
            Hello::More => read_more(client, first, refused).await?,
            Hello::Bad(reason) => return Err(refused(reason)),
            Hello::Name(asked) if normal(&asked).as_deref() == Some(name) => return Ok(()),
            Hello::Name(_) if fault::skips("compare names") => return Ok(()),
            Hello::Name(asked) => {
                let target = format!("{asked}:{port}");
                return Err(Refusal::Policy(target, Some(row), "other-server-name"));
            }
        }
    }
}

/// The first head of plain HTTP, before anybody is dialled.
async fn judge_head(
    client: &mut TcpStream,
    first: &mut Vec<u8>,
    name: &str,
    port: u16,
    refused: Reason<'_>,
) -> Result<(), Refusal> {
    loop {
        match http::head(first, name, port) {
            Head::More => read_more(client, first, refused).await?,
            Head::Bad(reason) => return Err(refused(reason)),
            Head::Done(..) => return Ok(()),
        }
    }
}

/// Plain HTTP: the requests one by one, the answers as they come.
async fn requests(
    client: &mut TcpStream,
    server: &mut TcpStream,
    first: Vec<u8>,
    name: &str,
    port: u16,
    refused: Reason<'_>,
) -> Result<(), Refusal> {
    if let Head::Done(length, Body::Upgrade) = http::head(&first, name, port) {
        // Only a server that agrees ends the requests, and nothing is sent ahead of its answer.
        server.write_all(&first[..length]).await?;
        let mut answer = Vec::new();
        while answer.len() < SWITCHING.len() && SWITCHING.starts_with(&answer) {
            if server.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        client.write_all(&answer).await?;
        let rest = first[length..].to_vec();
        if answer.starts_with(SWITCHING) {
            server.write_all(&rest).await?;
            copy_bidirectional_with_sizes(client, server, BUFFER, BUFFER).await?;
            return Ok(());
        }
        return both_ways(client, server, rest, name, port, refused).await;
    }
    both_ways(client, server, first, name, port, refused).await
}

/// The beginning of an answer after which a connection is no HTTP any more.
const SWITCHING: &[u8] = b"HTTP/1.1 101";

async fn both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    first: Vec<u8>,
    name: &str,
    port: u16,
    refused: Reason<'_>,
) -> Result<(), Refusal> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let out = async {
        let mut way = Way {
            from: &mut from_client,
            to: &mut to_server,
            bytes: first,
        };
        way.requests(name, port, refused).await?;
        to_server.shutdown().await?;
        Ok::<(), Refusal>(())
    };
    let back = async {
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await?;
        Ok(())
    };
    tokio::try_join!(out, back).map(drop)
}

/// From the client to the server.
struct Way<'w, 's> {
    from: &'w mut ReadHalf<'s>,
    to: &'w mut WriteHalf<'s>,
    /// Read, and not passed on yet.
    bytes: Vec<u8>,
}

impl Way<'_, '_> {
    /// Passes on one request after the other, to the end of the stream.
    async fn requests(
        &mut self,
        name: &str,
        port: u16,
        refused: Reason<'_>,
    ) -> Result<(), Refusal> {
        loop {
            let (length, body) = match http::head(&self.bytes, name, port) {
                Head::Done(_, Body::Upgrade) => return Err(refused(http::UNREADABLE)),
                Head::Done(length, body) => (length, body),
                Head::Bad(reason) => return Err(refused(reason)),
                Head::More => match self.more().await? {
                    true => continue,
                    // Part of a head is nothing that a server needs to see.
                    false => return Ok(()),
                },
            };
            self.pass(length).await?;
            let ended = match body {
                Body::Length(length) => self.plain(length).await?,
                Body::Chunked => self.chunked(refused).await?,
                Body::Upgrade => false,
            };
            if !ended {
                return Ok(());
            }
        }
    }

    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.from.read_buf(&mut self.bytes).await? > 0)
    }

    async fn pass(&mut self, length: usize) -> io::Result<()> {
        self.to.write_all(&self.bytes[..length]).await?;
        self.bytes.drain(..length);
        Ok(())
    }

    /// A body of so many bytes; `false`: the stream has ended in it.
    async fn plain(&mut self, mut left: u64) -> io::Result<bool> {
        while left > 0 {
            if self.bytes.is_empty() && !self.more().await? {
                return Ok(false);
            }
            let part = left.min(self.bytes.len() as u64);
            self.pass(part as usize).await?;
            left -= part;
        }
        Ok(true)
    }

    async fn chunked(&mut self, refused: Reason<'_>) -> Result<bool, Refusal> {
        let mut chunks = Chunks::default();
        loop {
            let length = chunks.take(&self.bytes).map_err(refused)?;
            self.pass(length).await?;
            if chunks == Chunks::Done {
                return Ok(true);
            }
            if !self.more().await? {
                return Ok(false);
            }
        }
    }
}
