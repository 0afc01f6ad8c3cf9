// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kits inside the program: fragments of policy that a policy names under `extends`.

/// A kit.
#[derive(Clone, Copy, Debug)]
pub struct Kit {
    /// With its `@`.
    pub name: &'static str,
    /// The fragment, TOML.
    pub text: &'static str,
}

impl Kit {
    /// The first line of its opening comment: what it is for.
    pub fn summary(&self) -> &'static str {
        self.text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches(['#', ' '])
    }
}

/// All of them, by name.
pub const KITS: &[Kit] = &[
    Kit {
        name: "@anthropic-api",
        text: include_str!("../../../policies/kits/anthropic-api.toml"),
    },
    Kit {
        name: "@build",
        text: include_str!("../../../policies/kits/build.toml"),
    },
    Kit {
        name: "@crates",
        text: include_str!("../../../policies/kits/crates.toml"),
    },
    Kit {
        name: "@git",
        text: include_str!("../../../policies/kits/git.toml"),
    },
    Kit {
        name: "@github",
        text: include_str!("../../../policies/kits/github.toml"),
    },
    Kit {
        name: "@node",
        text: include_str!("../../../policies/kits/node.toml"),
    },
    Kit {
        name: "@npm-registry",
        text: include_str!("../../../policies/kits/npm-registry.toml"),
    },
    Kit {
        name: "@openai-api",
        text: include_str!("../../../policies/kits/openai-api.toml"),
    },
    Kit {
        name: "@pypi",
        text: include_str!("../../../policies/kits/pypi.toml"),
    },
    Kit {
        name: "@python",
        text: include_str!("../../../policies/kits/python.toml"),
    },
    Kit {
        name: "@rust",
        text: include_str!("../../../policies/kits/rust.toml"),
    },
    Kit {
        name: "@shell",
        text: include_str!("../../../policies/kits/shell.toml"),
    },
];

/// The kit `name`, with its `@`.
pub fn kit(name: &str) -> Option<&'static Kit> {
    KITS.iter().find(|kit| kit.name == name)
}
