// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel side of a start: attaches the programs while the agent waits, asks for the
//! self-test, and opens the gate only on evidence that each layer answered.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use super::refusal::with_causes;
use crate::enforce::canary::NETWORK_ACT_NAMES;
use crate::enforce::cgroup::RunCgroup;
use crate::enforce::witness::Witness;
use crate::enforce::{CanaryEvidence, Prepared, scopes_sockets};
use crate::launch::{GateError, GateKeeper};
use crate::names::Door;
use crate::plan::{Plan, State};
use crate::sys::{fault, message, process};
use crate::watch::files::{Files, FilesError, HostAndView};
use crate::watch::lsm::{self, Lsm, LsmError};
use crate::watch::{self, Objects, Rules, WatchError};

/// Holds the gates of one run.
pub struct Keeper<'a> {
    plan: &'a Plan,
    prepared: &'a Prepared,
    cgroup: Option<&'a RunCgroup>,
    objects: Option<Objects>,
    /// What counts files, until that is brought up.
    opened: Option<Result<Files, FilesError>>,
    /// In front of the run, so that it goes first: the run gives back the slot of both.
    files: Result<Files, Option<String>>,
    lsm: Option<Lsm>,
    run: Option<watch::Run>,
    /// The agent's view, and the host.
    sight: Option<HostAndView>,
    /// Takes descriptors that must outlive lp-run.
    parking: BorrowedFd<'a>,
    /// The sockets of resolver and relay.
    door: Option<Door>,
}

impl<'a> Keeper<'a> {
    /// A keeper for a run's cgroups, with the programs loaded and attached nowhere: both are
    /// there, or the run has no programs. `prepared` holds what the agent is held against.
    pub fn new(
        plan: &'a Plan,
        prepared: &'a Prepared,
        cgroup: Option<&'a RunCgroup>,
        objects: Option<Objects>,
        parking: BorrowedFd<'a>,
    ) -> Self {
        Self {
            plan,
            prepared,
            cgroup,
            objects,
            opened: None,
            run: None,
            files: Err(None),
            lsm: None,
            sight: None,
            parking,
            door: None,
        }
    }

    /// The run in the kernel, once it is live, and what leads out of its network.
    pub fn into_kernel(self) -> Option<(Kernel<'a>, Option<Door>)> {
        let watched = match self.cgroup {
            None => None,
            Some(_) => Some((self.run?, self.files, self.lsm, self.sight?)),
        };
        Some((Kernel::new(self.plan, watched), self.door))
    }

    /// Brings counting up. What cannot be counted is unknown; only a policy that requires
    /// counts is refused.
    fn count_files(
        &self,
        files: Result<Files, FilesError>,
        run: &mut watch::Run,
    ) -> Result<Result<Files, Option<String>>, GateError> {
        let started = files.and_then(|mut files| {
            files.start(self.plan, run)?;
            for anchor in &self.plan.anchors {
                if let Some(made) = self.prepared.view.created(&anchor.path) {
                    files.add(made, anchor.owners)?;
                }
            }
            files.verify_maps()?;
            Ok(files)
        });
        match started {
            Ok(files) => Ok(Ok(files)),
            Err(error) if self.plan.policy.audit.require_counts => Err(GateError::Unproven {
                protection: "audit.require_counts",
                detail: with_causes(&error),
            }),
            Err(error) => {
                run.forget_files();
                Ok(Err(Some(with_causes(&error))))
            }
        }
    }

