// SPDX-License-Identifier: MIT OR Apache-2.0
//! The event loop of a run: its end, its signals, its time, its refusals.

use std::os::fd::OwnedFd;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::task::yield_now;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::books::Books;
use super::kernel::Kernel;
use super::knocking::Knocking;
use super::refusal::with_causes;
use super::window::{Turn, Watch};
use crate::enforce::resources::Resources;
use crate::launch::{End, Hold, Rest, Running, Signals};
use crate::policy::model::OnDenials;
use crate::policy::window::Leaving;
use crate::record::audit::AuditError;
use crate::record::event::Reason;
use crate::sys::readiness;
use crate::watch::WatchError;

/// How often repeats are summed up.
const TICK: Duration = Duration::from_secs(1);
/// How often the programs' attachments are looked at: the agent is gone within a second of a loss.
const PATROL: Duration = Duration::from_millis(500);
/// Most events taken in one go, so that a flood cannot starve signals and timers.
const BATCH: usize = 64;

/// What is said of a run that the kernel killed.
const MEMORY: &str = "the run took more memory than limits.memory lets it have";

/// How often in a tick what resolver and relay refused is looked at.
const MAX_FRESH: u32 = 16;

/// When and how a run is to be ended.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Wall-clock limit, counted from the start of the program.
    pub after: Option<Duration>,
    /// Asks the program to end.
    pub signal: i32,
    /// How long it may take.
    pub grace: Duration,
    /// A log that cannot be written ends the run.
    pub on_audit_failure: bool,
}

/// What a run may reach while it goes on, and what becomes of it then.
#[derive(Debug)]
pub struct Bounds {
    /// `[valid]`.
    pub window: Option<Watch>,
    /// `limits.denials`.
    pub knocking: Option<Knocking>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ending {
    /// How the program's process ended.
    pub end: End,
    /// Why lp-run ended it, if it did.
    pub cause: Option<Reason>,
    /// In words.
    pub detail: Option<String>,
    /// What was left.
    pub rest: Rest,
}

/// Follows a run to its end, cleaned up.
pub async fn follow(
    mut running: Running,
    mut signals: Signals,
    kernel: &mut Kernel<'_>,
    books: &mut Books<'_>,
    limits: Option<&Resources>,
    stop: Stop,
    bounds: Bounds,
) -> std::io::Result<Ending> {
    let mut memory = match limits.map(Resources::watch).transpose() {
        Ok(watched) => watched
            .flatten()
            .map(|(fd, interest)| readiness::watch(fd, interest).map(|fd| (fd, interest)))
            .transpose()?,
        Err(error) => return Err(std::io::Error::other(with_causes(&error))),
    };
    let ring = kernel.ring()?;
    let ring = ring
        .map(|ring| readiness::watch(ring, Interest::READABLE))
        .transpose()?;
    // The gate has just looked.
    let (mut patrol, mut tick) = (every(PATROL), every(TICK));
    let mut watchdog = Watchdog::new(stop, bounds);
    let mut crowded = false;
    if let Err(lost) = watchdog.look_at_clock(&mut running, books) {
        watchdog.lost(&lost, &running);
    }
    let (ledger, mut fresh_names) = (kernel.ledger(), 0);
    let end = loop {
        let checked = tokio::select! {
            biased;
            // Before a stop of the program is acted on: a SIGTERM that came first ends it.
            signal = signals.next() => {
                watchdog.signalled(signal, &mut running);
                Ok(())
            }
            end = running.ended() => break end,
            () = watchdog.due() => {
                watchdog.act(&mut running);
                Ok(())
            }
            told = told(memory.as_ref()) => {
                told?;
                if limits.is_some_and(Resources::runs_out) {
                    memory = None;
                    watchdog.out_of_memory(&running);
                }
                Ok(())
            }
            // Before the events: a flood of them must not hide a loss.
            _ = patrol.tick() => kernel.verify().map_err(Lost::from),
            guard = readable(ring.as_ref()) => {
                let mut guard = guard?;
                let (fresh, more) = kernel.drain(BATCH);
                if !more {
                    guard.clear_ready();
                }
                let noted = books.first_denials(&fresh, Timestamp::now());
                // A ring that is never empty is ready without waiting and without a price in
                // tokio's budget, and signals and timers come only to a task that gives way.
                yield_now().await;
                noted.map_err(Lost::from)
            }
            // A name that is asked for in vain is told at once; a flood of them is the tick's.
            () = ledger.news(), if fresh_names < MAX_FRESH => {
                fresh_names += 1;
                books.first_denials(&ledger.denials(), Timestamp::now()).map_err(Lost::from)
            }
            _ = tick.tick() => {
                fresh_names = 0;
                watchdog.look_at_terminal(&mut running);
                let looked = watchdog.look_at_clock(&mut running, books);
                let refused = look_at_processes(limits, books, &mut crowded);
                look(kernel, books)
                    .and_then(|(refusals, noted)| {
                        watchdog
                            .knocked(refusals, &mut running, books)
                            .and(noted.map_err(Lost::from))
                    })
                    .and(looked)
                    .and(refused)
            }
        };
        if let Err(lost) = checked {
            watchdog.lost(&lost, &running);
        }
    };
    // A log that fails now has nobody left to stop.
    let _ = look_at_processes(limits, books, &mut crowded);
    // The kernel ends the whole run by itself where it can, and its program is gone at once.
    if limits.is_some_and(Resources::ran_out) {
        watchdog.blame(Reason::Memory, Some(MEMORY.to_owned()));
    }
    let rest = running.finish().await;
    Ok(Ending {
        end,
        cause: watchdog.cause,
        detail: watchdog.detail,
        rest,
    })
}

/// Ticks from one period on; late ones are not made up for.
fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for events; for ever where there are none.
async fn readable(
    ring: Option<&AsyncFd<OwnedFd>>,
) -> std::io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    match ring {
        Some(ring) => ring.readable().await,
        None => std::future::pending().await,
    }
}

