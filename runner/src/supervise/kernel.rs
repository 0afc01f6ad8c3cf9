// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel knows of a run, from whichever program: addresses and files read alike.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::names::Ledger;
use crate::plan::{Plan, RuleKind};
use crate::record::event::{Denial, Op, Usage};
use crate::watch::files::{Files, HostAndView, Tree, add_denied};
use crate::watch::lsm::Lsm;
use crate::watch::{Decoded, Run, Tallies, WatchError};

/// The programs of a run, those that count its files, or why there are none, and what looks at the
/// paths that the agent tried.
pub type Watched = (Run, Result<Files, Option<String>>, Option<Lsm>, HostAndView);

/// The kernel side of a run that lives. One without programs knows nothing of what its agent did,
/// and says so.
pub struct Kernel<'a> {
    /// In front of the run, so that it goes first: the run gives back the slot of both.
    files: Option<Files>,
    lsm: Option<Lsm>,
    run: Option<Run>,
    tree: Tree<'a>,
    sight: Option<HostAndView>,
    /// What resolver and relay refused.
    ledger: Arc<Ledger>,
    /// By counter row: whether the rule takes access to files away.
    takes_away: Vec<bool>,
    /// By counter row: whether LSM programs count the rule's refusals.
    by_kernel: Vec<bool>,
    /// By counter row: whether the rule's refusals are counted and not shown.
    quiet: Vec<bool>,
    /// Why files are not counted, when they are not.
    uncounted: Option<String>,
}

impl<'a> Kernel<'a> {
    /// That of a plan's run.
    pub fn new(plan: &'a Plan, watched: Option<Watched>) -> Self {
        let (run, files, lsm, sight) = match watched {
            Some((run, files, lsm, sight)) => (Some(run), files, lsm, Some(sight)),
            None => (None, Err(None), None, None),
        };
        let (files, uncounted) = match files {
            Ok(files) => (Some(files), None),
            Err(why) => (None, why),
        };
        Self {
            run,
            files,
            lsm,
            tree: Tree::of(plan),
            sight,
            ledger: Arc::default(),
            quiet: plan.rules.iter().map(|rule| rule.info.quiet).collect(),
            by_kernel: (0..plan.rules.len())
                .map(|row| plan.taken.iter().any(|taken| taken.row as usize == row))
                .collect(),
            takes_away: plan
                .rules
                .iter()
                .map(|rule| matches!(rule.kind, RuleKind::Protect | RuleKind::Deny))
                .collect(),
            uncounted,
        }
    }

    /// Where resolver and relay note what they refuse.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// A descriptor that is readable when events wait.
    pub fn ring(&self) -> std::io::Result<Option<OwnedFd>> {
        let run = self.run.as_ref();
        run.map(|run| run.ring_fd().try_clone_to_owned())
            .transpose()
    }

    /// Takes at most `limit` events: the first refusals of their targets, and whether there
    /// may be more events.
    pub fn drain(&mut self, limit: usize) -> (Vec<Denial>, bool) {
        let mut fresh = Vec::new();
        let Some(run) = &mut self.run else {
            return (fresh, false);
        };
        let clock = run.clock();
        let (files, lsm) = (&mut self.files, &mut self.lsm);
        let (tree, sight) = (&self.tree, &self.sight);
        let more = run.drain(limit, |event| match event {
            Decoded::Denial(denial) => fresh.push(denial),
            Decoded::File(news) => {
                if let (Some(files), Some(sight)) = (&mut *files, sight) {
                    fresh.extend(files.failures.note(news, tree, sight, &clock));
                }
            }
            Decoded::Taken(news) => {
                if let Some(lsm) = &mut *lsm {
                    fresh.extend(lsm.refusals.note(news, &clock));
                }
            }
            Decoded::Unknown => {}
        });
        (fresh, more)
    }

    /// Every distinct refusal with its exact count so far. While the run lives, those of which an
    /// event is still to come are left out.
    pub fn denials(&self, lives: bool) -> Result<Vec<Denial>, WatchError> {
        let Some(run) = &self.run else {
            return Ok(Vec::new());
        };
        let mut denials = run.denials()?;
        if let Some(files) = &self.files {
            denials.extend(files.denials(&run.clock(), lives)?);
        }
        if let Some(lsm) = &self.lsm {
            denials.extend(lsm.refusals.denials(&run.clock()).map_err(Box::new)?);
        }
        denials.extend(self.ledger.denials());
        Ok(denials)
    }

