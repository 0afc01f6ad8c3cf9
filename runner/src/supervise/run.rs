// SPDX-License-Identifier: MIT OR Apache-2.0
//! The main job, told in order: policy, host, plan, logs, mechanisms, cgroup, start, follow,
//! clean up.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;

use super::admission;
use super::books::Books;
use super::desk::{Desk, Finished, exit_code};
use super::gate::Keeper;
use super::kernel::Kernel;
use super::knocking::Knocking;
use super::live::{self, Bounds, Ending, Stop};
use super::refusal::{RunError, with_causes};
use super::request::RunRequest;
use super::secrets::{self, Given};
use super::window::Watch;
use crate::control::{self, RunDir, Traces};
use crate::enforce::cgroup::RunCgroup;
use crate::enforce::resources::{self, Resources};
use crate::enforce::{self, PrepareOptions, Prepared, rlimits};
use crate::host::{Depth, Host, Means};
use crate::launch::{self, Cgroups, End, Launch, Stdio, StdioOptions};
use crate::names::{Door, Service};
use crate::plan::{self, CompileOptions, Namespace, Plan};
use crate::policy::facts::{Facts, Remembering, SystemFacts};
use crate::policy::model::{NO_WALL_TIME, Policy, SecretForm};
use crate::policy::{self, LoadRequest};
use crate::record::audit::{Audit, Start};
use crate::record::escape::visible;
use crate::record::event::{Exit, Reason};
use crate::record::log_file::LogFile;
use crate::record::report_file::is_descriptor;
use crate::record::self_dir::SelfDir;
use crate::sys::process::{self, Ended, ExecArguments};
use crate::sys::{fault, places};
use crate::watch::Objects;

/// How long killed processes may take to leave their cgroup.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs a program under its policy, to its end. Gives lp-run's exit status; everything that is
/// to be said has been said.
pub fn run(request: &RunRequest) -> u8 {
    process::survive_file_size_limit();
    launch::arm_faults();
    // The process ends behind this: what it remembers is given back by that, all at once.
    let facts = ManuallyDrop::new(SystemFacts::default());
    let desk = facts.caller().map_err(RunError::Caller);
    match desk.and_then(|caller| Desk::open(request, caller)) {
        Ok(mut desk) => {
            let result = attempt(request, &*facts, &mut desk);
            desk.close(result)
        }
        Err(error) => {
            for paragraph in error.paragraphs(None) {
                request.terminal.error(&paragraph);
            }
            error.exit().code
        }
    }
}

fn attempt(
    request: &RunRequest,
    facts: &dyn Facts,
    desk: &mut Desk<'_>,
) -> Result<Finished, RunError> {
    let inherited = rlimits::lift()?;
    let mut policy = policy::load(&load_request(request, true), &Remembering::new(facts))?;
    if request.timeout.is_some() {
        policy.warnings.retain(|(_, text)| text != NO_WALL_TIME);
    }
    let host = host_for(&policy, Host::probe(Depth::Run));
    let options = CompileOptions {
        allow_degraded: request.allow_degraded.clone(),
        environment: request.environment.clone(),
    };
    plan::search(&mut policy, &host, facts);
    let plan = Rc::new(plan::compile(policy, &host, &options)?);
    desk.plan = Some(Rc::clone(&plan));
    outside_grants(&plan, "--audit", request.audit.as_deref())?;
    admission::check(request, desk, &plan)?;
    say_plan(request, &plan);
    if plan.open_gaps().next().is_some() {
        return Err(RunError::Gaps);
    }
    if request.fail_on_denied && !plan.sees_denials() {
        return Err(RunError::Unseen);
    }
    let report = request.report.as_deref();
    outside_grants(
        &plan,
        "--report",
        report.filter(|path| !is_descriptor(path)),
    )?;
    desk.can_report()?;
    let secrets = secrets::collect(request, facts, &desk.caller, &plan.policy.secrets);
    let secrets =
        secrets.map_err(|refusal| admission::turn_away(request, desk, &plan, vec![refusal]))?;
    carry_out(request, desk, &plan, &host, inherited, &secrets)
}

/// What a machine can do, with trials of what this policy may need and others do without.
pub fn host_for(policy: &Policy, mut host: Host) -> Host {
    if plan::resources::wanted(&policy.limits).next().is_some() {
        host = host.with_controllers();
    }
    match policy.takes_files() {
        true => host.with_lsm_tried(),
        false => host,
    }
}

