// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which LSM hooks the running kernel has, and what it calls with them.

use aya::EbpfLoader;
use aya::programs::{Lsm, ProgramError};
use lp_run_common::lsm::*;

use super::{HOOKS, Hook};
use crate::sys::SysError;
use crate::watch::btf::{Btf, BtfError};

/// The global `LSM_LAYOUT` of the kernel side.
const LAYOUT: &str = "LSM_LAYOUT";

/// A kernel that runs LSM programs.
pub struct Kernel {
    layout: LsmLayout,
    hooks: Vec<&'static Hook>,
    /// aya's own reading of the types, which loading asks for.
    types: aya::Btf,
}

/// Why there are no LSM programs.
#[derive(Debug, thiserror::Error)]
pub enum NoLsm {
    /// The kernel does not show its types, or not these.
    #[error("find the kernel's hooks for LSM programs")]
    Types(#[from] BtfError),
    /// Another reader of the same types.
    #[error("read the kernel's types")]
    Read(#[from] aya::BtfError),
    /// The smallest program was refused.
    #[error("load an LSM program")]
    Refused(#[source] SysError),
}

impl Kernel {
    /// The running one, if it takes an LSM program.
    pub fn running() -> Result<Self, NoLsm> {
        let btf = Btf::of_running_kernel()?;
        let first = "bpf_lsm_file_open";
        let id = btf
            .function(first)
            .ok_or_else(|| BtfError::Missing(first.to_owned()))?;
        crate::sys::bpf_trial::lsm(id).map_err(NoLsm::Refused)?;
        let has = |hook: &Hook| btf.function(&format!("bpf_lsm_{}", hook.name)).is_some();
        let hooks: Vec<&Hook> = HOOKS.iter().filter(|hook| has(hook)).collect();
        if let Some(missing) = HOOKS.iter().find(|hook| !hook.later && !has(hook)) {
            return Err(BtfError::Missing(missing.name.to_owned()).into());
        }
        Ok(Self {
            layout: layout(&btf, &hooks)?,
            hooks,
            types: aya::Btf::from_sys_fs()?,
        })
    }

    /// Sets what differs between kernels in the object that `loader` is going to load.
    pub fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global(LAYOUT, &self.layout, true);
    }

    /// Names of the programs whose hooks this kernel has.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> {
        self.hooks.iter().map(|hook| hook.program)
    }

    /// Has a program verified for its hook.
    pub fn load(&self, name: &str, program: &mut Lsm) -> Result<(), ProgramError> {
        let hook = self.hooks.iter().find(|hook| hook.program == name);
        let hook = hook.ok_or(ProgramError::UnexpectedProgramType)?;
        program.load(hook.name, &self.types)
    }
}

fn layout(btf: &Btf, hooks: &[&Hook]) -> Result<LsmLayout, BtfError> {
    let dentry = |hook: &str| match hooks.iter().any(|known| known.name == hook) {
        true => btf.parameter(&format!("bpf_lsm_{hook}.dentry")),
        false => Ok(0),
    };
    Ok(LsmLayout {
        setattr: dentry("inode_setattr")?,
        setxattr: dentry("inode_setxattr")?,
        removexattr: dentry("inode_removexattr")?,
        set_acl: dentry("inode_set_acl")?,
        remove_acl: dentry("inode_remove_acl")?,
        unix_path: btf.offset("unix_sock.path")?,
        inode_mode: btf.offset("inode.i_mode")?,
        dentry_flags: btf.offset("dentry.d_flags")?,
        dentry_length: btf.offset("dentry.d_name.len")?,
        socket_sk: btf.offset("socket.sk")?,
        file_flags: btf.offset("file.f_flags")?,
        attr_valid: btf.offset("iattr.ia_valid")?,
        call_number: btf.offset("pt_regs.orig_ax")?,
        counted: [
            libc::SYS_open,
            libc::SYS_creat,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_execve,
            libc::SYS_execveat,
        ]
        .map(|number| number as u32),
        reserved: 0,
    })
}
