// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent's environment, made from nothing: what `env.pass` lets in, what is always set,
//! what `env.set` says.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::generated::{Account, SHELL};
use super::view::SELF_DIR;
use crate::policy::model::Policy;

/// `PATH` behind the directories of kits: where the policy looked for the program.
pub use crate::policy::PATH as BASE_PATH;

/// Variables that change which code a program loads: a pattern never lets them in, only their
/// full name does.
const CODE: &[&str] = &[
    "BASHOPTS",
    "BASH_ENV",
    "BASH_FUNC_*",
    "BUN_OPTIONS",
    "CLASSPATH",
    "ENV",
    "GCONV_PATH",
    "GIT_*",
    "GLIBC_TUNABLES",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LD_*",
    "LESSCLOSE",
    "LESSOPEN",
    "LOCPATH",
    "LUA_CPATH*",
    "LUA_INIT*",
    "LUA_PATH*",
    "NODE_OPTIONS",
    "NODE_PATH",
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHONBREAKPOINT",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "ZDOTDIR",
    "_JAVA_OPTIONS",
];

/// Names that the caller's environment never decides.
const ALWAYS: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "PWD",
    "LP_RUN",
    "LP_RUN_POLICY",
    "LP_RUN_SELF",
];

/// Names that `env.set` does not decide either: the agent can rely on them.
const FIXED: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "PWD",
    "LP_RUN",
    "LP_RUN_POLICY",
    "LP_RUN_SELF",
];

/// The environment of a run, from the caller's `environment`.
pub fn compile(
    policy: &Policy,
    environment: &BTreeMap<OsString, OsString>,
) -> BTreeMap<String, String> {
    // A value that is not UTF-8 stays outside: no variable of the defaults has one.
    let mut env: BTreeMap<String, String> = environment
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)))
        .filter(|(name, _)| passes(&policy.env_pass, name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let account = Account::of(policy);
    let always = [
        ("PATH", path(policy)),
        ("HOME", account.home.display().to_string()),
        ("USER", account.name.clone()),
        ("LOGNAME", account.name),
        ("SHELL", SHELL.to_owned()),
        ("TMPDIR", "/tmp".to_owned()),
        ("PWD", policy.workdir.display().to_string()),
        ("LP_RUN", "1".to_owned()),
        ("LP_RUN_POLICY", policy.name.clone()),
        ("LP_RUN_SELF", SELF_DIR.to_owned()),
    ];
    env.extend(always.map(|(name, value)| (name.to_owned(), value)));
    let set = policy
        .env_set
        .iter()
        .filter(|(name, _)| !FIXED.contains(&name.as_str()));
    env.extend(set.map(|(name, value)| (name.clone(), value.clone())));
    env
}

/// The agent's `PATH`: the directories of kits, then [`BASE_PATH`].
pub fn path(policy: &Policy) -> String {
    let base = BASE_PATH.iter().map(PathBuf::from);
    let mut directories: Vec<String> = Vec::new();
    for directory in policy.path_dirs.iter().cloned().chain(base) {
        let directory = directory.display().to_string();
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories.join(":")
}

/// Whether a variable of the caller gets in.
fn passes(patterns: &[String], name: &str) -> bool {
    if ALWAYS.contains(&name) || name.is_empty() || name.contains('=') {
        return false;
    }
    let loads_code = CODE.iter().any(|pattern| matches(pattern, name));
    patterns.iter().any(|pattern| {
        if pattern.ends_with('*') {
            !loads_code && matches(pattern, name)
        } else {
            pattern == name
        }
    })
}

/// One trailing `*` stands for any rest.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::policy;

    fn compiled(pass: &[&str], caller: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut policy = policy();
        policy.env_pass = pass.iter().map(|pattern| (*pattern).to_owned()).collect();
        let caller = caller
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        compile(&policy, &caller)
    }

    #[test]
    fn only_what_is_passed_gets_in() {
        let env = compiled(
            &["LANG", "LC_*"],
            &[("LANG", "C"), ("LC_ALL", "C"), ("AWS_TOKEN", "x")],
        );
        assert_eq!(env["LANG"], "C");
        assert_eq!(env["LC_ALL"], "C");
        assert!(!env.contains_key("AWS_TOKEN"));
    }

    #[test]
    fn a_pattern_never_passes_what_loads_code() {
        let caller = [
            ("LD_PRELOAD", "/x.so"),
            ("GIT_DIR", "/g"),
            ("NODE_OPTIONS", "-r x"),
            ("PS4", "$(x)"),
            ("LUA_INIT_5_4", "@x.lua"),
            ("_JAVA_OPTIONS", "-javaagent:x"),
        ];
        let all = compiled(&["*", "LD_*", "GIT_*"], &caller);
        assert!(caller.iter().all(|(name, _)| !all.contains_key(*name)));
        let full = compiled(&["LD_PRELOAD"], &caller);
        assert_eq!(full["LD_PRELOAD"], "/x.so");
    }

    #[test]
    fn what_is_always_set_is_never_inherited() {
        let env = compiled(
            &["PATH", "HOME", "*"],
            &[("PATH", "/evil"), ("HOME", "/root")],
        );
        assert_eq!(env["PATH"], "/usr/local/bin:/usr/bin:/bin");
        assert_eq!(env["HOME"], "/home/agent");
        assert_eq!(env["USER"], "agent");
        assert_eq!(env["PWD"], "/home/anna/work");
        assert_eq!(env["LP_RUN_SELF"], "/run/lp-run/self");
    }

    #[test]
    fn set_may_choose_a_shell_but_not_who_the_agent_is() {
        let mut policy = policy();
        policy
            .env_set
            .insert("SHELL".to_owned(), "/bin/bash".to_owned());
        policy.env_set.insert("LP_RUN".to_owned(), "0".to_owned());
        policy.path_dirs = vec![PathBuf::from("/opt/bin"), PathBuf::from("/usr/bin")];
        let env = compile(&policy, &BTreeMap::new());
        assert_eq!(env["SHELL"], "/bin/bash");
        assert_eq!(env["LP_RUN"], "1");
        assert_eq!(env["PATH"], "/opt/bin:/usr/bin:/usr/local/bin:/bin");
    }
}