/// A log in the agent's hands is no log, and where the report is to appear the agent could have
/// put something of its own.
fn outside_grants(plan: &Plan, option: &'static str, path: Option<&Path>) -> Result<(), RunError> {
    let Some(path) = path else {
        return Ok(());
    };
    let failed = RunError::internal("find the place of a log or a report");
    let absolute = std::path::absolute(path).map_err(&failed)?;
    let parent = absolute.parent().unwrap_or(&absolute);
    // Through links or without: a place that is not there yet is judged by what it is called.
    let real = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
    let anchor = plan
        .anchors
        .iter()
        .filter(|anchor| real.starts_with(&anchor.path) || absolute == anchor.path)
        .max_by_key(|anchor| anchor.path.components().count());
    match anchor {
        // The run's own places have no rule: what the agent sees there is not the host's.
        Some(anchor) if anchor.owners.write.is_some() => Err(RunError::InGrant {
            option,
            path: path.display().to_string(),
            rule: anchor
                .owners
                .write
                .and_then(|row| plan.rules.get(row as usize))
                .map(|rule| rule.info.key.clone())
                .unwrap_or_default(),
        }),
        _ => Ok(()),
    }
}

/// What the policy compiler needs of a request. `check` leaves the command open.
pub fn load_request(request: &RunRequest, needs_command: bool) -> LoadRequest {
    let text = |word: &std::ffi::OsString| word.to_string_lossy().into_owned();
    LoadRequest {
        policy: text(&request.policy),
        directory: request.directory.clone(),
        workdir: request.workdir.clone(),
        sets: request.sets.clone(),
        command: request.command.iter().map(text).collect(),
        needs_command,
    }
}

/// With `-v` the warnings and the whole plan; what is missed on purpose, or by nobody's care, always.
fn say_plan(request: &RunRequest, plan: &Plan) {
    if let Some(date) = plan
        .policy
        .task
        .review_by
        .filter(|_| plan.policy.task.overdue)
    {
        let owner = plan.policy.task.owner.as_deref().unwrap_or("nobody");
        let said = format!(
            "the review of this policy was due on {date} (task.review_by); {} answers for it",
            visible(owner)
        );
        request.terminal.note(&said);
    }
    for (place, warning) in &plan.policy.warnings {
        let line = format!("warning {}:{}: {warning}", place.file, place.line);
        request.terminal.detail(&line);
    }
    if request.terminal.shows_details() {
        for line in plan::render::text(plan, false).lines() {
            request.terminal.detail(line);
        }
    }
    for (protection, why) in plan.degraded() {
        request
            .terminal
            .error(&format!("DEGRADED {protection}: {why}"));
    }
}

/// Everything from here on changes the host, and takes its change back.
fn carry_out(
    request: &RunRequest,
    desk: &mut Desk<'_>,
    plan: &Plan,
    host: &Host,
    inherited: rlimits::Inherited,
    secrets: &[Given],
) -> Result<Finished, RunError> {
    control::sweep(host.cgroup.as_deref())?;
    let mut audit = open_logs(request, desk, plan)?;
    let dir = RunDir::create(&desk.run, traces(request, desk, plan, host))?;
    fault::passed("RunDirectory");
    // Behind the directory of the run: `gc --all` takes nothing from a run that has one.
    let objects = match plan.means {
        Means::Root => Some(Objects::acquire(&places::runtime(), plan.rules.len())?),
        Means::UserNamespace | Means::Alone => None,
    };
    fault::passed("ObjectLease");
    let told = tell_agent(plan, &dir)?;
    let exec = exec_arguments(plan, secrets)?;
    let files = secrets
        .iter()
        .filter(|secret| secret.form == SecretForm::File);
    let files: Vec<(&str, &[u8])> = files
        .map(|secret| (secret.name.as_str(), secret.value.as_slice()))
        .collect();
    let prepared = enforce::prepare(
        plan,
        host,
        &PrepareOptions {
            state_dir: &places::runtime(),
            run_dir: dir.path(),
            self_dir: told.is_some().then(|| dir.self_dir()).as_deref(),
            secrets: &files,
            inherited,
        },
    )?;
    write_start(&mut audit, desk, plan, Some(prepared.identity.uid))?;
    write_secrets(&mut audit, secrets)?;
    let ready = Ready { prepared, exec };
    let mut books = Books::open(plan, &request.terminal, audit, told);
    let result = in_cgroup(request, desk, plan, host, &ready, objects, &mut books);
    close_log(&mut books, &result);
    give_back(request, ready.prepared, dir);
    result
}

