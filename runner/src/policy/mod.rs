// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was typed ([`schema`]), read through one descriptor (`source`), and what it means
//! ([`model`]). Reads no clock and makes no system call but through [`facts::Facts`].

pub(crate) mod address;
pub mod below;
pub mod error;
pub mod facts;
pub mod keys;
pub mod kits;
mod layers;
pub mod model;
pub mod name;
mod params;
pub mod pattern;
pub mod quantity;
pub(crate) mod resolve;
pub mod review;
pub mod schema;
mod source;
mod tree;
pub(crate) mod variables;
pub mod window;

use std::path::PathBuf;

pub use error::{PolicyError, PolicyErrors};
use facts::Facts;
use layers::Layer;
use model::Policy;
pub use resolve::{PATH, SECRETS_DIR};
use review::Finding;

/// What a policy is loaded for.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// `--policy`: a path, or a name.
    pub policy: String,
    /// The current directory, absolute: what relative paths of the command line start from.
    pub directory: PathBuf,
    /// `--workdir`.
    pub workdir: Option<PathBuf>,
    /// `--set`, in order.
    pub sets: Vec<(String, String)>,
    /// The command line; empty when none was given.
    pub command: Vec<String>,
    /// A program will be started: a missing one, and a parameter without a value, are
    /// mistakes. A mere check leaves them open.
    pub needs_command: bool,
}

/// Loads a policy: everything that is wrong with it at once, or what it means.
pub fn load(request: &LoadRequest, facts: &dyn Facts) -> Result<Policy, PolicyErrors> {
    read(request, facts).map(|(policy, _)| policy)
}

/// The same, with what of it could be narrower.
pub fn load_reviewed(
    request: &LoadRequest,
    facts: &dyn Facts,
) -> Result<(Policy, Vec<Finding>), PolicyErrors> {
    let (policy, layers) = read(request, facts)?;
    let findings = review::findings(&policy, &layers);
    Ok((policy, findings))
}

fn read(request: &LoadRequest, facts: &dyn Facts) -> Result<(Policy, Vec<Layer>), PolicyErrors> {
    let mut errors = PolicyErrors::new();
    let caller = match facts.caller() {
        Ok(caller) => caller,
        Err(error) => {
            errors.add_unplaced("caller", error.to_string(), error::REFUSED);
            return Err(errors);
        }
    };
    let main = source::locate(
        &request.policy,
        &request.directory,
        &caller,
        facts,
        &mut errors,
    );
    let policy = main.and_then(|main| {
        let layers = layers::read(main, &caller, facts, &mut errors);
        // A text that is not TOML has no keys: what would be missed in it is no news.
        if layers.iter().any(|layer| layer.broken) {
            return None;
        }
        let policy = resolve::resolve(request, &layers, caller, facts, &mut errors)?;
        Some((policy, layers))
    });
    match policy {
        Some(read) if errors.is_empty() => Ok(read),
        _ => {
            errors.sort();
            Err(errors)
        }
    }
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