    /// Has LSM programs take away what the plan says; the agent is not there before.
    fn take_away(&self, mut lsm: Lsm, run: &mut watch::Run) -> Result<Lsm, LsmError> {
        let anchors = self.plan.anchors.iter();
        let made: Vec<(&Path, BorrowedFd<'_>)> = anchors
            .filter_map(|anchor| {
                let made = self.prepared.view.created(&anchor.path)?;
                Some((anchor.path.as_path(), made))
            })
            .collect();
        if let Some(canary) = self.prepared.lsm_canary() {
            let held = lsm.start(self.plan, &made, canary.as_fd(), run)?;
            message::park(self.parking, &held).map_err(LsmError::Park)?;
        }
        Ok(lsm)
    }

    /// What the kernel says of the agent's process.
    fn look_at(&self, agent: i32, keep: &[RawFd]) -> Result<(), GateError> {
        let internal = |error| GateError::Internal(Box::new(error));
        let witness =
            Witness::of(agent, self.cgroup.map(|cgroup| &cgroup.agent)).map_err(internal)?;
        let judged = witness.judge(self.plan, self.prepared, keep);
        judged.map_err(|(protection, detail)| GateError::Unproven { protection, detail })
    }

    /// Does something to the run with what else is here. On an error the run is over.
    fn with_run<T>(
        &mut self,
        act: impl FnOnce(&Self, &mut watch::Run) -> Result<T, GateError>,
    ) -> Result<T, GateError> {
        let run = self.run.take();
        let mut run = run.ok_or_else(|| internal(WatchError::Missing("a run")))?;
        let done = act(self, &mut run)?;
        self.run = Some(run);
        Ok(done)
    }

    fn run(&mut self) -> Result<&mut watch::Run, GateError> {
        self.run
            .as_mut()
            .ok_or_else(|| internal(WatchError::Missing("a run")))
    }
}

impl GateKeeper for Keeper<'_> {
    fn attach(&mut self) -> Result<(), GateError> {
        let Some(agent) = self.cgroup.map(|cgroup| &cgroup.agent) else {
            return Ok(());
        };
        let objects = self
            .objects
            .take()
            .ok_or_else(|| internal(WatchError::Missing("an object")))?;
        let cgroup = watch::open_cgroup(agent.path()).map_err(internal)?;
        self.opened = self.plan.count_files.then(|| objects.files());
        let lsm = match self.plan.taken.is_empty() {
            true => None,
            false => Some(objects.lsm().map_err(not_taken)?),
        };
        let run = objects
            .start(Rules::from(self.plan), cgroup, agent.level())
            .map_err(internal)?;
        self.run = Some(run);
        if let Some(lsm) = lsm {
            // After the counting, which leaves the run when it fails.
            self.count()?;
            self.with_run(|keeper, run| keeper.take_away(lsm, run).map_err(not_taken))
                .map(|lsm| self.lsm = Some(lsm))?;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), GateError> {
        let Some(files) = self.opened.take() else {
            return Ok(());
        };
        self.files = self.with_run(|keeper, run| keeper.count_files(files, run))?;
        Ok(())
    }

    fn canary(&mut self) -> Result<(), GateError> {
        if self.cgroup.is_none() {
            return Ok(());
        }
        self.run()?
            .set_state(watch::State::Canary)
            .map_err(internal)
    }

    fn judge(
        &mut self,
        evidence: &CanaryEvidence,
        agent: BorrowedFd<'_>,
        keep: &[RawFd],
    ) -> Result<(), GateError> {
        let pidfd = agent;
        let agent = process::pid_of(agent).ok_or_else(|| {
            let gone = io::Error::from(io::ErrorKind::NotFound);
            GateError::Internal(Box::new(gone))
        })?;
        if let Some(cgroup) = self.cgroup {
            let admitted = cgroup.limits.admit(agent);
            admitted.map_err(|error| GateError::Unproven {
                protection: "resource-limits",
                detail: with_causes(&error),
            })?;
        }
        // A test leaves a layer out and lets the run go on, to see an attack succeed.
        let judged = !fault::skips("judge");
        if judged {
            judge_process(self.plan, evidence)?;
            self.look_at(agent, keep)?;
            judge_memfd(self.plan, evidence)?;
            judge_unix(self.plan, evidence)?;
        }
        if self.cgroup.is_none() {
            return judge_sockets(evidence);
        }
        if judged {
            if let Some(lsm) = &self.lsm {
                judge_lsm(lsm, evidence)?;
            }
            judge_network(self.run()?, evidence)?;
        }
        if let Some(names) = &self.plan.network.names {
            let door = Door::open(pidfd, names).map_err(|error| GateError::Unproven {
                protection: "network",
                detail: with_causes(&error),
            })?;
            self.door = Some(door);
        }
        // As long as the agent waits: a program may be gone before anybody looks again.
        self.sight = Some(HostAndView::of(agent));
        self.run()?.set_state(watch::State::Live).map_err(internal)
    }
}

fn internal(error: WatchError) -> GateError {
    match error.is_of_the_host() {
        true => GateError::Unproven {
            protection: "network",
            detail: with_causes(&error),
        },
        false => GateError::Internal(Box::new(error)),
    }
}

/// Landlock and seccomp, as far as the plan asks for them.
fn judge_process(plan: &Plan, evidence: &CanaryEvidence) -> Result<(), GateError> {
    let wanted = |name| {
        plan.protections
            .iter()
            .any(|protection| protection.name == name && protection.state == State::Enforced)
    };
    if wanted("landlock") && !evidence.landlock_holds() {
        return Err(GateError::Unproven {
            protection: "landlock",
            detail: format!(
                "a file outside every grant opened with errno {} before and {} after",
                evidence.landlock_before, evidence.landlock_after
            ),
        });
    }
    if wanted("seccomp") && !evidence.seccomp_holds() {
        return Err(GateError::Unproven {
            protection: "seccomp",
            detail: format!(
                "the sentinel call gave errno {} before and {} after",
                evidence.seccomp_before, evidence.seccomp_after
            ),
        });
    }
    Ok(())
}

/// No code in files in memory, which filter and pid namespace hold together: judged when both are
/// known to be there.
fn judge_memfd(plan: &Plan, evidence: &CanaryEvidence) -> Result<(), GateError> {
    if plan.state("seccomp") != Some(State::Enforced) || evidence.memfd_holds() {
        return Ok(());
    }
    // execve(2): the limit counts when a user changes, and is told at the next execution.
    let crowded = match evidence.memfd.contains(&libc::EAGAIN) {
        true => "; the agent's user has more processes than `ulimit -u` lets it have",
        false => "",
    };
    Err(GateError::Unproven {
        protection: "seccomp",
        detail: format!(
            "executing a file in memory gave errno {}, and {} for one made with MFD_EXEC{crowded}",
            evidence.memfd[0], evidence.memfd[1]
        ),
    })
}

/// Unix sockets, by whichever of filter and scope the plan counts on.
fn judge_unix(plan: &Plan, evidence: &CanaryEvidence) -> Result<(), GateError> {
    let unproven = |detail| GateError::Unproven {
        protection: "unix-sockets",
        detail,
    };
    let filtered = plan.syscalls.refuse_unix && plan.state("seccomp") == Some(State::Enforced);
    if filtered && !evidence.unix_refused() {
        return Err(unproven(format!(
            "making one gave errno {} before the filter and {} after",
            evidence.unix_before, evidence.unix_after
        )));
    }
    if scopes_sockets(plan) && !evidence.scope_holds() {
        return Err(unproven(format!(
            "connecting to an abstract one of lp-run's gave errno {} before Landlock and {} after",
            evidence.scope_before, evidence.scope_after
        )));
    }
    Ok(())
}

/// The protection that LSM programs are for.
const TAKEN: &str = "file-deny";

/// What is to be taken away cannot be.
fn not_taken(error: LsmError) -> GateError {
    GateError::Unproven {
        protection: TAKEN,
        detail: with_causes(&error),
    }
}

/// Each hook was refused in the place of the self-test, by its own program.
fn judge_lsm(lsm: &Lsm, evidence: &CanaryEvidence) -> Result<(), GateError> {
    let unproven = |detail| GateError::Unproven {
        protection: TAKEN,
        detail,
    };
    let passed: Vec<String> = lsm::HOOKS
        .iter()
        .zip(evidence.lsm)
        .filter(|(_, errno)| *errno != libc::EACCES)
        .map(|(hook, errno)| format!("{} {errno}", hook.name))
        .collect();
    if evidence.lsm_tried != 1 || !passed.is_empty() {
        let detail = format!("errno of what was not refused: {}", passed.join(", "));
        return Err(unproven(detail));
    }
    lsm.verify()
        .and_then(|()| lsm.verify_maps())
        .map_err(not_taken)?;
    let silent = lsm.silent().map_err(not_taken)?;
    match silent.is_empty() {
        true => Ok(()),
        false => Err(unproven(format!(
            "nothing reached the programs {}",
            silent.join(", ")
        ))),
    }
}

/// No socket of a network could be made, where nothing but the filter refuses them.
fn judge_sockets(evidence: &CanaryEvidence) -> Result<(), GateError> {
    match evidence.sockets_refused() {
        true => Ok(()),
        false => Err(GateError::Unproven {
            protection: "network",
            detail: format!("making sockets gave the errnos {:?}", evidence.network),
        }),
    }
}

/// Each act was refused, and the programs' own scratch rows say that they refused it.
fn judge_network(run: &watch::Run, evidence: &CanaryEvidence) -> Result<(), GateError> {
    let unproven = |detail| GateError::Unproven {
        protection: "network",
        detail,
    };
    if !evidence.network_refused() {
        let answers: Vec<String> = NETWORK_ACT_NAMES
            .iter()
            .zip(evidence.network)
            .map(|(name, errno)| format!("{name} {errno}"))
            .collect();
        let detail = format!("errno of each refused act: {}", answers.join(", "));
        return Err(unproven(detail));
    }
    run.verify()
        .and_then(|()| run.verify_maps())
        .map_err(|error| unproven(with_causes(&error)))?;
    let ipv6 = NETWORK_ACT_NAMES
        .iter()
        .zip(evidence.network)
        .all(|(name, errno)| !name.ends_with('6') || errno > 0);
    // A packet to oneself arrives when the kernel comes to it, which on a busy host is later.
    let patience = Instant::now() + ARRIVAL;
    loop {
        let silent = run.canaries().map_err(internal)?.silent(ipv6);
        if silent.is_empty() {
            return Ok(());
        }
        if Instant::now() >= patience {
            let detail = format!("nothing reached the programs {}", silent.join(", "));
            return Err(unproven(detail));
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// How long a packet on the loopback interface may take: on an overloaded Linux 6.1, where the thread
/// that delivers it is an ordinary task, more than a second was seen.
const ARRIVAL: Duration = Duration::from_secs(5);