/// What a start needs: the mechanisms, and the program with its arguments and environment.
struct Ready {
    prepared: Prepared,
    exec: ExecArguments,
}

/// The run's cgroup, from its making to its removal; without root it has none.
fn in_cgroup(
    request: &RunRequest,
    desk: &Desk<'_>,
    plan: &Plan,
    host: &Host,
    ready: &Ready,
    objects: Option<Objects>,
    books: &mut Books<'_>,
) -> Result<Finished, RunError> {
    if plan.means != Means::Root {
        return start_and_follow(request, plan, ready, None, objects, books);
    }
    let mut cgroup = RunCgroup::create(cgroup_base(host), &desk.run)?;
    fault::passed("Cgroup");
    let limited = cgroup
        .limit(&plan.resources, &desk.run)
        .map_err(RunError::from);
    fault::passed("CgroupLimits");
    let result = limited
        .and_then(|()| start_and_follow(request, plan, ready, Some(&cgroup), objects, books));
    // What cannot be removed is the next sweep's: the end of the run is known all the same.
    if let Err(error) = cgroup.remove(PATIENCE) {
        request.terminal.error(&with_causes(&error));
    }
    result
}

/// The lease of the uid and the run's directory. What cannot be removed is the next sweep's.
fn give_back(request: &RunRequest, prepared: Prepared, dir: RunDir) {
    if let Err(error) = prepared.release() {
        request
            .terminal
            .note(&format!("the uid's lease stays: {error}"));
    }
    if let Err(error) = dir.remove() {
        request.terminal.note(&with_causes(&error));
    }
}

/// Where runs are placed; a host without cgroup v2 has been refused by the plan.
fn cgroup_base(host: &Host) -> &Path {
    host.cgroup
        .as_deref()
        .unwrap_or(Path::new("/sys/fs/cgroup/lp-run"))
}

/// The last line of the log, however the start went.
fn close_log(books: &mut Books<'_>, result: &Result<Finished, RunError>) {
    let (exit, detail) = match result {
        Ok(finished) => (finished.exit, finished.detail.clone()),
        Err(error) => (error.exit(), Some(with_causes(error))),
    };
    // A log that fails now has nobody left to stop.
    let _ = books.audit().end(exit, detail.as_deref(), Timestamp::now());
}

/// The audit log of the policy, and the one that the command line adds.
pub(super) fn open_logs(
    request: &RunRequest,
    desk: &Desk<'_>,
    plan: &Plan,
) -> Result<Audit, RunError> {
    let mut files = Vec::new();
    if let Some(path) = &plan.policy.audit.log {
        let theirs = plan.policy.file_owner != 0;
        files.push(LogFile::open(path, theirs.then_some(&desk.caller))?);
    }
    if let Some(path) = &request.audit {
        files.push(LogFile::open(path, Some(&desk.caller))?);
    }
    Ok(Audit::new(files, &desk.run, &plan.policy.name))
}

/// What is to be taken down of a run that dies, and the logs that wait for its last line. Noted
/// once, before there is any of it.
fn traces(request: &RunRequest, desk: &Desk<'_>, plan: &Plan, host: &Host) -> Traces {
    let logs = plan.policy.audit.log.iter().chain(&request.audit);
    let has_cgroup = plan.means == Means::Root;
    Traces {
        cgroup: has_cgroup.then(|| RunCgroup::place(cgroup_base(host), &desk.run)),
        legacy: resources::legacy_places(&plan.resources, &desk.run),
        policy: plan.policy.name.clone(),
        logs: logs
            .filter_map(|path| std::path::absolute(path).ok())
            .collect(),
    }
}

/// The directory in which the agent reads what it may do and what was denied.
fn tell_agent(plan: &Plan, dir: &RunDir) -> Result<Option<SelfDir>, RunError> {
    // Without a view there is no place where it would look.
    if !plan.policy.audit.tell_agent || plan.means == Means::Alone {
        return Ok(None);
    }
    let directory = dir.make_self_dir()?;
    SelfDir::create(directory, plan)
        .map(Some)
        .map_err(RunError::internal("write what the agent may read"))
}

fn write_secrets(audit: &mut Audit, secrets: &[Given]) -> Result<(), RunError> {
    for secret in secrets {
        let form = match &secret.form {
            SecretForm::File => "as a file".to_owned(),
            SecretForm::Variable(name) => format!("as {name}"),
        };
        audit.secret(&secret.name, &form, &secret.fingerprint, Timestamp::now())?;
    }
    Ok(())
}

