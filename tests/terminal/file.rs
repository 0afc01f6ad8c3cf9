// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files and named pipes of the program's own user: relayed, and as good as its own at their
//! ends.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::needs;
use crate::support::{Jail, root};

/// Who calls, and whom the program runs as.
const CALLER: u32 = 65534;

const POLICY: &str = "version = 1\nname = \"file\"\nextends = [\"@shell\"]\n\n\
                      [identity]\nuser = \"caller\"\n";

/// A script of bash, called through sudo, in which `$LP` runs lp-run as the caller.
fn script(jail: &Jail, script: &str) -> Command {
    let policy = jail.file("policy.toml", POLICY);
    chown(jail.path(), Some(CALLER), None).expect("give the folder away");
    let lp_run = env!("CARGO_BIN_EXE_lp-run");
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).current_dir(jail.path());
    bash.env("SUDO_UID", CALLER.to_string());
    let policy = policy.to_string_lossy();
    bash.env("LP", format!("{lp_run} -p {policy} --summary never"));
    bash.stdin(Stdio::null());
    bash
}

fn said(mut bash: Command) -> String {
    let output = bash.output().expect("start bash");
    let errors = String::from_utf8_lossy(&output.stderr);
    String::from_utf8_lossy(&output.stdout).into_owned() + &errors
}

/// A file of the caller's.
fn own(jail: &Jail, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = jail.file(name, content);
    chown(&path, Some(CALLER), None).expect("give a file away");
    path
}

#[test]
fn what_a_program_does_not_read_of_a_file_is_left_for_the_next() {
    needs!(root(), "root");
    let jail = Jail::new();
    own(&jail, "list", "1\n2\n3\n4\n5\n6\n");
    let cases = [
        ("true", "got 1,got 2,got 3,got 4,got 5,got 6,"),
        // A shell takes a line, and no more, from a pipe too.
        (
            "read x; echo \"in $x\"",
            "got 1,in 2,got 3,in 4,got 5,in 6,",
        ),
        ("read x; kill -9 $$", "got 1,got 3,got 5,"),
        ("cat > /dev/null", "got 1,"),
    ];
    for (inside, expected) in cases {
        let turns = format!(
            "while read -r line; do echo \"got $line\"; $LP -- sh -c '{inside}'; done < list"
        );
        let said = said(script(&jail, &turns)).replace('\n', ",");
        assert_eq!(said, expected, "{inside}");
    }
}

#[test]
fn what_is_not_read_of_a_large_file_is_left_however_the_run_ends() {
    needs!(root(), "root");
    let jail = Jail::new();
    let path = own(&jail, "large", vec![b'x'; 8 << 20]);
    let program = "head -c 3000000 >/dev/null; echo up; sleep 1000";
    // SIGTERM to lp-run, and its limit of time.
    for (option, ends) in [("", "kill $!"), ("--timeout 1s", ":")] {
        let line = format!(
            "exec 5< large; : > up; $LP {option} -- sh -c '{program}' <&5 > up & \
             until grep -q up up; do sleep 0.05; done; {ends}; wait; wc -c <&5"
        );
        let left: u64 = said(script(&jail, &line)).trim().parse().expect("a number");
        let size = fs::metadata(&path).expect("stat").len();
        // head(1) takes whole blocks of a pipe, and no more than one too many.
        let read = size - left;
        assert!((3_000_000..3_100_000).contains(&read), "{option}: {read}");
    }
}

#[test]
fn what_is_written_through_the_description_that_is_read_destroys_nothing() {
    needs!(root(), "root");
    let jail = Jail::new();
    let path = own(&jail, "list", "2\n1\n");
    let line = "exec 5<> list; $LP -- sh -c 'sort; echo end' 0<&5 1>&5";
    assert_eq!(said(script(&jail, line)), "");
    let content = fs::read_to_string(path).expect("read");
    assert_eq!(content, "2\n1\n1\n2\nend\n");
}

#[test]
fn output_that_a_file_does_not_take_is_told_of() {
    needs!(root(), "root");
    let jail = Jail::new();
    own(&jail, "out", "");
    // A description that cannot be written; without lp-run the program would see the error.
    let line = "${LP/never/auto} -- sh -c 'echo words' 1< out; echo $?";
    let said = said(script(&jail, line));
    assert!(
        said.contains("was not written: Bad file descriptor"),
        "{said}"
    );
    assert!(said.contains("\n0\n") || said.starts_with("0\n"), "{said}");
}

#[test]
fn a_file_system_that_does_not_answer_holds_up_no_limit_of_time() {
    needs!(root(), "root");
    let jail = Jail::new();
    let line = "
        truncate -s 32M image && mkfs.ext4 -q -F image && mkdir disk && mount -o loop image disk
        : > disk/out; chown -R nobody disk
        exec 5>> disk/out
        fsfreeze -f disk || exit
        trap 'fsfreeze -u disk' EXIT
        $LP --timeout 1s --report report.json -- sh -c 'echo x; sleep 1000' >&5 5>&- &
        for turn in $(seq 200); do
            [ -s report.json ] && break
            sleep 0.1
        done
        cat report.json || echo late
        fsfreeze -u disk; trap - EXIT
        wait $!; echo \"status $?\"";
    let bash = script(&jail, line);
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "--propagation", "private"]);
    apart.arg(bash.get_program()).args(bash.get_args());
    apart.current_dir(jail.path());
    apart.envs(
        bash.get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    let said = said(apart);
    assert!(said.contains("\"reason\": \"timeout\""), "{said}");
    assert!(said.contains("status 124"), "{said}");
}

#[test]
fn a_named_pipe_of_the_programs_user_keeps_its_mode_and_carries_each_end() {
    needs!(root(), "root");
    let jail = Jail::new();
    let fifo = |name: &str| {
        let path = jail.path().join(name);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&path, mode).expect("mkfifo");
        chown(&path, Some(CALLER), None).expect("give it away");
        path
    };
    let (input, output) = (fifo("in"), fifo("out"));
    let inside = "chmod 777 /dev/stdin; chmod 777 /dev/stdout; cat; echo end";
    let line = format!("(echo words > in; cat out) & $LP -- sh -c '{inside}' < in > out; wait");
    assert_eq!(said(script(&jail, &line)), "words\nend\n");
    for path in [&input, &output] {
        let mode = fs::metadata(path).expect("stat").mode() & 0o777;
        assert_eq!(mode, 0o600, "{path:?}");
    }
    // The act itself works where the pipe is handed on: by its owner, without lp-run.
    let bare = "setpriv --reuid 65534 --clear-groups chmod 700 /dev/stdin <> in";
    assert_eq!(said(script(&jail, bare)), "");
    let mode = fs::metadata(&input).expect("stat").mode() & 0o777;
    assert_eq!(mode, 0o700);
    // A reader that goes away is a broken pipe.
    let line = "head -c 10 out >/dev/null & $LP -- sh -c 'exec yes' > out; echo $?; wait";
    assert_eq!(said(script(&jail, line)), "141\n");
}
