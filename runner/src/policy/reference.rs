// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds the tables of docs/policy.md to the language: a whole row for each key, with the type
//! that the reader wants and the default that holds.

use std::collections::BTreeMap;

use super::facts::fake::FakeFacts;
use super::keys::{self, Table};
use super::model::Policy;
use super::{LoadRequest, load, schema};

const PAGE: &str = include_str!("../../../docs/policy.md");

/// Columns of a table of keys; one of entries has `in` after the first.
const COLUMNS: [&str; 6] = [
    "key",
    "type",
    "default",
    "what it means",
    "checked at",
    "enforced by",
];
/// In the order in which a run comes to them.
const STAGES: [&str; 4] = ["load", "compile", "start", "while running"];
/// What can hold a key.
const MECHANISMS: [&str; 8] = [
    "Landlock",
    "seccomp",
    "eBPF",
    "mount",
    "cgroup",
    "rlimit",
    "lp-run",
    "nothing (",
];

/// One row of the page.
#[derive(Debug)]
struct Row {
    /// `files`, of the section it stands in.
    section: String,
    cells: BTreeMap<&'static str, String>,
}

impl Row {
    fn key(&self) -> &str {
        self.cells["key"].trim_matches('`')
    }

    /// The lists whose entries have it; `None` in a table of whole keys.
    fn lists(&self) -> Option<Vec<&'static str>> {
        let lists = self.cells.get("in")?;
        let of_section = keys::TABLES.iter().filter_map(|table| {
            let (section, list) = table.name.strip_suffix("[]")?.split_once('.')?;
            (section == self.section).then_some(list)
        });
        let named = |list: &&str| lists == "all" || lists.split(", ").any(|one| one == *list);
        Some(of_section.filter(named).collect())
    }

    /// The default, where it is a value that can be written.
    fn literal(&self) -> Option<&str> {
        let inner = self.cells["default"].strip_prefix('`')?.strip_suffix('`')?;
        let written = !inner.contains('`') && !inner.starts_with('/');
        written.then_some(inner)
    }
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let (mut section, mut columns) = (String::new(), Vec::new());
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim_matches(['`', '[', ']']).to_owned();
        }
        if line.starts_with("|--") {
            continue;
        }
        let Some(line) = line
            .strip_prefix("| ")
            .and_then(|line| line.strip_suffix(" |"))
        else {
            columns.clear();
            continue;
        };
        let cells: Vec<&str> = line.split(" | ").collect();
        if cells.first() == Some(&"key") {
            columns = COLUMNS.to_vec();
            if cells.get(1) == Some(&"in") {
                columns.insert(1, "in");
            }
            assert_eq!(cells, columns, "the columns of a table under {section}");
        } else if !columns.is_empty() {
            assert_eq!(cells.len(), columns.len(), "{line}");
            let cells = cells.iter().map(|cell| cell.trim().to_owned());
            rows.push(Row {
                section: section.clone(),
                cells: columns.iter().copied().zip(cells).collect(),
            });
        }
    }
    rows
}

