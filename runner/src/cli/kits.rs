// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lp-run kits`: the kits inside this program.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use super::args::KitsArgs;
use super::output::{print, print_json};
use crate::policy::kits::{KITS, kit};

/// Lists the kits, or prints one.
pub fn run(args: &KitsArgs) -> anyhow::Result<ExitCode> {
    match (&args.name, args.json) {
        (None, true) => print_json(&json!(
            KITS.iter()
                .map(|kit| json!({"name": kit.name, "summary": kit.summary()}))
                .collect::<Vec<_>>()
        ))?,
        (None, false) => {
            for kit in KITS {
                print(&format!("{:<14} {}\n", kit.name, kit.summary()))?;
            }
        }
        (Some(name), as_json) => {
            let with_at = format!("@{}", name.trim_start_matches('@'));
            let kit = kit(&with_at).with_context(|| {
                let known: Vec<_> = KITS.iter().map(|kit| kit.name).collect();
                format!("no kit `{with_at}`; there are {}", known.join(" "))
            })?;
            if as_json {
                print_json(&json!({"name": kit.name, "text": kit.text}))?;
            } else {
                print(kit.text)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
