// SPDX-License-Identifier: MIT OR Apache-2.0
//! A policy held against the checklist of least privilege: what is wider than a task needs, and the
//! better habit. It is valid all the same; the grade is that of its weakest area.

mod areas;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::layers::Layer;
use super::model::{Place, Policy};

/// A heading of the checklist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// Which task, and who answers for it.
    Task,
    /// What it may read.
    Data,
    /// What it may run.
    Tools,
    /// What it may change and reach.
    Actions,
    /// Whose rights it has, and who may start it.
    Identity,
    /// What is checked of the values that come in, and of the protections.
    Validation,
    /// What is known of it afterwards.
    Monitoring,
    /// How it ends.
    Revocation,
}

/// All of them, in their order.
pub const AREAS: [Area; 8] = [
    Area::Task,
    Area::Data,
    Area::Tools,
    Area::Actions,
    Area::Identity,
    Area::Validation,
    Area::Monitoring,
    Area::Revocation,
];

impl Area {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Data => "data",
            Self::Tools => "tools",
            Self::Actions => "actions",
            Self::Identity => "identity",
            Self::Validation => "validation",
            Self::Monitoring => "monitoring",
            Self::Revocation => "revocation",
        }
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Could be narrower.
    Note,
    /// A part of least privilege is missing.
    Weak,
    /// Gives away what an attacker wants.
    Grave,
}

/// Something that could be narrower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stays the same from version to version.
    pub code: &'static str,
    /// Under which heading.
    pub area: Area,
    /// How much it weighs.
    pub weight: Weight,
    /// Where; the first line for what is missing.
    #[serde(skip)]
    pub place: Place,
    /// What, and why it matters.
    pub reason: String,
    /// What to do instead.
    pub habit: &'static str,
}

/// From A, nothing found, to F.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Grade {
    /// Nothing found.
    A,
    /// Notes alone.
    B,
    /// One weakness.
    C,
    /// Several, or something grave.
    D,
    /// More than one thing is grave.
    F,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Grade {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::A, Self::B, Self::C, Self::D, Self::F];
        let known = all.into_iter().find(|grade| grade.to_string() == text);
        known.ok_or_else(|| "is no grade; write A, B, C, D or F".to_owned())
    }
}

/// Everything that could be narrower, in the order of the checklist and of the file.
pub(super) fn findings(policy: &Policy, layers: &[Layer]) -> Vec<Finding> {
    let mut found = areas::all(policy, layers);
    found.sort_by_key(|finding| (finding.area, finding.place.line, finding.code));
    found
}

/// The grade of one area.
pub fn of_area(findings: &[Finding], area: Area) -> Grade {
    let count = |weight| {
        let here = findings.iter().filter(|finding| finding.area == area);
        here.filter(|finding| finding.weight == weight).count()
    };
    match (
        count(Weight::Grave),
        count(Weight::Weak),
        count(Weight::Note),
    ) {
        (2.., _, _) => Grade::F,
        (1, _, _) | (0, 2.., _) => Grade::D,
        (0, 1, _) => Grade::C,
        (0, 0, 1..) => Grade::B,
        (0, 0, 0) => Grade::A,
    }
}

/// The grade of a policy: that of its weakest area.
pub fn grade(findings: &[Finding]) -> Grade {
    let grades = AREAS.into_iter().map(|area| of_area(findings, area));
    grades.max().unwrap_or(Grade::A)
}

#[cfg(test)]
mod tests {
    use super::super::facts::fake::FakeFacts;
    use super::super::{LoadRequest, load_reviewed};
    use super::*;

    const FILE: &str = "/etc/lp-run/policies/p.toml";

    /// What is found in a policy of root that anna starts in her work directory.
    fn found(text: &str) -> Vec<Finding> {
        let mut facts = FakeFacts::usual();
        facts.called_by(1000).dir("/home/anna/.ssh", 1000);
        facts.file(FILE, 0, &format!("version = 1\nname = \"p\"\n{text}\n"));
        let request = LoadRequest {
            policy: FILE.to_owned(),
            directory: "/home/anna/work".into(),
            ..LoadRequest::default()
        };
        load_reviewed(&request, &facts)
            .unwrap_or_else(|errors| panic!("{errors}"))
            .1
    }