/// What a policy needs to have a key of this table at all, and the key in it.
fn policy_with(table: &Table, written: &str) -> String {
    let entry = |list: &str, main: &str| match written.is_empty() {
        true => format!("{list} = [{{ {main} }}]"),
        // The key in question stands in place of the one that an entry must have.
        false if main.split(' ').next() == written.split(' ').next() => {
            format!("{list} = [{{ {written} }}]")
        }
        false => format!("{list} = [{{ {main}, {written} }}]"),
    };
    let body = match table.name {
        "" => return format!("{written}\n"),
        "task" | "identity" | "env" | "files" | "network" | "limits" | "syscalls"
        | "enforcement" | "audit" | "invoke" => format!("[{}]\n{written}", table.name),
        "command" => format!(
            "[files]\nexec = [\"${{COMMAND}}\"]\n[command]\nrun = [\"/usr/bin/git\"]\n{written}"
        ),
        "valid" => format!("[valid]\nnot_after = 2027-03-01\n{written}"),
        "limits.denials" => format!("[limits.denials]\ncount = 9\nper = \"1m\"\n{written}"),
        "secret[]" => format!("[[secret]]\nname = \"s\"\nfrom = \"env:TOKEN\"\n{written}"),
        "params.*" => format!("[params]\nx = {{ {written} }}"),
        name => {
            let (section, list) = name
                .strip_suffix("[]")
                .and_then(|name| name.split_once('.'))
                .expect("a list of a section");
            let main = match (section, list) {
                ("files", _) => "path = \"/srv/kb\"",
                ("network", "unix") => "path = \"self\"",
                ("network", "listen") => "to = \"127.0.0.1:80\"",
                ("network", _) => "to = \"example.com:443\"",
                _ => "protection = \"audit\"",
            };
            format!("[{section}]\n{}", entry(list, main))
        }
    };
    // A key that the text has already is the one in question.
    let name = written.split(" = ").next().unwrap_or_default();
    let earlier = |line: &&str| {
        written.is_empty() || *line == written || !line.starts_with(&format!("{name} = "))
    };
    body.lines()
        .filter(earlier)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// What the reader says of a value.
fn said(table: &Table, written: &str) -> String {
    let (_, errors, _) = schema::parse("p.toml", &policy_with(table, written), false);
    errors.to_string()
}

/// What the type of a key begins with, found by writing what it is not; words in full.
fn kind(table: &Table, key: &str) -> String {
    let said_of_float = said(table, &format!("{key} = 1.5"));
    let wanted = said_of_float
        .split_once("expected ")
        .and_then(|(_, rest)| rest.split_once(", found a float"))
        .unwrap_or_else(|| panic!("{}.{key}: {said_of_float}", table.name))
        .0;
    match wanted {
        "a whole number" => "number".to_owned(),
        "true or false" => "boolean".to_owned(),
        "a string" => {
            let words = said(table, &format!("{key} = \"no-such-word\""));
            let words = words.split_once("is not a choice; write ");
            words.map_or("string".to_owned(), |(_, words)| {
                let words = words.lines().next().unwrap_or_default();
                let words: Vec<_> = words
                    .split(" or ")
                    .map(|word| format!("`{word}`"))
                    .collect();
                words.join(", ")
            })
        }
        other => other.trim_start_matches("a ").to_owned(),
    }
}

fn loads(text: &str) -> Policy {
    const FILE: &str = "/etc/lp-run/policies/p.toml";
    let mut facts = FakeFacts::usual();
    facts.called_by(1000);
    facts.file(FILE, 0, &format!("version = 1\nname = \"p\"\n{text}"));
    let request = LoadRequest {
        policy: FILE.to_owned(),
        directory: "/home/anna/work".into(),
        ..LoadRequest::default()
    };
    load(&request, &facts).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// What a text means, but for what tells that something was written.
fn meaning(text: &str) -> String {
    let policy = Policy {
        sha256: String::new(),
        defaults: Vec::new(),
        ..loads(text)
    };
    format!("{policy:#?}")
}

/// The title of a key of the top level that is a table, or tables, of its own.
fn title(key: &str) -> Option<String> {
    let tables = |name: &str| keys::table(name).is_some();
    match key {
        _ if tables(&format!("{key}[]")) => Some(format!("[[{key}]]")),
        _ if tables(key) || tables(&format!("{key}.*")) => Some(format!("[{key}]")),
        _ => None,
    }
}

/// Each key of the language with its row.
fn each_key(mut look: impl FnMut(&'static Table, &'static str, &Row)) {
    let rows = rows();
    for table in keys::TABLES {
        for key in table.now {
            if table.name.is_empty()
                && let Some(title) = title(key)
            {
                let heading = format!("\n## `{title}`\n");
                assert!(PAGE.contains(&heading), "there is no section {title}");
                continue;
            }
            let entry = table
                .name
                .strip_suffix("[]")
                .and_then(|name| name.split_once('.'));
            let fits = |row: &&Row| match (entry, row.lists()) {
                (Some((section, list)), Some(lists)) => {
                    row.section == section && row.key() == *key && lists.contains(&list)
                }
                (None, None) if table.name.is_empty() => row.key() == *key,
                (None, None) => row.key() == format!("{}.{key}", table.name.trim_end_matches("[]")),
                _ => false,
            };
            let found: Vec<&Row> = rows.iter().filter(fits).collect();
            let [row] = found.as_slice() else {
                panic!("{}.{key} has {} rows: {found:?}", table.name, found.len());
            };
            look(table, key, row);
        }
    }
}

#[test]
fn every_key_has_one_whole_row_and_every_row_a_key() {
    let mut told = 0;
    each_key(|table, key, row| {
        told += 1;
        for (column, cell) in &row.cells {
            assert!(
                !cell.is_empty(),
                "{}.{key}: nothing in `{column}`",
                table.name
            );
        }
        let stages: Vec<_> = row.cells["checked at"].split(", ").collect();
        let known: Vec<_> = STAGES
            .into_iter()
            .filter(|one| stages.contains(one))
            .collect();
        assert_eq!(stages, known, "{}.{key}", table.name);
        let by = &row.cells["enforced by"];
        let held = MECHANISMS.iter().any(|mechanism| by.contains(mechanism));
        assert!(
            held,
            "{}.{key}: {by:?} names nothing that holds",
            table.name
        );
    });
    let rows = rows();
    let stand_for: usize = rows
        .iter()
        .map(|row| row.lists().map_or(1, |lists| lists.len()))
        .sum();
    assert_eq!(stand_for, told, "rows of no key");
}

#[test]
fn the_type_of_every_key_is_the_one_that_is_read() {
    each_key(|table, key, row| {
        let (kind, told) = (kind(table, key), &row.cells["type"]);
        let fits = match kind.starts_with('`') {
            true => *told == kind,
            false => told.split([' ', ':', ',']).next() == Some(kind.as_str()),
        };
        assert!(fits, "{}.{key} is {kind}, not {told}", table.name);
    });
}

#[test]
fn every_default_is_the_one_that_holds() {
    let mut written = 0;
    each_key(|table, key, row| {
        let Some(literal) = row.literal() else { return };
        written += 1;
        let [without, with] = [String::new(), format!("{key} = {literal}")]
            .map(|key| meaning(&policy_with(table, &key)));
        assert_eq!(without, with, "{}.{key} = {literal}", table.name);
    });
    assert!(written >= 20, "only {written} defaults");
    // What the code says of itself: no default of a value is left out.
    let rows = rows();
    let plain = loads("[limits.denials]\ncount = 9\nper = \"1m\"\n").defaults;
    for (key, value) in plain.iter().filter(|(_, value)| value != "none") {
        let row = rows.iter().find(|row| row.key() == key).expect("its row");
        let told = row
            .literal()
            .unwrap_or_else(|| panic!("{key} = {value} is not told"));
        let told = told.replace(['"', '[', ']', ','], "");
        assert_eq!(told, *value, "{key}");
    }
}
