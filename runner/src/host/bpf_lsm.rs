// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether BPF LSM programs load and run, and if not, what of the three that it takes is missing
//! here: the kernel's option, its types, or `bpf` in the list of active LSMs.

use std::path::Path;

use aya_obj::btf::{Btf, BtfError, BtfKind};

use super::Capability;
use super::probe::read_kernel_file;
use crate::sys::{SysError, bpf_trial};

/// What is known of the kernel's side.
#[derive(Clone, Debug)]
enum Hook {
    /// The BTF id of the hook `bpf_lsm_file_open`.
    Number(u32),
    /// The kernel's types have no such hook.
    Missing,
    /// The kernel's types cannot be read, and why.
    NoTypes(String),
}

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// Nothing.
    None,
    /// Whether it works.
    Use,
    /// That, and what the kernel is built with where it does not: it takes a while.
    Cause,
}

/// Whether LSM programs load and run. A kernel may list `bpf` and refuse the programs, or load
/// them and never run them, which is so where `bpf` is not in the list.
pub(super) fn bpf_lsm(list: &str, trial: Trial) -> Capability {
    if trial == Trial::None {
        return Capability::no("it was not tried", "lp-run doctor tries it");
    }
    if list.is_empty() {
        // Advice made from a list that cannot be seen would switch off what is in it.
        return Capability::no(
            "the list of active LSMs cannot be read",
            "ask again as root; /sys/kernel/security/lsm names them",
        );
    }
    if !list.split(',').any(|name| name == "bpf") {
        let hook = (trial == Trial::Cause).then(hook);
        return not_listed(list, hook.as_ref());
    }
    match hook() {
        Hook::Number(number) => match bpf_trial::lsm(number) {
            Ok(()) => Capability::Yes,
            Err(error) => refused(&error, &lockdown()),
        },
        other => not_built(&other, None),
    }
}

/// `bpf` is not in the list; a line helps only where the kernel has what it names.
fn not_listed(list: &str, hook: Option<&Hook>) -> Capability {
    let line = lsm_line(list, "bpf");
    let why = format!("`bpf` is not among the active LSMs ({list})");
    let add = format!("add {line} to the kernel's command line and reboot");
    match hook {
        Some(Hook::Number(_)) => Capability::no(&why, &add),
        None => Capability::no(
            &why,
            &format!("{add} (lp-run doctor says whether this kernel is built for it)"),
        ),
        Some(other) => not_built(other, Some(&line)),
    }
}

/// The kernel lacks an option, and perhaps the line too.
fn not_built(hook: &Hook, line: Option<&str>) -> Capability {
    let then = line.map_or(String::new(), |line| format!(", and boot it with {line}"));
    match hook {
        Hook::NoTypes(why) => Capability::no(
            &format!("the kernel's types cannot be read: {why}"),
            &format!("use a kernel with CONFIG_DEBUG_INFO_BTF=y and CONFIG_BPF_LSM=y{then}"),
        ),
        _ => Capability::no(
            "this kernel is built without CONFIG_BPF_LSM",
            &format!("use a kernel with CONFIG_BPF_LSM=y{then}"),
        ),
    }
}

/// All is there, and the kernel says no.
fn refused(error: &SysError, lockdown: &str) -> Capability {
    let why = format!("{}: {}", error.call, error.source);
    let remedy = match error.errno() {
        libc::EPERM | libc::EACCES if lockdown.contains("[confidentiality]") => {
            "boot with lockdown=integrity, or none: lockdown=confidentiality forbids LSM programs"
        }
        libc::EPERM | libc::EACCES => {
            "ask who runs this machine: `bpf` is built in and active, and a container, a virtual \
             machine's host or a policy of the kernel forbids LSM programs"
        }
        libc::ENOSYS => "use Linux 6.1 or later",
        _ => "use a kernel with CONFIG_BPF_LSM=y",
    };
    Capability::no(&why, remedy)
}