/// The first lines of the log; the agent's uid is unknown where there will be none.
pub(super) fn write_start(
    audit: &mut Audit,
    desk: &Desk<'_>,
    plan: &Plan,
    agent_uid: Option<u32>,
) -> Result<(), RunError> {
    let program = plan
        .policy
        .command
        .as_ref()
        .map(|command| command.path.as_os_str())
        .unwrap_or_default();
    let now = Timestamp::now();
    audit.start(
        &Start {
            name: desk.name(),
            policy_sha256: &plan.policy.sha256,
            program: program.as_bytes(),
            caller_uid: desk.caller.uid,
            agent_uid,
        },
        now,
    )?;
    for (protection, why) in plan.degraded() {
        audit.degraded(protection, &why, now)?;
    }
    Ok(())
}

fn start_and_follow(
    request: &RunRequest,
    plan: &Plan,
    ready: &Ready,
    cgroup: Option<&RunCgroup>,
    objects: Option<Objects>,
    books: &mut Books<'_>,
) -> Result<Finished, RunError> {
    let Ready { prepared, exec } = ready;
    // What is put in on one side lives as long as the other side, which the shim has too.
    let (parking, parked) =
        UnixStream::pair().map_err(RunError::internal("make a pair of sockets"))?;
    let launch = Launch {
        confinement: prepared,
        exec,
        workdir: c_string(plan.workdir.as_os_str())?,
        stdio: Stdio::prepare(&StdioOptions {
            terminal: plan.policy.identity.terminal,
            direct: plan.policy.identity.stdio_direct,
            owner: (prepared.identity.uid, prepared.identity.gid),
            file_size: prepared.rlimits.file_size(),
            keep: &request.keep_fds,
            devpts: prepared.view.devpts(),
        })?,
        cgroups: cgroup.map(|cgroup| Cgroups {
            shim: cgroup.shim.as_fd(),
            agent: cgroup.agent.as_fd(),
        }),
        namespaces: plan.means != Means::Alone,
        own_network: plan.network.namespace == Namespace::Own,
        // Where the filter refuses every socket there is nobody to use it.
        loopback: plan.network.namespace == Namespace::Own && !plan.syscalls.refuse_network,
        held: prepared
            .identity
            .lease
            .iter()
            .map(|lease| lease.as_fd())
            .chain(objects.iter().map(Objects::lease))
            .chain([parked.as_fd()])
            .map(|lease| lease.as_raw_fd())
            .collect(),
    };
    let mut keeper = Keeper::new(plan, prepared, cgroup, objects, parking.as_fd());
    let launched = launch::start(launch, &mut keeper)?;
    let (kernel, door) = keeper.into_kernel().ok_or_else(|| {
        RunError::internal("attach the run's programs")(std::io::ErrorKind::NotFound.into())
    })?;
    to_its_end(
        request,
        plan,
        prepared,
        cgroup,
        launched,
        (kernel, door),
        books,
    )
    .map_err(|error| RunError::WhileRunning(Box::new(error)))
}

