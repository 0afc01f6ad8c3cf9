// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every key of the policy language, table by table: what this version enforces, and what is
//! known but refused because nothing would hold it yet.

/// Whether a key is enforced by this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Enforced.
    Now,
    /// Known to the language, refused by this version.
    Later,
}

/// The keys of one table. A name that ends in `[]` is an entry of a list, one that ends in `.*`
/// a table whose name the author chooses.
pub struct Table {
    /// `files`, `files.read[]`, `params.*`; empty for the top level.
    pub name: &'static str,
    /// Enforced keys.
    pub now: &'static [&'static str],
    /// Keys of a later version.
    pub later: &'static [&'static str],
    /// Whether a kit may use this table.
    pub kit: bool,
}

impl Table {
    /// Whether `key` is known here, and when it is enforced.
    pub fn stage(&self, key: &str) -> Option<Stage> {
        if self.now.contains(&key) {
            Some(Stage::Now)
        } else if self.later.contains(&key) {
            Some(Stage::Later)
        } else {
            None
        }
    }
}

/// The keys of the table `name`; an entry of a list of plain values has none.
pub fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// Tables of the top level in which `key` is known, for a key that stands in the wrong place.
pub fn homes(key: &str) -> impl Iterator<Item = &'static str> {
    let known = move |table: &&Table| {
        !table.name.is_empty() && !table.name.contains('[') && table.stage(key).is_some()
    };
    TABLES.iter().filter(known).map(|table| table.name)
}

const RULE_LATER: &[&str] = &["expires"];

/// The language.
pub const TABLES: &[Table] = &[
    Table {
        name: "",
        now: &[
            "version",
            "name",
            "extends",
            "task",
            "command",
            "invoke",
            "valid",
            "params",
            "identity",
            "env",
            "files",
            "network",
            "limits",
            "syscalls",
            "enforcement",
            "audit",
            "secret",
        ],
        later: &["spawn", "overrides"],
        kit: true,
    },
    Table {
        name: "task",
        now: &["purpose", "owner", "review_by", "environment", "strict"],
        later: &[],
        kit: false,
    },
    Table {
        name: "invoke",
        now: &["users", "groups"],
        later: &[],
        kit: false,
    },
    Table {
        name: "command",
        now: &["run", "args"],
        later: &[],
        kit: false,
    },
    Table {
        name: "valid",
        now: &["not_before", "not_after", "hours", "tz", "action"],
        later: &[],
        kit: false,
    },
    Table {
        name: "secret[]",
        now: &["name", "from", "as", "max_age"],
        later: &["on_rotate"],
        kit: false,
    },
    Table {
        name: "params.*",
        now: &["pattern", "values", "default", "help"],
        later: &[],
        kit: false,
    },
    Table {
        name: "identity",
        now: &["user", "home", "terminal", "stdio", "view"],
        later: &[],
        kit: false,
    },
    Table {
        name: "env",
        now: &["pass", "set", "path"],
        later: &[],
        kit: true,
    },
    Table {
        name: "files",
        now: &["read", "exec", "write", "protect", "deny"],
        later: &["draft", "devices", "add"],
        kit: true,
    },
    Table {
        name: "files.read[]",
        now: &["path", "id", "because", "owner", "optional"],
        later: RULE_LATER,
        kit: true,
    },
    Table {
        name: "files.exec[]",
        now: &["path", "id", "because", "owner", "optional"],
        later: RULE_LATER,
        kit: true,
    },
    Table {
        name: "files.write[]",
        now: &[
            "path",
            "id",
            "because",
            "owner",
            "optional",
            "create",
            "exec",
            "dangerous",
        ],
        later: &["expires", "approve"],
        kit: true,
    },
    Table {
        name: "files.protect[]",
        now: &["path", "id", "because", "owner", "quiet", "fallback"],
        later: &[],
        kit: true,
    },
    Table {
        name: "files.deny[]",
        now: &["path", "id", "because", "owner", "quiet", "fallback"],
        later: &[],
        kit: true,
    },
    Table {
        name: "network",
        now: &["allow", "deny", "listen", "unix", "resolver"],
        later: &["unix_listen", "dns", "activation", "synthetic"],
        kit: true,
    },
    Table {
        name: "network.allow[]",
        now: &["to", "id", "because", "owner", "private", "verify"],
        later: &[
            "rate",
            "max_bytes_out",
            "max_bytes_in",
            "max_connections",
            "methods",
            "paths",
            "approve",
            "expires",
            "inspect",
            "via",
            "dns",
        ],
        kit: true,
    },
    Table {
        name: "network.deny[]",
        now: &["to", "id", "because", "owner", "quiet"],
        later: &[],
        kit: true,
    },
    Table {
        name: "network.listen[]",
        now: &["to", "id", "because", "owner"],
        later: RULE_LATER,
        kit: true,
    },
    Table {
        name: "network.unix[]",
        now: &["path", "id", "because", "owner", "dangerous"],
        later: &["expires", "approve", "optional"],
        kit: true,
    },
    Table {
        name: "limits",
        now: &[
            "wall_time",
            "memory",
            "processes",
            "cpu",
            "open_files",
            "file_size",
            "tmp",
            "shm",
            "stop_signal",
            "stop_grace",
            "denials",
        ],
        later: &["connections", "bytes_out", "bytes_in", "io"],
        kit: false,
    },
    Table {
        name: "limits.denials",
        now: &["count", "per", "action"],
        later: &[],
        kit: false,
    },
    Table {
        name: "syscalls",
        now: &["profile"],
        later: &["allow", "deny"],
        kit: true,
    },
    Table {
        name: "enforcement",
        now: &["degrade"],
        later: &[],
        kit: false,
    },
    Table {
        name: "enforcement.degrade[]",
        now: &["protection", "because"],
        later: &[],
        kit: false,
    },
    Table {
        name: "audit",
        now: &[
            "log",
            "on_failure",
            "tell_agent",
            "count_files",
            "require_counts",
        ],
        later: &[],
        kit: false,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_stands_once_and_every_key_once_in_it() {
        for (index, table) in TABLES.iter().enumerate() {
            assert!(
                TABLES[index + 1..]
                    .iter()
                    .all(|other| other.name != table.name)
            );
            let mut keys: Vec<_> = table.now.iter().chain(table.later).collect();
            keys.sort();
            assert!(
                keys.windows(2).all(|pair| pair[0] != pair[1]),
                "{}",
                table.name
            );
        }
    }

    #[test]
    fn a_key_in_the_wrong_table_finds_its_home() {
        assert_eq!(homes("wall_time").collect::<Vec<_>>(), ["limits"]);
    }
}