/// Waits for the kernel to tell of memory; for ever where it has no limit.
async fn told(memory: Option<&(AsyncFd<OwnedFd>, Interest)>) -> std::io::Result<()> {
    match memory {
        Some((events, interest)) => {
            events.ready(*interest).await?.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}

/// What a run cannot go on without.
#[derive(Debug, thiserror::Error)]
enum Lost {
    /// The log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A program is no longer where it was attached, or a map cannot be read.
    #[error(transparent)]
    Protection(#[from] WatchError),
}

/// Brings the books up to date with the kernel's counts; gives the number of refusals so far.
fn look(
    kernel: &mut Kernel<'_>,
    books: &mut Books<'_>,
) -> Result<(u64, Result<(), AuditError>), Lost> {
    let now = Timestamp::now();
    let denials = kernel.denials(true)?;
    let usage = kernel.usage(&denials)?;
    let tallies = kernel.tallies(&denials, &usage)?;
    // A log that fails may be one that the policy goes on without: what was refused counts.
    let noted = books
        .denied(&denials, now)
        .and_then(|()| books.used(&usage, now))
        .and_then(|()| books.lost(&tallies, now))
        .and_then(|()| books.tick(now));
    Ok((books.refusals(&denials, &tallies), noted))
}

/// Tells once of a run that has as many processes as it may have.
fn look_at_processes(
    limits: Option<&Resources>,
    books: &mut Books<'_>,
    told: &mut bool,
) -> Result<(), Lost> {
    let Some(refused) = limits
        .map(Resources::refused)
        .filter(|count| !*told && *count > 0)
    else {
        return Ok(());
    };
    *told = true;
    let what = format!("the run has as many processes as it may have; refused so far: {refused}");
    Ok(books.limit("limits.processes", &what, Timestamp::now())?)
}

/// Ends a run that has to end: a signal first, SIGKILL to everything after the grace.
struct Watchdog {
    stop: Stop,
    bounds: Bounds,
    deadline: Option<Instant>,
    kill: Option<Instant>,
    /// SIGHUP came.
    hung_up: bool,
    cause: Option<Reason>,
    detail: Option<String>,
}

impl Watchdog {
    fn new(stop: Stop, bounds: Bounds) -> Self {
        // A limit too far away for the clock is no limit.
        let deadline = stop
            .after
            .and_then(|after| Instant::now().checked_add(after));
        Self {
            stop,
            bounds,
            deadline,
            kill: None,
            hung_up: false,
            cause: None,
            detail: None,
        }
    }

    /// Waits for the next thing to do; for ever when there is none.
    async fn due(&self) {
        match self.kill.or(self.deadline) {
            Some(when) => sleep_until(when).await,
            None => std::future::pending().await,
        }
    }

    fn act(&mut self, running: &mut Running) {
        if self.kill.is_some() {
            self.kill_now(running);
        } else {
            self.deadline = None;
            self.end(Reason::Timeout, None, running);
        }
    }

    /// A signal from outside is handed on: what a keyboard or a closed terminal sends to the
    /// program's group, as they would, the rest to its main process. SIGTERM and a terminal that
    /// was closed also start the grace; the second SIGTERM kills.
    fn signalled(&mut self, signal: i32, running: &mut Running) {
        match signal {
            libc::SIGCONT => return running.continued(),
            libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP | libc::SIGHUP => {
                running.signal_group(signal);
            }
            // A program that is gone hears nothing; its end is on the way.
            _ => drop(running.signal(signal)),
        }
        match signal {
            libc::SIGTERM if self.kill.is_some() => self.kill_now(running),
            libc::SIGTERM => self.start_grace(running),
            libc::SIGHUP => {
                self.hung_up = true;
                self.look_at_terminal(running);
            }
            _ => (),
        }
    }

    /// After a SIGHUP that tells of a closed terminal the program has to end, as there is nobody
    /// left to end it. The kernel sends the signal before it takes the terminal away.
    fn look_at_terminal(&mut self, running: &mut Running) {
        if self.hung_up && self.kill.is_none() && running.terminal_is_gone() {
            self.start_grace(running);
        }
    }

    /// Freezes a run that left its window, or ends it; lets go of one that is inside again.
    fn look_at_clock(&mut self, running: &mut Running, books: &mut Books<'_>) -> Result<(), Lost> {
        let Some(turn) = self.bounds.window.as_mut().and_then(Watch::turn) else {
            return Ok(());
        };
        let what = match turn {
            _ if self.kill.is_some() => return Ok(()),
            Turn::Left(why, Leaving::Freeze) if running.hold(Hold::Window, true) => {
                format!("the agent is frozen: {why}")
            }
            Turn::Left(why, _) => {
                self.end(Reason::Window, Some(why.clone()), running);
                format!("the agent is ended: {why}")
            }
            Turn::Entered => {
                running.hold(Hold::Window, false);
                "the agent goes on: its hours have come again".to_owned()
            }
        };
        Ok(books.limit("valid", &what, Timestamp::now())?)
    }

    /// What becomes of an agent that was refused too much lately.
    fn knocked(
        &mut self,
        refusals: u64,
        running: &mut Running,
        books: &mut Books<'_>,
    ) -> Result<(), Lost> {
        let knocking = self.bounds.knocking.as_mut();
        let Some((action, count)) = knocking.and_then(|it| it.note(refusals, Instant::now()))
        else {
            return Ok(());
        };
        let what = match action {
            OnDenials::Report => format!("{count} refusals"),
            OnDenials::Freeze if running.hold(Hold::Denials, true) => {
                format!("{count} refusals: the agent is frozen; SIGTERM to lp-run ends it")
            }
            // What cannot be frozen does not go on.
            OnDenials::Freeze | OnDenials::Kill => {
                let what = format!("{count} refusals: the agent is killed");
                self.blame(Reason::Denials, Some(format!("limits.denials: {what}")));
                self.kill_now(running);
                what
            }
        };
        Ok(books.limit("limits.denials", &what, Timestamp::now())?)
    }

    fn start_grace(&mut self, running: &mut Running) {
        running.begin_to_end();
        if running.is_held() {
            // It would hear no signal, and must not go on for one.
            return self.kill_now(running);
        }
        self.kill = self
            .kill
            .or_else(|| Instant::now().checked_add(self.stop.grace));
    }

    /// Asks the program to end and starts the grace.
    fn end(&mut self, cause: Reason, detail: Option<String>, running: &mut Running) {
        self.blame(cause, detail);
        let _ = running.signal(self.stop.signal);
        self.start_grace(running);
    }

    fn kill_now(&mut self, running: &Running) {
        self.cause = self.cause.or(Some(Reason::Operator));
        // What survives shows when the run is cleaned up.
        let _ = running.kill_all();
        self.kill = None;
        self.deadline = None;
    }

    /// Without its protection or its log the agent does not get the grace.
    fn lost(&mut self, lost: &Lost, running: &Running) {
        let cause = match lost {
            Lost::Audit(_) if !self.stop.on_audit_failure => return,
            Lost::Audit(_) => Reason::AuditFailed,
            Lost::Protection(_) => Reason::ProtectionLost,
        };
        self.blame(cause, Some(with_causes(lost)));
        self.kill_now(running);
    }

    /// The kernel has killed one of its processes: what is left is half a run.
    fn out_of_memory(&mut self, running: &Running) {
        self.blame(Reason::Memory, Some(MEMORY.to_owned()));
        self.kill_now(running);
    }

    /// The first cause is the one to tell.
    fn blame(&mut self, cause: Reason, detail: Option<String>) {
        if self.cause.is_none() {
            self.cause = Some(cause);
            self.detail = detail;
        }
    }
}
