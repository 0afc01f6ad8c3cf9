// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that take the whole terminal: an editor and an interpreter, as they are typed at.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::shell::Shell;
use crate::needs;
use crate::support::{Jail, root};

/// What an editor and an interpreter need, and a folder to write in.
const POLICY: &str = r#"
version = 1
name = "programs"
extends = ["@shell", "@python"]
[files]
exec = ["/usr/bin/vi", "/usr/bin/python3"]
write = [{ path = "@DIR@/texts", id = "texts" }]
"#;

fn shell() -> (Jail, Shell) {
    let jail = Jail::new();
    let texts = jail.folder("texts");
    fs::set_permissions(&texts, fs::Permissions::from_mode(0o777)).expect("open the folder");
    let shell = Shell::start(&jail, POLICY);
    (jail, shell)
}

#[test]
fn an_interpreter_reads_lines_hears_its_keys_and_is_a_job() {
    needs!(root(), "root");
    let (_jail, mut shell) = shell();
    shell.enter("$LP -- /usr/bin/python3 -q");
    shell.sees(">>> ");
    shell.enter("6 * 7");
    shell.sees("42\r\n");
    shell.enter("import time; print('sp' + 'un'); time.sleep(1000)");
    shell.sees("spun\r\n");
    shell.type_keys("\x03");
    shell.sees("KeyboardInterrupt");
    shell.sees(">>> ");
    shell.stop_job();
    shell.enter("fg");
    shell.until_touched(true);
    // What is typed is edited: the wrong letters go before the line is read.
    shell.enter("print('wo\x7f\x7f' + 'edited')");
    shell.sees("\nedited\r\n");
    shell.type_keys("\x04");
    shell.prompt();
    shell.is_untouched();
    shell.status(0);
}

#[test]
fn an_editor_draws_its_screen_is_a_job_and_writes_its_file() {
    needs!(root(), "root");
    let (jail, mut shell) = shell();
    let text = jail.path().join("texts/text");
    shell.enter("TERM=xterm $LP -- /usr/bin/vi -u NONE -i NONE -n texts/text");
    // The alternate screen of a terminal that has one.
    shell.sees("\x1b[?1049h");
    shell.sees("texts/text");
    shell.type_keys("ifirst\x1b");
    shell.sees("first");
    shell.stop_job();
    assert!(!text.exists(), "nothing is written before it is asked for");
    shell.enter("fg");
    // It draws all of it again.
    shell.sees("\x1b[?1049h");
    shell.sees("first");
    shell.type_keys("osecond\x1b:wq\n");
    // And gives back what stood there before.
    shell.sees("\x1b[?1049l");
    shell.prompt();
    shell.is_untouched();
    shell.status(0);
    assert_eq!(
        fs::read_to_string(&text).expect("the text"),
        "first\nsecond\n"
    );
}
