// SPDX-License-Identifier: MIT OR Apache-2.0
//! The floor: the least that confines a program. Landlock with 20 rules, a seccomp filter that
//! refuses a handful of calls, `no_new_privs`, then exec. No namespaces, no identity, no counting:
//! what a run of lp-run costs above this is the price of what it does above this.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Rights to a file system of Landlock's first ABI: all 13 bits.
const HANDLED: u64 = (1 << 13) - 1;
/// Execute, read a file, read a directory.
const READ: u64 = 1 | 1 << 2 | 1 << 3;
/// Write a file, remove one, make one.
const WRITE: u64 = 1 << 1 | 1 << 5 | 1 << 8;

/// How many rules the ruleset has.
const RULES: usize = 20;

/// Calls that the filter refuses with EPERM.
const REFUSED: [i64; 8] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_ptrace,
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_unshare,
    libc::SYS_setns,
];

/// Confines this process to reading and running programs and to writing in `folder`, and becomes
/// `command`.
pub fn run(folder: &str, command: &[&str]) -> Result<()> {
    let [program, arguments @ ..] = command else {
        bail!("the floor needs a command")
    };
    let ruleset = ruleset(folder)?;
    check(call(
        libc::SYS_prctl,
        &[libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0],
    ))
    .context("set no_new_privs")?;
    check(call(libc::SYS_landlock_restrict_self, &[ruleset, 0])).context("restrict by Landlock")?;
    filter().context("install the seccomp filter")?;
    Err(Command::new(program).args(arguments).exec()).context("start the command")
}

fn ruleset(folder: &str) -> Result<usize> {
    let handled = [HANDLED];
    let ruleset = check(call(
        libc::SYS_landlock_create_ruleset,
        &[address(&handled), 8, 0],
    ))
    .context("make a Landlock ruleset")?;
    // A few places, again and again: the number of rules is what costs.
    let own = std::env::current_exe().context("find this program's own file")?;
    let own = own.parent().unwrap_or(&own).to_string_lossy().into_owned();
    let places = ["/usr", "/lib", "/lib64", "/bin", "/etc", folder, &own];
    let mut rules = 0;
    for place in places.iter().cycle().take(4 * RULES) {
        let Ok(file) = File::open(place) else {
            continue;
        };
        let rule = PathBeneath {
            allowed: if *place == folder { READ | WRITE } else { READ },
            parent: file.as_raw_fd(),
        };
        let kind = 1; // LANDLOCK_RULE_PATH_BENEATH
        check(call(
            libc::SYS_landlock_add_rule,
            &[ruleset, kind, address(&rule), 0],
        ))
        .with_context(|| format!("grant {place}"))?;
        rules += 1;
        if rules == RULES {
            break;
        }
    }
    Ok(ruleset)
}

/// `struct landlock_path_beneath_attr` of linux/landlock.h.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

fn filter() -> io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (index, number) in REFUSED.iter().enumerate() {
        let to_refusal = (REFUSED.len() - index) as u8;
        let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        program.push(libc::sock_filter {
            code: equal,
            jt: to_refusal,
            jf: 0,
            k: *number as u32,
        });
    }
    program.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW,
    ));
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    program.push(statement(libc::BPF_RET | libc::BPF_K, refuse));
    let length = program.len() as u16;
    let whole = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    check(call(libc::SYS_seccomp, &[mode, 0, address(&whole)])).map(drop)
}

fn address<T>(value: &T) -> usize {
    &raw const *value as usize
}

fn check(answer: i64) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

fn call(number: i64, words: &[usize]) -> i64 {
    let mut all = [0usize; 5];
    all[..words.len()].copy_from_slice(words);
    // SAFETY: the pointers among the words are to values of the callers that outlive the call and
    // have the layout that the call reads; nothing is written through them.
    unsafe { libc::syscall(number, all[0], all[1], all[2], all[3], all[4]) }
}
