// SPDX-License-Identifier: MIT OR Apache-2.0
//! lp-run for a user who is not root: the same protections by a user namespace, one answer for what
//! takes more, and nothing at all where the host gives no user namespaces.

// Files, programs and sockets: bare an act works, denied it gives the promised errno, granted it
// works again.
mod acts;

// Without user namespaces: Landlock and the filter alone.
mod alone;

// What is left out is noticed, what takes root is refused, and what dies leaves nothing.
mod start;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::support::{Jail, Outcome, probe};

/// An ordinary user whom no user database knows.
const USER: u32 = 54_321;

/// A policy for that user; a test adds rules.
const HEAD: &str = "version = 1\nname = \"rootless\"\nextends = [\"@shell\"]\n\
                    [identity]\nuser = \"caller\"\n";

/// A folder of the user's below one of root's, and in it `work`, `secret/file` and copies of
/// lp-run and the probe, which he may not reach where they are built.
struct Place {
    jail: Jail,
}

/// What a host gives to an ordinary user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespaces {
    /// User namespaces, as most kernels do.
    Given,
    /// None: `user.max_user_namespaces` is 0, in a user namespace around the test, so that the
    /// host's own setting stays.
    Refused,
}

/// Runs `"$@"` below a user namespace in which no other can be made.
const REFUSED: &str = r#"
dir=$(mktemp -d) && mkfifo "$dir/go" || exit 99
# Only a program that is started after the ids are mapped has the capabilities of root.
unshare --user sh -c 'read -r _ <"$0/go"
    exec sh -c "echo 0 >/proc/sys/user/max_user_namespaces && exec \"\$@\"" sh "$@"' "$dir" "$@" &
while [ "$(readlink /proc/$!/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
echo '0 0 4294967295' >/proc/$!/uid_map && echo '0 0 4294967295' >/proc/$!/gid_map
echo >"$dir/go"; rm -r "$dir"; wait $!
"#;

/// Whether this host gives user namespaces to users.
fn namespaces() -> bool {
    let id = USER.to_string();
    let mut try_it = Command::new("setpriv");
    try_it.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    try_it.args(["unshare", "--user", "--mount", "true"]);
    let given = try_it.stderr(std::process::Stdio::null()).status();
    given.is_ok_and(|status| status.success())
}

impl Place {
    fn new() -> Self {
        let jail = Jail::shared();
        for (name, from) in [
            ("lp-run", env!("CARGO_BIN_EXE_lp-run").to_owned()),
            ("probe", probe([]).remove(0)),
        ] {
            let to = jail.path().join(name);
            fs::copy(from, &to).expect("copy a program");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("open it");
        }
        let place = Self { jail };
        place.own("secret/file", "secret");
        place.own("work/file", "content");
        for folder in ["secret", "work", "run", "state"] {
            place.jail.folder(folder);
            place.give(folder);
        }
        place
    }

    /// Writes a file of the user's.
    fn own(&self, name: &str, content: &str) {
        self.jail.file(name, content);
        self.give(name);
    }

    fn give(&self, name: &str) {
        chown(self.jail.path().join(name), Some(USER), Some(USER)).expect("give it to the user");
    }

    fn path(&self, name: &str) -> String {
        self.jail.path().join(name).to_string_lossy().into_owned()
    }

    /// `program` started by the user.
    fn as_user(&self, namespaces: Namespaces, program: &str) -> Command {
        let id = USER.to_string();
        let ids = ["--reuid", &id, "--regid", &id, "--clear-groups"];
        let mut command = match namespaces {
            Namespaces::Given => Command::new("setpriv"),
            Namespaces::Refused => {
                let mut command = Command::new("sh");
                command.args(["-c", REFUSED, "sh", "setpriv"]);
                command
            }
        };
        command.args(ids).arg(program);
        command.env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("XDG_STATE_HOME", self.path("state"));
        command
    }

    /// lp-run started by the user, with these rules behind [`HEAD`]. The work directory is `work`.
    fn run(&self, rules: &str, options: &[&str], command: &[&str]) -> Outcome {
        self.run_where(Namespaces::Given, rules, options, command)
    }

    fn run_where(
        &self,
        namespaces: Namespaces,
        rules: &str,
        options: &[&str],
        command: &[&str],
    ) -> Outcome {
        let lp_run = self.as_user(namespaces, &self.path("lp-run"));
        self.run_by(lp_run, &format!("{HEAD}{rules}"), options, command)
    }

    fn run_by(&self, lp_run: Command, policy: &str, options: &[&str], command: &[&str]) -> Outcome {
        let policy = policy.replace("@DIR@", &self.jail.path().to_string_lossy());
        self.jail.file("policy.toml", policy);
        let report = self.jail.path().join("state/report.json");
        let work = self.path("work");
        let mut all = vec!["--workdir", &work];
        all.extend(options);
        let policy = self.path("policy.toml");
        self.jail
            .run_reported(lp_run, policy, &report, &all, command)
    }
}
