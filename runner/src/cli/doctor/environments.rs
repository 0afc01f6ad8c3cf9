// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of environments and protections: what a run has here for whoever starts it, from
//! wherever, each tried.

use serde::Serialize;

use super::{Finding, findings};
use crate::host::{Capability, Environment, Seen};

/// One environment with what it has.
#[derive(Debug, Serialize)]
pub(super) struct Column {
    environment: Environment,
    /// What it is.
    what: &'static str,
    /// `null`: it could not be taken on from here.
    protections: Option<Vec<Finding>>,
}

impl Column {
    /// That of an environment.
    pub(super) fn of(seen: Seen) -> Self {
        Self {
            environment: seen.environment,
            what: what(seen.environment),
            protections: seen.host.as_ref().map(findings),
        }
    }
}

const fn what(environment: Environment) -> &'static str {
    match environment {
        Environment::Root => "root",
        Environment::User => "any user, with user namespaces as this kernel gives them",
        Environment::Container => "root without CAP_SYS_ADMIN, as in a container",
        Environment::Restricted => "any user, with user namespaces refused",
    }
}

const fn heading(environment: Environment) -> &'static str {
    match environment {
        Environment::Root => "root",
        Environment::User => "user",
        Environment::Container => "container",
        Environment::Restricted => "restricted",
    }
}

/// The table, and what its words mean.
pub(super) fn table(columns: &[Column]) -> String {
    let mut lines = vec!["Tried for each environment that lp-run may be started in:".to_owned()];
    lines.push(String::new());
    let cells = columns.iter().map(|column| heading(column.environment));
    lines.push(line("", cells));
    let rows = columns
        .iter()
        .find_map(|column| column.protections.as_ref());
    for (number, row) in rows.into_iter().flatten().enumerate() {
        // The first row is by what right there is a run at all.
        let name = if number == 0 { "a run" } else { row.name };
        let cells = columns.iter().map(|column| {
            let findings = column.protections.as_ref();
            findings.and_then(|all| all.get(number)).map_or("?", word)
        });
        lines.push(line(name, cells));
    }
    lines.push(String::new());
    for column in columns {
        let untried = match column.protections {
            Some(_) => "",
            None => " (?: ask as root)",
        };
        let name = heading(column.environment);
        lines.push(format!("  {name:<12}{}{untried}", column.what));
    }
    lines.join("\n") + "\n"
}

fn line<'a>(name: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let cells: String = cells.map(|cell| format!("{cell:<12}")).collect();
    format!("  {name:<20}{cells}").trim_end().to_owned()
}

/// The words of the screen above.
fn word(finding: &Finding) -> &'static str {
    match &finding.capability {
        Capability::Yes | Capability::No { .. } if finding.part => "part",
        Capability::Yes => "yes",
        Capability::No { .. } if finding.is_gap() => "NO",
        Capability::No { .. } => "no",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::host::Host;

    #[test]
    fn the_table_reads_like_this() {
        let columns: Vec<Column> = [
            (Environment::Root, Some(Host::emulated(7))),
            (Environment::User, Some(Host::emulated_without_root(7))),
            (Environment::Container, None),
            (Environment::Restricted, Some(Host::emulated_alone(7))),
        ]
        .into_iter()
        .map(|(environment, host)| Column::of(Seen { environment, host }))
        .collect();
        expect![[r#"
            Tried for each environment that lp-run may be started in:

                                  root        user        container   restricted
              a run               yes         yes         ?           part
              landlock            yes         yes         ?           yes
              seccomp             yes         yes         ?           yes
              processes           yes         yes         ?           NO
              identity            yes         part        ?           part
              network             yes         part        ?           part
              unix-sockets        yes         yes         ?           yes
              file-deny           yes         part        ?           NO
              file-deny-pattern   yes         NO          ?           NO
              resource-limits     yes         yes         ?           yes
              audit               yes         yes         ?           yes
              memfds              yes         no          ?           no
              counts of files     yes         no          ?           no

              root        root
              user        any user, with user namespaces as this kernel gives them
              container   root without CAP_SYS_ADMIN, as in a container (?: ask as root)
              restricted  any user, with user namespaces refused
        "#]]
        .assert_eq(&table(&columns));
    }
}