    /// Counters of each rule so far; `denials` are those of the same moment.
    pub fn usage(&self, denials: &[Denial]) -> Result<Vec<Usage>, WatchError> {
        let Some(run) = &self.run else {
            return Ok(vec![Usage::default(); self.quiet.len()]);
        };
        let mut usage = run.usage()?;
        let of_names = |denial: &Denial| denial.op == Op::Resolve || !denial.reason.is_empty();
        let uncounted: Vec<Denial> = denials
            .iter()
            .filter(|denial| denial.op.is_of_files() || of_names(denial))
            // Those of LSM programs are counted where they refuse.
            .filter(|denial| {
                let row = denial.row.and_then(|row| self.by_kernel.get(row as usize));
                row != Some(&true)
            })
            .cloned()
            .collect();
        add_denied(&mut usage, &uncounted);
        for (row, count) in self.ledger.others() {
            if let Some(usage) = row.and_then(|row| usage.get_mut(row as usize)) {
                usage.denied = Some(usage.denied.unwrap_or(0) + count);
            }
        }
        if self.files.is_some() {
            // What takes away lets nothing pass, and its refusals are all counted above.
            for (usage, _) in usage
                .iter_mut()
                .zip(&self.takes_away)
                .filter(|(_, away)| **away)
            {
                usage.allowed = Some(0);
                usage.denied = usage.denied.or(Some(0));
            }
        }
        Ok(usage)
    }

    /// What the tables and the ring had no room for, after the last event: also those of which
    /// no event told.
    pub fn last_tallies(&self, denials: &[Denial], usage: &[Usage]) -> Result<Tallies, WatchError> {
        let mut tallies = self.tallies(denials, usage)?;
        if let Some(files) = &self.files {
            tallies.unjudged += files.unjudged()?;
        }
        Ok(tallies)
    }

    /// What the tables and the ring had no room for so far; `denials` and `usage` are those of
    /// the same moment.
    pub fn tallies(&self, denials: &[Denial], usage: &[Usage]) -> Result<Tallies, WatchError> {
        let Some(run) = &self.run else {
            return Ok(Tallies::default());
        };
        let mut tallies = run.tallies()?;
        let others = self.ledger.others();
        tallies.other_addresses += others.iter().map(|(_, count)| count).sum::<u64>();
        // A rule's counter knows all of its refusals, the table the first targets.
        let by_quiet: u64 = usage
            .iter()
            .zip(&self.quiet)
            .filter(|(_, quiet)| **quiet)
            .filter_map(|(usage, _)| usage.denied)
            .sum();
        let told: u64 = denials
            .iter()
            .filter(|denial| is_quiet(&self.quiet, denial))
            .map(|denial| denial.count)
            .sum();
        tallies.quiet = by_quiet.saturating_sub(told).min(tallies.other_addresses);
        tallies.other_addresses -= tallies.quiet;
        if let Some(files) = &self.files {
            tallies.other_paths += files.failures.others()?;
        }
        Ok(tallies)
    }

    /// Fails when a program that enforces is no longer where it was attached. One that only
    /// counts makes the counts unknown.
    pub fn verify(&mut self) -> Result<(), WatchError> {
        self.verify_counting();
        if let Some(lsm) = &self.lsm {
            lsm.verify().map_err(Box::new)?;
        }
        self.run.as_ref().map_or(Ok(()), Run::verify)
    }

    /// Files whose programs are no longer where they were attached are counted no more.
    pub fn verify_counting(&mut self) {
        if self.uncounted.is_none()
            && let (Some(run), Some(files)) = (&mut self.run, &self.files)
            && let Err(error) = files.check_attached()
        {
            // What was refused until now stays on paper.
            self.uncounted = Some(error.to_string());
            run.forget_files();
        }
    }

    /// Why files are not counted, when that was not known before the start.
    pub fn uncounted(&self) -> Option<&str> {
        self.uncounted.as_deref()
    }
}

fn is_quiet(quiet: &[bool], denial: &Denial) -> bool {
    denial
        .row
        .and_then(|row| quiet.get(row as usize))
        .is_some_and(|quiet| *quiet)
}
