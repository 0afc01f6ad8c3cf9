// SPDX-License-Identifier: MIT OR Apache-2.0
//! States, canaries, nested cgroups, and attachments that somebody takes away.

use super::*;
use crate::needs;
use crate::support::root;

#[test]
fn setup_passes_and_counts_nothing() {
    needs!(root(), "root");
    let layer = Layer::setup(host(Vec::new(), Vec::new()));
    serve_tcp("127.0.0.1:8080");
    assert_eq!(layer.act(["tcp", "127.0.0.1:8080"]), "ok");
    assert_eq!(layer.denials(), [""; 0]);
    assert_eq!(layer.run.canaries().expect("read").silent(true).len(), 9);
}

#[test]
fn canaries_prove_each_program() {
    needs!(root(), "root");
    let mut layer = Layer::setup(host(vec![prefix("::/0", vec![tcp(8080, 0)])], Vec::new()));
    layer.run.set_state(State::Canary).expect("set the state");
    for family in ["127.0.0.1:9", "[::1]:9"] {
        assert_eq!(layer.act(["udp-connect", family]), "EPERM");
        assert_eq!(layer.act(["udp-send", family]), "EPERM");
        assert_eq!(layer.act(["bind-udp", family]), "EPERM");
    }
    assert_eq!(layer.act(["tcp", "127.0.0.1:8080"]), "EPERM");
    assert_eq!(
        layer.run.canaries().expect("read").silent(true),
        ["egress", "ingress"]
    );
    assert_eq!(layer.denials(), [""; 0], "a canary is no denial");
}

#[test]
fn canaries_of_packets_need_sockets_made_before() {
    needs!(root(), "root");
    let mut layer = Layer::setup(host(Vec::new(), Vec::new()));
    let gate = layer.cgroup.with_extension("gate");
    let gate = std::env::temp_dir().join(gate.file_name().expect("a name"));
    let waiting = layer.start(["udp-canary", gate.to_str().expect("UTF-8")]);
    let start = Instant::now();
    // The socket that is connected to itself is the last one that the probe makes.
    let ready = "0100007F:0009 0100007F:0009 01";
    while !fs::read_to_string("/proc/thread-self/net/udp")
        .expect("read sockets")
        .contains(ready)
    {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the sockets are not made"
        );
        thread::sleep(Duration::from_millis(5));
    }
    layer.run.set_state(State::Canary).expect("set the state");
    fs::write(&gate, "").expect("open the gate");
    assert_eq!(waiting.answer(), "ok");
    let _ = fs::remove_file(&gate);
    let silent = layer.run.canaries().expect("read").silent(true);
    assert!(
        !silent.contains(&"egress") && !silent.contains(&"ingress"),
        "{silent:?}"
    );
}

#[test]
fn a_run_that_is_over_reaches_nothing() {
    needs!(root(), "root");
    let mut layer = Layer::live(host(
        vec![prefix("127.0.0.1", vec![tcp(8080, 0)])],
        Vec::new(),
    ));
    serve_tcp("127.0.0.1:8080");
    assert_eq!(layer.act(["tcp", "127.0.0.1:8080"]), "ok");
    layer.run.set_state(State::Over).expect("set the state");
    assert_eq!(layer.act(["tcp", "127.0.0.1:8080"]), "EPERM");
    assert_eq!(layer.act(["udp-send", "127.0.0.1:5353"]), "EPERM");
    assert_eq!(layer.act(["socket", "2", "1", "0"]), "EPERM");
}

#[test]
fn a_nested_cgroup_is_the_same_run_and_the_outside_is_none() {
    needs!(root(), "root");
    let mut layer = Layer::live(host(Vec::new(), Vec::new()));
    serve_tcp("127.0.0.1:8080");
    assert_eq!(layer.outside(["tcp", "127.0.0.1:8080"]), "ok");
    let nested = layer.cgroup.join("nested");
    fs::create_dir(&nested).expect("make a nested cgroup");
    let top = std::mem::replace(&mut layer.cgroup, nested);
    assert_eq!(layer.act(["tcp", "127.0.0.1:8080"]), "EPERM");
    layer.cgroup = top;
    assert_eq!(
        layer.denials(),
        ["Connect 127.0.0.1:8080 None 1 EPERM probe"]
    );
}

