// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the file programs must know of the running kernel before they are loaded.

use aya::EbpfLoader;
use lp_run_common::files::Layout;

use super::super::btf::{Btf, BtfError};

/// The read-only globals of the file programs. Setting them is what makes the programs work:
/// without, every way leads nowhere and nothing is counted.
#[derive(Clone, Copy, Debug)]
pub struct Globals {
    /// `FILE_LAYOUT`.
    pub layout: Layout,
    /// `FILE_HASH_KEY`.
    pub hash_key: [u64; 2],
}

impl Globals {
    /// Those for the running kernel, with a fresh hash key. Takes milliseconds: the kernel's
    /// types are read once per load of the object, not once per run.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        let layout = layout(&Btf::of_running_kernel()?)?;
        Ok(Self {
            layout,
            hash_key: random_key(),
        })
    }
}

/// The global `FILE_LAYOUT` of the kernel side.
const LAYOUT: &str = "FILE_LAYOUT";
/// The global `FILE_HASH_KEY` of the kernel side.
const HASH_KEY: &str = "FILE_HASH_KEY";

impl Globals {
    /// Sets them in the object that `loader` is going to load.
    pub fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader
            .override_global(LAYOUT, &self.layout, true)
            .override_global(HASH_KEY, &self.hash_key, true);
    }
}

/// The offsets that a kernel's types give.
fn layout(btf: &Btf) -> Result<Layout, BtfError> {
    let registers = registers(btf)?;
    Ok(Layout {
        task_files: btf.offset("task_struct.files")?,
        task_fs: btf.offset("task_struct.fs")?,
        task_mm: btf.offset("task_struct.mm")?,
        mm_exe_file: btf.offset("mm_struct.exe_file")?,
        fs_pwd: btf.offset("fs_struct.pwd")?,
        files_fdt: btf.offset("files_struct.fdt")?,
        fdt_max_fds: btf.offset("fdtable.max_fds")?,
        fdt_fd: btf.offset("fdtable.fd")?,
        file_path: btf.offset("file.f_path")?,
        file_mode: btf.offset("file.f_mode")?,
        file_inode: btf.offset("file.f_inode")?,
        path_mnt: btf.offset("path.mnt")?,
        path_dentry: btf.offset("path.dentry")?,
        dentry_parent: btf.offset("dentry.d_parent")?,
        dentry_inode: btf.offset("dentry.d_inode")?,
        dentry_name: btf.offset("dentry.d_name.name")?,
        inode_number: btf.offset("inode.i_ino")?,
        mnt_root: btf.offset("vfsmount.mnt_root")?,
        mount_mnt: btf.offset("mount.mnt")?,
        mount_parent: btf.offset("mount.mnt_parent")?,
        mount_mountpoint: btf.offset("mount.mnt_mountpoint")?,
        arguments: registers,
        reserved: 0,
    })
}

/// Where `pt_regs` keeps the first four arguments of a system call (syscall(2)); they are still
/// there when it returns, but for the first one of aarch64, whose register takes the result.
fn registers(btf: &Btf) -> Result<[u32; 4], BtfError> {
    if cfg!(target_arch = "aarch64") {
        let first = btf.offset("pt_regs.regs")?;
        return Ok([
            btf.offset("pt_regs.orig_x0")?,
            first + 8,
            first + 16,
            first + 24,
        ]);
    }
    Ok([
        btf.offset("pt_regs.di")?,
        btf.offset("pt_regs.si")?,
        btf.offset("pt_regs.dx")?,
        btf.offset("pt_regs.r10")?,
    ])
}

/// Two words that nobody can guess: the standard library seeds its hash tables from the
/// kernel's generator.
fn random_key() -> [u64; 2] {
    use std::hash::{BuildHasher as _, RandomState};
    [
        RandomState::new().hash_one(0_u8),
        RandomState::new().hash_one(1_u8),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_member() {
        if !std::path::Path::new(super::super::super::btf::KERNEL).exists() {
            eprintln!("skipped: this kernel shows no types");
            return;
        }
        let globals = Globals::of_running_kernel().unwrap();
        assert!(globals.layout.dentry_parent < globals.layout.dentry_inode);
        assert_ne!(
            globals.hash_key,
            Globals::of_running_kernel().unwrap().hash_key
        );
    }
}
