// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose rights an entry is judged with: root's word lends what root may, all else is held to the
//! caller's own.

use std::path::Path;

use super::super::facts::{FactError, Facts, Kind, Need, Object};
use super::super::layers::Layer;
use super::super::model::{UserChoice, Verb};
use super::super::schema::FileText;
use super::Resolver;

impl Resolver<'_> {
    /// Whether the caller's rights bound this policy: a caller who is not root, and a policy
    /// (or the layer of it that speaks) that is not root's.
    pub(super) fn held(&self, layer: &Layer) -> bool {
        self.caller.uid != 0 && (self.owner != 0 || layer.source.owner != 0)
    }

    /// Whether a path is held to the caller's own rights: by his own policy, or because he chose
    /// it, also under root's policy. What a parameter can be is root's choice: its pattern says.
    pub(super) fn holds(&self, layer: &Layer, text: &str) -> bool {
        let theirs = ["${WORKDIR}", "${GIT_DIR}", "${CALLER_HOME}", "${HOME}"];
        let chosen = theirs.iter().any(|name| text.contains(name));
        self.held(layer) || self.caller.uid != 0 && chosen
    }

    /// Whether a caller who is not root chose the program at `path`: by his own policy, by typing
    /// it, or with the work directory.
    pub(super) fn chosen(&self, path: &Path) -> bool {
        let main = self.layers.last();
        let typed = main.is_none_or(|main| main.schema.command.is_none());
        self.caller.uid != 0 && (self.owner != 0 || typed || path.starts_with(&self.workdir))
    }

    /// Whether the caller could use the object as needed.
    pub(super) fn caller_may(&self, object: &Object, need: Need) -> bool {
        self.facts.may(&self.caller, object, need)
    }

    /// Programs that the caller typed, and what follows from their place, their links and their
    /// `#!` lines, are held to his rights too: a grant reads them with the rights of their owner.
    pub(super) fn may_be_typed(&self, layer: &Layer, object: &Object) -> bool {
        let chosen = self.held(layer)
            || self.chosen(&object.path)
            || self.held_programs.contains(&object.path);
        !chosen || self.caller_may(object, Need::Run) && self.caller_may(object, Need::Read)
    }

    /// A caller who is not root gets nothing from his own policy that he could not use himself.
    pub(super) fn check_caller(
        &self,
        layer: &Layer,
        text: &FileText,
        verb: Verb,
        object: &Object,
        shown: &str,
    ) -> Result<(), String> {
        if self.is_kept(&object.path) || !self.holds(layer, &text.path.value) {
            return Ok(());
        }
        let name = &self.caller.name;
        let may = match verb {
            Verb::Exec => self.caller_may(object, Need::Run),
            _ => self.caller_may(object, Need::Read),
        };
        if !may {
            return Err(self.not_his(shown));
        }
        // A directory that the agent could read only as its owner would lend it all that the owner
        // has below, which a caller who may list the directory himself need not have.
        let open = object.mode & 0o5 == 0o5;
        if object.kind == Kind::Directory && object.uid != self.caller.uid && !open {
            return Err(format!(
                "{shown} belongs to another user and is not open to all, and the policy cannot lend \
                 its owner's rights to {name}; open it to others, or let root name it in the policy"
            ));
        }
        // The agent acts as the owner of what it may write.
        if verb == Verb::Write && object.uid != self.caller.uid {
            return Err(format!(
                "{shown} does not belong to {name}, and the policy cannot lend it; remove it"
            ));
        }
        // It would act with the group too, on what others put there for the group.
        let himself = matches!(self.identity.user, UserChoice::Caller);
        let lent = !himself && (verb == Verb::Write || !open);
        if object.kind == Kind::Directory && lent && !self.facts.in_group(&self.caller, object.gid)
        {
            return Err(format!(
                "{shown} belongs to group {}, in which {name} is not, and the policy cannot lend it; \
                 chgrp it",
                object.gid
            ));
        }
        Ok(())
    }

    /// What the caller's rights do not reach; the same words whether it exists or not.
    pub(super) fn not_his(&self, shown: &str) -> String {
        let name = &self.caller.name;
        format!("{name} may not use {shown}, and the policy cannot lend it; remove it")
    }

    /// Looks with the caller's own rights at what is `held` to them: no answer tells him more
    /// about the machine than he could find out himself.
    pub(super) fn look<T>(
        &self,
        held: bool,
        look: impl Fn(&dyn Facts) -> Result<T, FactError>,
    ) -> Result<T, FactError> {
        if !held {
            return look(self.facts);
        }
        let mut seen = None;
        let act = &mut || seen = Some(look(self.facts));
        self.facts.with_rights_of(&self.caller, act)?;
        seen.unwrap_or_else(|| Err(FactError::Caller("nothing was looked at".to_owned())))
    }

    /// Opens as [`Self::look`] looks.
    pub(super) fn open(
        &self,
        held: bool,
        path: &Path,
        trusted: &[u32],
    ) -> Result<Object, FactError> {
        self.look(held, |facts| facts.open(path, trusted))
    }
}