    fn codes(text: &str) -> Vec<&'static str> {
        found(text).iter().map(|finding| finding.code).collect()
    }

    /// A policy in which nothing is found.
    const BEST: &str = "[task]\npurpose = \"x\"\nowner = \"y\"\nreview_by = 2027-01-01\n\
        [command]\nrun = [\"/usr/bin/git\", \"log\"]\n[invoke]\nusers = [\"anna\"]\n\
        [valid]\nnot_after = 2027-01-01\ntz = \"UTC\"\n\
        [limits]\nwall_time = \"5m\"\nmemory = \"1G\"\nprocesses = 64\n\
        denials = { count = 100, per = \"1m\" }\n\
        [audit]\nlog = \"/var/log/lp-run/audit.jsonl\"\n[files]\nexec = [\"/usr/bin/git\"]\n\
        read = [\"${BASE}\", \"/srv/kb\"]\n[network]\nallow = [\"10.20.0.1:443\", \"localhost:8080\"]";

    #[test]
    fn a_narrow_policy_has_nothing_to_be_found() {
        assert_eq!(codes(BEST), [""; 0]);
        assert_eq!(grade(&found(BEST)), Grade::A);
    }

    #[test]
    fn the_shortest_policy_lacks_what_people_forget() {
        let all = ["T1", "T2", "T3", "P1", "C4", "I3", "M1", "M4", "R1", "R2"];
        assert_eq!(codes(""), all);
        assert_eq!(grade(&found("")), Grade::D);
        assert!(found("").iter().all(|finding| finding.place.line == 1));
    }

    #[test]
    fn each_width_is_found_where_it_is_written() {
        let read = |path: &str| BEST.replace("\"/srv/kb\"", &format!("\n{path}\n"));
        let with = |from: &str, to: &str| BEST.replace(from, to);
        for (text, code, grade) in [
            (read("\"/home/anna\""), "D1", Grade::D),
            (read("\"/root\""), "D1", Grade::D),
            (read("\"/home/anna/.ssh\""), "D2", Grade::D),
            (read("\"/srv\""), "D3", Grade::C),
            (
                with("[files]", "[identity]\nview = \"host\"\n[files]"),
                "D4",
                Grade::C,
            ),
            (
                with("[command]\nrun = [\"/usr/bin/git\", \"log\"]\n", ""),
                "P1",
                Grade::B,
            ),
            (
                with("exec = [\"/usr/bin/git\"]", "exec = [\"/usr/bin\"]"),
                "P2",
                Grade::B,
            ),
            (
                with(
                    "[files]",
                    "[files]\nwrite = [{ path = \"/srv/tickets/42\", exec = true }]",
                ),
                "P3",
                Grade::B,
            ),
            (
                with("[files]", "[files]\nwrite = [\"${WORKDIR}\"]"),
                "C1",
                Grade::B,
            ),
            (
                with(
                    "[files]",
                    "[files]\nwrite = [{ path = \"/etc/ssl\", dangerous = \"x\" }]",
                ),
                "C2",
                Grade::C,
            ),
            (
                with(
                    "[network]",
                    "[network]\nunix = [{ path = \"/run/docker.sock\", dangerous = \"x\" }]",
                ),
                "C3",
                Grade::D,
            ),
            (with("memory = \"1G\"\n", ""), "C4", Grade::B),
            (with("10.20.0.1:443", "0.0.0.0/0:443"), "C5", Grade::D),
            (with("10.20.0.1:443", "8.0.0.0/8:443"), "C6", Grade::C),
            (
                with(
                    "\"10.20.0.1:443\"",
                    "{ to = \"10.20.0.1:*\", private = true }",
                ),
                "C7",
                Grade::C,
            ),
            (with("10.20.0.1:443", "a.example.com:8443"), "C8", Grade::B),
            (
                with(
                    "\"10.20.0.1:443\"",
                    "{ to = \"a.example.com:443\", verify = \"address\" }",
                ),
                "C8",
                Grade::C,
            ),
            (with("10.20.0.1:443", "*.example.com:443"), "C9", Grade::B),
            (
                with("[files]", "[identity]\nuser = \"caller\"\n[files]"),
                "I1",
                Grade::C,
            ),
            (
                with("[files]", "[identity]\nuser = \"svc\"\n[files]"),
                "I2",
                Grade::B,
            ),
            (with("[invoke]\nusers = [\"anna\"]\n", ""), "I3", Grade::B),
            (
                with("[files]", "[env]\npass = [\"GITHUB_TOKEN\"]\n[files]"),
                "I4",
                Grade::C,
            ),
            (
                with("[files]", "[env]\nset = { DB_PASSWORD = \"x\" }\n[files]"),
                "I4",
                Grade::C,
            ),
            (
                format!(
                    "{BEST}\n[[secret]]\nname = \"t\"\nas = \"env:T\"\n\
                     from = \"file:/etc/lp-run/secrets/token\""
                ),
                "I5",
                Grade::B,
            ),
            (
                with("[files]", "[params]\nt = { pattern = \"^.*$\" }\n[files]"),
                "V1",
                Grade::C,
            ),
            (
                with("[files]", "[enforcement]\ndegrade = [\"seccomp\"]\n[files]"),
                "V2",
                Grade::C,
            ),
            (
                with(
                    "[files]",
                    "[files]\ndeny = [{ path = \"**/.env\", fallback = \"mask-existing\" }]",
                ),
                "V3",
                Grade::B,
            ),
            (
                with("[audit]\nlog = \"/var/log/lp-run/audit.jsonl\"\n", ""),
                "M1",
                Grade::C,
            ),
            (
                with("[audit]\n", "[audit]\non_failure = \"continue\"\n"),
                "M2",
                Grade::C,
            ),
            (
                with("[audit]\n", "[audit]\ncount_files = \"off\"\n"),
                "M3",
                Grade::B,
            ),
            (
                with("denials = { count = 100, per = \"1m\" }\n", ""),
                "M4",
                Grade::B,
            ),
            (with("wall_time = \"5m\"\n", ""), "R1", Grade::C),
            (
                with("not_after = 2027-01-01", "hours = \"08:00-18:00\""),
                "R2",
                Grade::B,
            ),
            (with("purpose = \"x\"", "purpose = \" \""), "T1", Grade::C),
            (with("owner = \"y\"\n", ""), "T2", Grade::C),
            (with("review_by = 2027-01-01\n", ""), "T3", Grade::B),
            (
                with("review_by = 2027-01-01", "review_by = 2026-10-01"),
                "T4",
                Grade::C,
            ),
        ] {
            let found = found(&text);
            let codes: Vec<_> = found.iter().map(|finding| finding.code).collect();
            assert_eq!(codes, [code], "{text}");
            assert_eq!(super::grade(&found), grade, "{code}");
            let expected = text.lines().count() as u32 + 2;
            assert!((1..=expected).contains(&found[0].place.line), "{code}");
        }
    }

    #[test]
    fn two_graves_are_an_f_and_two_weaknesses_a_d() {
        let f = BEST.replace("\"/srv/kb\"", "\"/home/anna\", \"/root\"");
        assert_eq!(grade(&found(&f)), Grade::F);
        let d = BEST.replace("purpose = \"x\"\nowner = \"y\"\n", "");
        assert_eq!(grade(&found(&d)), Grade::D);
        assert_eq!("C".parse(), Ok(Grade::C));
        assert!("E".parse::<Grade>().is_err());
    }

    #[test]
    fn every_code_is_described() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(root.join("../docs/review.md")).expect("docs/review.md");
        let source = include_str!("review/areas.rs");
        let code = regex_lite::Regex::new("\"([A-Z][0-9])\"").expect("a pattern");
        let mut seen = 0;
        for found in code.captures_iter(source) {
            let row = format!("| `{}` |", &found[1]);
            assert_eq!(text.matches(&row).count(), 1, "{row}");
            seen += 1;
        }
        assert_eq!(text.matches("\n| `").count(), seen);
    }
}
