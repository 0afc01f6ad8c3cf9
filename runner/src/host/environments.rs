// SPDX-License-Identifier: MIT OR Apache-2.0
//! The environments that lp-run is started in, each tried on this machine: a child takes on what
//! the environment lacks and looks at the machine from there.

use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use serde::Serialize;

use super::{Depth, Host};
use crate::sys::{SysError, credentials, process, seccomp, trial};

/// Where lp-run may find itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Environment {
    /// Root with every capability of this process.
    Root,
    /// A user, and user namespaces as this kernel gives them.
    User,
    /// Root with the capabilities that container engines leave by default.
    Container,
    /// A user to whom user namespaces are refused, as many containers and some distributions do.
    Restricted,
}

/// An environment, and the machine as it looks from there.
#[derive(Debug, Serialize)]
pub struct Seen {
    /// Which.
    pub environment: Environment,
    /// `None`: only root can take it on.
    pub host: Option<Host>,
}

/// What container engines leave to root: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID,
/// SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const OF_A_CONTAINER: u64 = 0xa804_25fb;

/// Looks at this machine from each environment. Only while this process has one thread.
pub fn tried(here: &Host) -> Vec<Seen> {
    let root = geteuid().is_root();
    let all = [
        Environment::Root,
        Environment::User,
        Environment::Container,
        Environment::Restricted,
    ];
    let seen = |environment| match environment {
        Environment::Root if root => Some(here.clone()),
        Environment::User if !root => Some(here.clone()),
        Environment::Root | Environment::Container if !root => None,
        _ => from(environment),
    };
    let seen = all.map(|environment| Seen {
        environment,
        host: seen(environment),
    });
    seen.into()
}

/// The machine as a child sees it that has taken on the environment; `None` when it could not.
fn from(environment: Environment) -> Option<Host> {
    let bytes = trial::ask_child(|| {
        take_on(environment).ok()?;
        serde_json::to_vec(&Host::probe(Depth::Doctor)).ok()
    });
    serde_json::from_slice(&bytes.ok()?).ok()
}

fn take_on(environment: Environment) -> Result<(), SysError> {
    match environment {
        Environment::Root => Ok(()),
        Environment::User => become_a_user(),
        Environment::Container => credentials::keep_only(OF_A_CONTAINER),
        Environment::Restricted => {
            become_a_user()?;
            credentials::set_no_new_privs()?;
            seccomp::install(&seccomp::refusing(libc::SYS_unshare as u32))
        }
    }
}

/// The user that the kernel takes for nobody's: with no files and no rights of its own.
fn become_a_user() -> Result<(), SysError> {
    const NOBODY: u32 = 65_534;
    if !geteuid().is_root() {
        return Ok(());
    }
    let failed = |call| {
        move |errno: nix::Error| SysError {
            call,
            source: errno.into(),
        }
    };
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[]).map_err(failed("setgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    setresuid(uid, uid, uid).map_err(failed("setresuid"))?;
    // A change of the uid takes the process's own files below /proc away from it, which a program
    // that such a user starts has.
    process::set_dumpable().map_err(failed("prctl"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Means;

    #[test]
    fn each_environment_is_tried_from_inside() {
        if !geteuid().is_root() {
            return;
        }
        let here = Host::probe(Depth::Doctor);
        let seen = tried(&here);
        let host = |wanted: Environment| {
            let found = seen.iter().find(|seen| seen.environment == wanted);
            found.and_then(|seen| seen.host.as_ref()).unwrap()
        };
        assert_eq!(host(Environment::Root).means, Means::Root);
        assert!(!host(Environment::User).root.yes());
        assert_eq!(host(Environment::User).means, Means::UserNamespace);
        let container = host(Environment::Container);
        let super::super::Capability::No { why, .. } = &container.root else {
            panic!("{container:?}");
        };
        assert!(why.contains("CAP_SYS_ADMIN"), "{why}");
        assert!(!container.mounts.yes() && !container.cgroup_bpf.yes());
        assert!(!host(Environment::Restricted).user_namespace.yes());
        // What no environment takes away.
        for seen in &seen {
            let host = seen.host.as_ref().unwrap();
            assert!(host.seccomp.yes() && host.landlock_abi == here.landlock_abi);
        }
    }
}