/// The state of lockdown; empty where there is none.
fn lockdown() -> String {
    let mounted = Path::new("/sys/kernel/security");
    read_kernel_file(c"securityfs", mounted, "lockdown").unwrap_or_default()
}

/// The `lsm=` parameter with `wanted` added to this machine's own list: a generic one would
/// switch off what the distribution relies on. `capability` is always there and never named.
pub fn lsm_line(list: &str, wanted: &str) -> String {
    let mut names: Vec<&str> = list
        .split(',')
        .filter(|name| !["", "capability", wanted].contains(name))
        .collect();
    match wanted {
        // Landlock stands before the others, bpf behind them.
        "landlock" => names.insert(0, wanted),
        _ => names.push(wanted),
    }
    format!("lsm={}", names.join(","))
}

fn hook() -> Hook {
    let btf = match Btf::from_sys_fs() {
        Ok(btf) => btf,
        Err(error) => return Hook::NoTypes(error.to_string()),
    };
    match btf.id_by_type_name_kind("bpf_lsm_file_open", BtfKind::Func) {
        Ok(number) => Hook::Number(number),
        Err(BtfError::UnknownBtfTypeName { .. }) => Hook::Missing,
        Err(error) => Hook::NoTypes(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(capability: &Capability) -> (&str, &str) {
        match capability {
            Capability::Yes => ("", ""),
            Capability::No { why, remedy } => (why, remedy),
        }
    }

    #[test]
    fn the_kernel_line_keeps_this_machines_list() {
        let ubuntu = "lockdown,capability,landlock,yama,apparmor";
        assert_eq!(
            lsm_line(ubuntu, "bpf"),
            "lsm=lockdown,landlock,yama,apparmor,bpf"
        );
        assert_eq!(lsm_line("capability,yama", "landlock"), "lsm=landlock,yama");
        assert_eq!(lsm_line("", "bpf"), "lsm=bpf");
    }

    #[test]
    fn the_line_is_advised_where_the_kernel_has_the_hooks_and_the_option_where_not() {
        let list = "capability,landlock,yama";
        let expected = "add lsm=landlock,yama,bpf to the kernel's command line and reboot";
        let answer = not_listed(list, Some(&Hook::Number(7)));
        let (why, remedy) = parts(&answer);
        assert!(why.contains("active LSMs (capability,"), "{why}");
        assert_eq!(remedy, expected);
        let unknown = not_listed(list, None);
        let remedy = parts(&unknown).1;
        assert!(remedy.starts_with(expected) && remedy.contains("lp-run doctor"));
        let answer = not_listed(list, Some(&Hook::Missing));
        let (why, remedy) = parts(&answer);
        assert_eq!(why, "this kernel is built without CONFIG_BPF_LSM");
        assert_eq!(
            remedy,
            "use a kernel with CONFIG_BPF_LSM=y, and boot it with lsm=landlock,yama,bpf"
        );
        let answer = not_listed(list, Some(&Hook::NoTypes("no file".to_owned())));
        assert!(parts(&answer).1.contains("CONFIG_DEBUG_INFO_BTF=y"));
    }

    #[test]
    fn a_program_that_is_refused_names_who_may_have_refused_it() {
        let error = SysError {
            call: "bpf BPF_PROG_LOAD",
            source: std::io::Error::from_raw_os_error(libc::EPERM),
        };
        let locked = refused(&error, "none integrity [confidentiality]\n");
        assert!(parts(&locked).1.starts_with("boot with lockdown=integrity"));
        let other = refused(&error, "none [integrity] confidentiality\n");
        assert!(parts(&other).1.starts_with("ask who runs this machine"));
    }

    #[test]
    fn nothing_is_advised_from_a_list_that_cannot_be_read() {
        let answer = bpf_lsm("", Trial::Cause);
        assert!(!parts(&answer).1.contains("lsm="), "{answer:?}");
        assert!(parts(&bpf_lsm("bpf", Trial::None)).0.contains("not tried"));
    }
}
