// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an administrator says of this machine in `/etc/lp-run/host.toml`, and the block of
//! uids for runs, which must be nobody else's.

use std::fs;

use serde::Deserialize;

/// First and number of the default block: far above what useradd, systemd (61184 to 65519)
/// and containers (from 100000 or 524288 on) hand out.
const DEFAULT_BLOCK: (u32, u32) = (2_000_000_000, 65_536);

/// Blocks that are tried when the default one is taken.
const MOST_BLOCKS: u32 = 1000;

/// What is known of this machine beyond the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) environment: Option<String>,
    pub(super) uid_block: (u32, u32),
}

/// The keys of `host.toml` that this version knows.
#[derive(Debug, Default, Deserialize)]
struct HostFile {
    environment: Option<String>,
    uid_block: Option<UidBlock>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct UidBlock {
    first: u32,
    count: u32,
}

/// Reads `/etc/lp-run/host.toml` and the subordinate ids.
pub(super) fn read() -> Settings {
    let subordinate = ["/etc/subuid", "/etc/subgid"]
        .map(|path| fs::read_to_string(path).unwrap_or_default())
        .concat();
    let host = fs::read_to_string("/etc/lp-run/host.toml").unwrap_or_default();
    settings(&host, &subordinate)
}

fn settings(host: &str, subordinate: &str) -> Settings {
    // A file that does not parse names no environment, so that a policy which wants one is
    // refused: that is the safe side.
    let host: HostFile = toml::from_str(host).unwrap_or_default();
    let taken: Vec<(u64, u64)> = subordinate.lines().filter_map(range).collect();
    let uid_block = match host.uid_block {
        Some(block) => (block.first, block.count),
        None => free_block(&taken),
    };
    Settings {
        environment: host.environment,
        uid_block,
    }
}

/// First id and number of a line `name:first:count` (subuid(5)).
fn range(line: &str) -> Option<(u64, u64)> {
    let mut fields = line
        .split(':')
        .skip(1)
        .map(|field| field.trim().parse().ok());
    Some((fields.next()??, fields.next()??))
}

/// The first block from the default on that overlaps no subordinate ids; of length 0 when
/// there is none.
fn free_block(taken: &[(u64, u64)]) -> (u32, u32) {
    let (first, count) = DEFAULT_BLOCK;
    (0..MOST_BLOCKS)
        .map(|step| (first + step * count, count))
        .find(|block| {
            let (low, high) = (u64::from(block.0), u64::from(block.0) + u64::from(block.1));
            taken
                .iter()
                .all(|(from, many)| from + many <= low || *from >= high)
        })
        .unwrap_or((first, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_avoids_subordinate_ids() {
        assert_eq!(settings("", "anna:100000:65536\n").uid_block, DEFAULT_BLOCK);
        let overlapping = "a:1999999999:2\nb:2000065536:1\n";
        assert_eq!(settings("", overlapping).uid_block, (2_000_131_072, 65_536));
        let everything = "a:0:4294967295\n";
        assert_eq!(settings("", everything).uid_block.1, 0);
    }

    #[test]
    fn an_administrator_names_environment_and_block() {
        let host = "environment = \"test\"\nuid_block = { first = 70000, count = 16 }\n";
        let expected = Settings {
            environment: Some("test".to_owned()),
            uid_block: (70000, 16),
        };
        assert_eq!(settings(host, ""), expected);
        assert_eq!(settings("environment = ", "").environment, None);
    }
}
