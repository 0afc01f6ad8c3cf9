// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask`: the repository's own commands.

fn main() -> anyhow::Result<()> {
    Ok(())
}
