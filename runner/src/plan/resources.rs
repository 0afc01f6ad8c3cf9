// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory, processes and processor time: what holds each limit on this host. Controllers of
//! cgroup v2 first, a hierarchy of version 1 where only that has one, a resource limit of the
//! process where it means the same, and a gap where nothing can hold it.

use crate::host::{Controller, Host, Means};
use crate::policy::model::Limits;

/// A limit of the run as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of memory.
    Memory(u64),
    /// Processes and threads at once.
    Processes(u64),
    /// Percent of one processor.
    Cpu(u32),
}

impl Resource {
    /// Its key in `[limits]`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Processes(_) => "processes",
            Self::Cpu(_) => "cpu",
        }
    }

    /// The controller of cgroups(7) that it takes.
    pub fn controller(self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Processes(_) => "pids",
            Self::Cpu(_) => "cpu",
        }
    }
}

/// What holds a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A controller of cgroup v2, or of version 1.
    Controller(Controller),
    /// `RLIMIT_NPROC`, where nobody but the run has its uid. The number is what else of the run
    /// counts with the agent: without root, lp-run and the run's first process.
    Rlimit(u64),
}

impl Holder {
    /// As the plan names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Controller(Controller { legacy: None, .. }) => "cgroup-v2",
            Self::Controller(_) => "cgroup-v1",
            Self::Rlimit(_) => "rlimit",
        }
    }
}

/// A limit and what holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// What, and how much.
    pub resource: Resource,
    /// By what.
    pub holder: Holder,
}

/// The limits of a policy that need more than what every host has.
pub fn wanted(limits: &Limits) -> impl Iterator<Item = Resource> {
    [
        limits.memory.map(Resource::Memory),
        limits.processes.map(Resource::Processes),
        limits.cpu.map(Resource::Cpu),
    ]
    .into_iter()
    .flatten()
}

/// What holds it on this host; `own_uid`: the run has a uid that nobody else has.
pub fn holder(resource: Resource, host: &Host, own_uid: bool) -> Option<Holder> {
    let mut controllers = host.controllers.iter();
    let by_name = controllers.find(|one| one.name == resource.controller());
    match (by_name, resource, host.means) {
        (Some(controller), ..) => Some(Holder::Controller(controller.clone())),
        (None, Resource::Processes(_), Means::Root) if own_uid => Some(Holder::Rlimit(0)),
        // Counted for each user namespace by itself (user_namespaces(7), kernel/ucount.c).
        (None, Resource::Processes(_), Means::UserNamespace) => Some(Holder::Rlimit(2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_held_by_the_best_that_there_is() {
        let host = Host::emulated(7);
        let by_root = |host: &Host, resource| holder(resource, host, true);
        let memory = Controller {
            name: "memory".to_owned(),
            legacy: None,
        };
        let held = by_root(&host, Resource::Memory(1));
        assert_eq!(held, Some(Holder::Controller(memory)));
        let bare = Host {
            controllers: Vec::new(),
            ..host
        };
        let processes = Resource::Processes(9);
        assert_eq!(by_root(&bare, processes), Some(Holder::Rlimit(0)));
        assert_eq!(holder(processes, &bare, false), None);
        assert_eq!(by_root(&bare, Resource::Memory(1)), None);
        assert_eq!(by_root(&bare, Resource::Cpu(50)), None);
        let given = Host::emulated_without_root(7);
        assert_eq!(holder(processes, &given, false), Some(Holder::Rlimit(2)));
        let alone = Host::emulated_alone(7);
        assert_eq!(holder(processes, &alone, false), None);
    }
}