/// The program runs: an error lets go of it, and its first process takes everything down.
fn to_its_end(
    request: &RunRequest,
    plan: &Plan,
    prepared: &Prepared,
    cgroup: Option<&RunCgroup>,
    launched: launch::Launched,
    (mut kernel, door): (Kernel<'_>, Option<Door>),
    books: &mut Books<'_>,
) -> Result<Finished, RunError> {
    let limits = cgroup.map(|cgroup| &cgroup.limits);
    let exec = write_exec(books, plan, launched.agent_pid());
    let ending =
        exec.and_then(|()| follow(request, plan, limits, launched, door, &mut kernel, books));
    match ending {
        Ok(ending) => tally(&ending, &mut kernel, books, prepared.identity.uid),
        Err(error) => {
            // The rules leave the kernel after the program, or stay for the next sweep.
            if cgroup.is_some_and(|cgroup| cgroup.end(PATIENCE).is_err()) {
                std::mem::forget(kernel);
            }
            Err(error)
        }
    }
}

fn write_exec(books: &mut Books<'_>, plan: &Plan, pid: Option<i32>) -> Result<(), RunError> {
    let program = plan.policy.command.as_ref();
    let path = program.map(|command| command.path.as_os_str().as_bytes());
    let pid = pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    books
        .audit()
        .exec(path.unwrap_or_default(), pid, Timestamp::now())?;
    Ok(())
}

/// The event loop: the only place with a runtime, made when every fork is done.
fn follow(
    request: &RunRequest,
    plan: &Plan,
    limits: Option<&Resources>,
    launched: launch::Launched,
    door: Option<Door>,
    kernel: &mut Kernel<'_>,
    books: &mut Books<'_>,
) -> Result<Ending, RunError> {
    let times = &plan.policy.limits;
    let stop = Stop {
        after: [times.wall_time, request.timeout]
            .into_iter()
            .flatten()
            .min(),
        signal: times.stop_signal,
        grace: times.stop_grace,
        on_audit_failure: plan.policy.audit.stop_on_failure,
    };
    let bounds = Bounds {
        window: plan.policy.valid.as_ref().map(Watch::new),
        knocking: times.denials.as_ref().map(Knocking::new),
    };
    let failed = RunError::internal("follow the run");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(&failed)?;
    let ending = runtime.block_on(async {
        let service = door.map(|door| Service::start(door, plan, kernel.ledger()));
        let _service = service.transpose()?;
        let (running, signals) = launched.supervise()?;
        live::follow(running, signals, kernel, books, limits, stop, bounds).await
    });
    // A file that does not answer holds up its relay, and nothing that is still to be done.
    runtime.shutdown_background();
    ending.map_err(failed)
}

/// The last look at the kernel's counts.
fn tally(
    ending: &Ending,
    kernel: &mut Kernel<'_>,
    books: &mut Books<'_>,
    agent_uid: u32,
) -> Result<Finished, RunError> {
    let now = Timestamp::now();
    // What came after the last look of the event loop.
    kernel.verify_counting();
    while kernel.drain(usize::MAX).1 {}
    let denials = kernel.denials(false)?;
    let usage = kernel.usage(&denials)?;
    let tallies = kernel.last_tallies(&denials, &usage)?;
    // A log that fails now has nobody left to stop; `failed` in its last line tells of it.
    let _ = books
        .denied(&denials, now)
        .and(books.used(&usage, now))
        .and(books.lost(&tallies, now));
    let (exit, detail) = exit(ending);
    Ok(Finished {
        exit,
        detail,
        agent_uid,
        usage,
        denials,
        tallies,
        unlogged: books.audit().failed(),
        uncounted: kernel.uncounted().map(str::to_owned),
    })
}

/// How the run ended, in lp-run's own exit status.
fn exit(ending: &Ending) -> (Exit, Option<String>) {
    let (program, signal, own) = match ending.end {
        End::Program(Ended::Exited(code)) => (code.rem_euclid(256) as u8, None, Reason::Exited),
        End::Program(Ended::Signaled(signal)) => (
            128_u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
            Some(signal),
            Reason::Signal,
        ),
        End::ShimDied => (121, None, Reason::ShimDied),
    };
    let reason = match ending.cause {
        Some(cause) => cause,
        None if ending.rest.unkillable => Reason::Unkillable,
        None => own,
    };
    let exit = Exit {
        code: exit_code(reason, program),
        signal,
        reason,
    };
    let lost = ending.rest.output_lost.as_ref();
    let lost = lost.map(|what| format!("output of the program {what}"));
    (exit, ending.detail.clone().or(lost))
}

fn exec_arguments(plan: &Plan, secrets: &[Given]) -> Result<ExecArguments, RunError> {
    let command = plan.policy.command.as_ref().ok_or_else(|| {
        RunError::internal("find the program")(std::io::ErrorKind::NotFound.into())
    })?;
    let argv: Result<Vec<CString>, RunError> = command
        .argv
        .iter()
        .map(|word| c_string(word.as_ref()))
        .collect();
    let given = |secret: &Given| match &secret.form {
        SecretForm::Variable(name) => Some((name.clone(), secret.value.clone())),
        SecretForm::File => None,
    };
    let given: BTreeMap<String, Vec<u8>> = secrets.iter().filter_map(given).collect();
    let others = plan.env.iter().filter(|(key, _)| !given.contains_key(*key));
    let others = others.map(|(key, value)| (key, value.as_bytes()));
    let envp: Result<Vec<CString>, RunError> = others
        .chain(given.iter().map(|(key, value)| (key, value.as_slice())))
        .map(|(key, value)| c_string(OsStr::from_bytes(&[key.as_bytes(), b"=", value].concat())))
        .collect();
    Ok(ExecArguments::new(
        c_string(command.path.as_os_str())?,
        argv?,
        envp?,
    ))
}

fn c_string(text: &OsStr) -> Result<CString, RunError> {
    CString::new(text.as_bytes()).map_err(|_| {
        RunError::internal("hand over a text with a NUL byte")(
            std::io::ErrorKind::InvalidInput.into(),
        )
    })
}
