// SPDX-License-Identifier: MIT OR Apache-2.0
//! What lp-run keeps for a policy between its runs: `${STATE}` and `${CACHE}`.

use std::path::{Path, PathBuf};

use super::super::error::{REFUSED, quote};
use super::super::facts::{Object, OwnPlaces, mounts};
use super::super::model::{FileRule, RuleInfo, Target, Verb};
use super::Resolver;

/// Kept per policy, below which `${STATE}` lies.
pub(super) const STATE: &str = "/var/lib/lp-run/state";
/// Kept per policy, below which `${CACHE}` lies.
pub(super) const CACHE: &str = "/var/cache/lp-run";

impl Resolver<'_> {
    /// The directory below `base` that is kept for the policy. A user's policies have theirs
    /// apart, or a name would open what another's policy of that name has kept; without root all
    /// of it is the caller's.
    pub(super) fn kept(&self, base: &str) -> PathBuf {
        if let Some(OwnPlaces {
            kept: [state, cache],
            ..
        }) = self.facts.own_places()
        {
            let own = if base == STATE { state } else { cache };
            return own.join(&self.name);
        }
        let base = Path::new(base);
        match self.owner {
            0 => base.join(&self.name),
            // No policy can be called so.
            owner => base.join(format!("@{owner}")).join(&self.name),
        }
    }

    /// Whether a path is kept for this policy by lp-run.
    pub(super) fn is_kept(&self, path: &Path) -> bool {
        let mut kept = [STATE, CACHE].into_iter().map(|base| self.kept(base));
        kept.any(|own| path.starts_with(own))
    }

    /// Refuses a path that leads through a symbolic link inside what is kept: an agent of an
    /// earlier run placed it, and lp-run would follow it as root. It is not followed to see where
    /// it leads: that is nothing to tell.
    pub(super) fn check_kept_way(&self, path: &Path) -> Result<(), String> {
        let kept = [STATE, CACHE].map(|base| self.kept(base));
        let Some(mut here) = kept.into_iter().find(|own| path.starts_with(own)) else {
            return Ok(());
        };
        let below = path.strip_prefix(&here).unwrap_or(path).to_owned();
        for name in below.components() {
            let Ok(directory) = self.facts.open(&here, &self.trusted()) else {
                return Ok(());
            };
            here.push(name);
            if self.facts.is_link(&directory, name.as_os_str()) {
                return Err(format!(
                    "{} is a symbolic link that an agent could have placed; remove it, or write \
                     the path it leads to",
                    quote(&here.to_string_lossy())
                ));
            }
        }
        Ok(())
    }

    /// What lp-run keeps for others, and what it writes down, is nobody's to be granted.
    pub(super) fn check_kept(&self, object: &Object, shown: &str) -> Result<(), String> {
        let others = mounts::other_names(&self.mounts, object, &object.path);
        let own = [STATE, CACHE].map(|base| self.kept(base));
        let mine = self.facts.own_places().into_iter();
        let mine = mine.flat_map(|places| places.closed.into_iter().chain(places.kept));
        let mine: Vec<PathBuf> = mine.collect();
        let strange = |name: &Path| {
            let ours = ["/var/lib/lp-run", CACHE]
                .iter()
                .any(|place| name.starts_with(place))
                || mine.iter().any(|place| name.starts_with(place));
            ours && (self.name.is_empty() || !own.iter().any(|own| name.starts_with(own)))
        };
        match strange(&object.path) || others.iter().any(|name| strange(name)) {
            true => Err(format!(
                "{shown} is lp-run's own or kept for another policy; write ${{STATE}} or ${{CACHE}}"
            )),
            false => Ok(()),
        }
    }

    /// `identity.home = "state"` is a write grant on the kept home.
    pub(super) fn kept_home(&mut self) -> Option<FileRule> {
        let path = self.home.clone();
        if let Err(what) = self.check_kept_way(&path) {
            self.errors.add_unplaced("identity.home", what, REFUSED);
            return None;
        }
        let target = match self.facts.open(&path, &[]) {
            Ok(object) => Target::Object(object),
            Err(_) => {
                let parent = path
                    .ancestors()
                    .skip(1)
                    .find_map(|above| self.facts.open(above, &[]).ok())?;
                Target::Create {
                    parent,
                    path: path.clone(),
                }
            }
        };
        let key = "identity.home".to_owned();
        let text = path.to_string_lossy().into_owned();
        let place = self
            .layers
            .last()
            .map(|main| main.source.place())
            .unwrap_or_default();
        Some(FileRule {
            info: RuleInfo {
                key,
                text,
                place,
                ..RuleInfo::default()
            },
            verb: Verb::Write,
            targets: vec![target],
            exec: false,
            dangerous: None,
            mask_fallback: false,
        })
    }
}