/// NET-39: only root can move a process out, and then nothing judges what it makes from there on.
/// What it made before stays the run's.
#[test]
fn a_process_that_root_moves_out_takes_no_socket_of_the_runs_along() {
    needs!(root(), "root");
    let layer = Layer::live(host(Vec::new(), Vec::new()));
    serve_tcp("127.0.0.1:8080");
    let script = "echo $$ >$0/cgroup.procs; \"$@\"; echo $$ >${0%/*}/cgroup.procs; \"$@\"";
    let cgroup = layer.cgroup.to_string_lossy().into_owned();
    let mut command: Vec<String> = ["sh", "-c", script, &cgroup].map(str::to_owned).to_vec();
    command.extend(probe(["tcp", "127.0.0.1:8080"]));
    assert_eq!(layer.jail.bare(&command).stdout, "EPERM\nok\n");
    // Made inside, used outside.
    let sender = "import os, socket, sys\n\
        place = lambda path: open(path + '/cgroup.procs', 'w').write(str(os.getpid()))\n\
        place(sys.argv[1]); s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        place(os.path.dirname(sys.argv[1]))\n\
        try: s.sendto(b'x', ('127.0.0.1', 8080)); print('ok')\n\
        except PermissionError: print('EPERM')";
    let outcome = layer.jail.bare(&["python3", "-c", sender, &cgroup]);
    assert_eq!(outcome.answer(), "EPERM", "{outcome:?}");
}

#[test]
fn attachments_outlive_their_maker_and_a_missing_one_is_noticed() {
    needs!(root(), "root");
    let layer = Layer::live(host(Vec::new(), Vec::new()));
    layer.run.verify().expect("all are attached");
    let show = || {
        let output = Command::new("bpftool")
            .args(["cgroup", "show"])
            .arg(&layer.cgroup)
            .output()
            .expect("start bpftool");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = show();
    assert_eq!(shown.lines().count(), 10, "{shown}");
    let line = shown
        .lines()
        .find(|line| line.contains("connect4"))
        .expect("connect4 is shown");
    let id = line.split_whitespace().next().expect("an id");
    let done = Command::new("bpftool")
        .args(["cgroup", "detach"])
        .arg(&layer.cgroup)
        .args(["cgroup_inet4_connect", "id", id])
        .status()
        .expect("start bpftool");
    assert!(done.success());
    let error = layer.run.verify().expect_err("one is gone");
    assert_eq!(
        error.to_string(),
        "the eBPF program `connect4` is not attached to the run's cgroup"
    );
}

#[test]
fn the_kernel_holds_the_line_when_the_run_is_dropped() {
    needs!(root(), "root");
    let Layer { run, cgroup, jail } = &mut Layer::live(host(Vec::new(), Vec::new()));
    serve_tcp("127.0.0.1:8080");
    let replacement = acquire(&own(false))
        .start(own(false), open_cgroup(&other(cgroup)).expect("open"), 3)
        .expect("start another run");
    // All descriptors of the first run are closed; its cgroup keeps the programs.
    drop(std::mem::replace(run, replacement));
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
    let mut command: Vec<String> = ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec();
    command.extend(probe(["tcp", "127.0.0.1:8080"]));
    assert_eq!(jail.bare(&command).answer(), "EPERM");
}

/// A cgroup below `cgroup`, for another run.
fn other(cgroup: &std::path::Path) -> PathBuf {
    let path = cgroup.join("other");
    fs::create_dir(&path).expect("make a cgroup");
    path
}
