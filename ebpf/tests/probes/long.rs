//! Arguments and paths that are longer than most: whole, or marked where they were cut.

use std::{env, fs, os::unix::process::CommandExt, process::Command};

use crate::probing::{Probing, everything};
use mayfly_history::process::{ProcessAction, ProcessEvent};

/// What was told of a program that got these arguments.
fn executed(probing: &mut Probing, command: &mut Command) -> ProcessEvent {
    let mut child = command.spawn().unwrap();
    let pid = i64::from(child.id());
    assert!(child.wait().unwrap().success());
    probing.process(|e| e.action == ProcessAction::Exec && e.pid == Some(pid))
}

/// Arguments of so many bytes in all, with the NUL that ends each; the kernel takes none of more than 128 KiB.
fn arguments(mut bytes: usize) -> Vec<String> {
    let mut arguments = Vec::new();
    while bytes > 0 {
        let size = bytes.min(50_000);
        arguments.push(format!("ö{}", "x".repeat(size - "ö\0".len())));
        bytes -= size;
    }
    arguments
}

#[test]
fn keeps_64_kib_of_arguments_whole_and_marks_what_is_longer() {
    const PROGRAM: &str = "/bin/true";
    let Some(mut probing) = Probing::start(&everything()) else { return };
    // Of all bytes that the process gets, the final NUL of each argument among them.
    for (size, whole) in [(60 << 10, true), ((64 << 10) - 1, true), (64 << 10, true), ((64 << 10) + 1, false), (200 << 10, false)] {
        let arguments = arguments(size - PROGRAM.len() - 1);
        let exec = executed(&mut probing, Command::new(PROGRAM).args(&arguments));
        let asked = format!("{PROGRAM} {}", arguments.join(" "));
        assert_eq!(asked.len() + 1, size, "the test itself");
        if whole {
            assert!(exec.cmdline == asked, "{size}: {} bytes told", exec.cmdline.len());
        } else {
            let told =
                exec.cmdline.strip_suffix('…').unwrap_or_else(|| panic!("{size}: no mark at the end of {} bytes", exec.cmdline.len()));
            let told = told.trim_end_matches('\u{fffd}');
            assert!(asked.starts_with(told) && told.len() > (64 << 10) - 4, "{size}: {} bytes told", told.len());
        }
    }
}

#[test]
fn marks_a_path_of_which_only_the_end_is_told() {
    let Some(mut probing) = Probing::start(&everything()) else { return };
    let top = env::temp_dir().join(format!("mayfly-deep-{}", std::process::id()));
    fs::create_dir(&top).unwrap();
    let me = env::current_exe().unwrap();
    let deep = ["long::goes_deep_and_executes", "--exact", "--ignored"];
    let mut child = Command::new(me).args(deep).current_dir(&top).stdout(std::process::Stdio::null()).spawn().unwrap();
    let pid = i64::from(child.id());
    // A busybox does not know itself by that name, but was executed alike.
    child.wait().unwrap();
    let exec = probing.process(|e| e.action == ProcessAction::Exec && e.pid == Some(pid) && e.path.ends_with("/innermost"));
    fs::remove_dir_all(&top).unwrap();
    let innermost = format!("/{}", folder(DEPTH - 1));
    assert!(exec.cwd.starts_with("…/") && exec.cwd.ends_with(&innermost), "{}", exec.cwd);
    assert_eq!(*exec.path, *format!("{}/innermost", exec.cwd));
}

/// More than the 4,096 bytes that a path may have.
const DEPTH: usize = 20;

fn folder(depth: usize) -> String {
    format!("{depth:0>250}")
}

#[test]
#[ignore = "run by the test above, as a process of its own"]
fn goes_deep_and_executes() {
    for depth in 0..DEPTH {
        fs::create_dir(folder(depth)).unwrap();
        env::set_current_dir(folder(depth)).unwrap();
    }
    fs::copy("/bin/true", "innermost").unwrap();
    panic!("{}", Command::new("./innermost").exec());
}
