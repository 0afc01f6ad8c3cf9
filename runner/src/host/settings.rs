// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an administrator says of this machine in `/etc/lp-run/host.toml`, and the block of
//! uids for runs, which must be nobody else's.

use std::{fs, io};

use serde::Deserialize;

/// First and number of the default block: far above what useradd, systemd (61184 to 65519)
/// and containers (from 100000 or 524288 on) hand out.
const DEFAULT_BLOCK: (u32, u32) = (2_000_000_000, 65_536);

/// Blocks that are tried when the default one is taken.
const MOST_BLOCKS: u32 = 1000;

/// What is known of this machine beyond the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) environment: Result<Option<String>, String>,
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

/// Where an administrator says it.
const HOST_FILE: &str = "/etc/lp-run/host.toml";

/// Reads `/etc/lp-run/host.toml` and the subordinate ids.
pub(super) fn read() -> Settings {
    let subordinate = ["/etc/subuid", "/etc/subgid"]
        .map(|path| fs::read_to_string(path).unwrap_or_default())
        .concat();
    let host = match fs::read_to_string(HOST_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| format!("{HOST_FILE} cannot be read: {error}")),
    };
    settings(host, &subordinate)
}

/// What a file that cannot be read or does not parse names is unknown, so that a policy which wants
/// one environment is refused: that is the safe side.
fn settings(host: Result<String, String>, subordinate: &str) -> Settings {
    let parse = |text: String| {
        toml::from_str::<HostFile>(&text)
            .map_err(|_| format!("{HOST_FILE} is not understood; fix it"))
    };
    let (host, unknown) = match host.and_then(parse) {
        Ok(host) => (host, None),
        Err(why) => (HostFile::default(), Some(why)),
    };
    let taken: Vec<(u64, u64)> = subordinate.lines().filter_map(range).collect();
    let uid_block = match host.uid_block {
        Some(block) => (block.first, block.count),
        None => free_block(&taken),
    };
    Settings {
        environment: unknown.map_or(Ok(host.environment), Err),
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
        let settings = |subordinate| settings(Ok(String::new()), subordinate);
        assert_eq!(settings("anna:100000:65536\n").uid_block, DEFAULT_BLOCK);
        let overlapping = "a:1999999999:2\nb:2000065536:1\n";
        assert_eq!(settings(overlapping).uid_block, (2_000_131_072, 65_536));
        let everything = "a:0:4294967295\n";
        assert_eq!(settings(everything).uid_block.1, 0);
    }

    #[test]
    fn an_administrator_names_environment_and_block() {
        let host = "environment = \"test\"\nuid_block = { first = 70000, count = 16 }\n";
        let expected = Settings {
            environment: Ok(Some("test".to_owned())),
            uid_block: (70000, 16),
        };
        assert_eq!(settings(Ok(host.to_owned()), ""), expected);
        assert_eq!(settings(Ok(String::new()), "").environment, Ok(None));
        let broken = settings(Ok("environment = ".to_owned()), "").environment;
        assert!(broken.is_err_and(|why| why.contains("fix it")));
    }
}
