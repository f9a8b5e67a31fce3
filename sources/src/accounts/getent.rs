//! Asks the system's name service for a user, in a process of its own: its modules are other people's code, which may be slow or worse.

use std::{
    io::{self, Read},
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs},
};
use tokio::sync::oneshot;

use super::files::{self, PasswdLine};

/// One answer, from the start of the program on.
const WITHIN: Duration = Duration::from_secs(2);
/// Longest answer that is read: one line.
const LONGEST: usize = 16 << 10;
/// What `getent` ends with where nobody has that name or id.
const NOT_FOUND: i32 = 2;

/// Why the name service said nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silent {
    #[error("cannot run {program}")]
    Start {
        program: String,
        #[source]
        reason: io::Error,
    },
    #[error("{program} did not answer who uid {uid} is")]
    Answer {
        program: String,
        uid: u32,
        #[source]
        reason: io::Error,
    },
    #[error("{program} failed to say who uid {uid} is: {status}")]
    Failed { program: String, uid: u32, status: ExitStatus },
    #[error("{program} answered something else than a user of uid {uid}")]
    Nonsense { program: String, uid: u32 },
}

impl Silent {
    /// Whether there is nobody to be asked. Too many processes, or a program that is just being replaced, say nothing of the next time.
    pub(crate) fn is_for_good(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied};
        matches!(self, Self::Start { reason, .. } if matches!(reason.kind(), NotFound | PermissionDenied))
    }
}

/// The name and the fields of the user of that id; `None` where the name service knows none.
pub(crate) async fn ask(program: Arc<Path>, uid: u32) -> Result<Option<(String, PasswdLine)>, Silent> {
    let failed = {
        let program = program.display().to_string();
        move |reason| Silent::Answer { program, uid, reason }
    };
    let (send, answer) = oneshot::channel();
    // Capabilities belong to threads, so that one of its own can give up what the others need.
    let asking = thread::Builder::new().name("getent".into()).spawn(move || drop(send.send(look_up(&program, uid))));
    match asking {
        Ok(_) => answer.await.unwrap_or_else(|_| Err(failed(io::ErrorKind::BrokenPipe.into()))),
        Err(reason) => Err(failed(reason)),
    }
}

/// Blocks, for little longer than [`WITHIN`] unless the kernel itself hangs.
fn look_up(program: &Path, uid: u32) -> Result<Option<(String, PasswdLine)>, Silent> {
    let called = || program.display().to_string();
    let none = CapabilitySets { effective: CapabilitySet::empty(), permitted: CapabilitySet::empty(), inheritable: CapabilitySet::empty() };
    let start = |reason| Silent::Start { program: called(), reason };
    set_no_new_privs(true).and_then(|()| set_capabilities(None, none)).map_err(|error| start(error.into()))?;
    let mut command = Command::new(program);
    command.args(["passwd", &uid.to_string()]).env_clear().env("LC_ALL", "C").current_dir("/").process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(start)?;
    let (status, answer) = finish(&mut child, Instant::now() + WITHIN).map_err(|reason| {
        end(&mut child);
        Silent::Answer { program: called(), uid, reason }
    })?;
    match status.code() {
        Some(0) => {
            let user = files::passwd(&answer, 1).entries.pop_first().filter(|(_, line)| line.uid == uid);
            user.map(Some).ok_or_else(|| Silent::Nonsense { program: called(), uid })
        }
        Some(NOT_FOUND) => Ok(None),
        _ => Err(Silent::Failed { program: called(), uid, status }),
    }
}

/// Reads what it says until it ends.
fn finish(child: &mut Child, deadline: Instant) -> io::Result<(ExitStatus, Vec<u8>)> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        wait_for(&output, deadline)?;
        match output.read(&mut chunk)? {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
        if answer.len() > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    wait_for(&ended, deadline)?;
    Ok((child.wait()?, answer))
}

fn wait_for(what: impl AsFd, deadline: Instant) -> io::Result<()> {
    let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
    let mut ready = [PollFd::new(&what, PollFlags::IN)];
    if poll(&mut ready, Some(&left))? == 0 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
}

/// Kills it, with whatever it started.
fn end(child: &mut Child) {
    let killed = kill_process_group(Pid::from_child(child), Signal::KILL).map_err(io::Error::from).and_then(|()| child.wait());
    if let Err(error) = killed {
        tracing::warn!(%error, "cannot end a program that does not answer");
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::accounts::tests::script;

    #[tokio::test]
    async fn what_the_program_says_is_who_the_user_is() {
        let answers = script("[ \"$*\" = 'passwd 7' ] && echo 'ann:x:7:100:Ann:/home/ann:/bin/sh' && exit; exit 2");
        let program: Arc<Path> = answers.path().join("getent").as_path().into();
        let (name, line) = ask(Arc::clone(&program), 7).await.unwrap().unwrap();
        assert_eq!((name.as_str(), line.uid, line.gid, line.shell.as_str()), ("ann", 7, 100, "/bin/sh"));
        assert_eq!(ask(program, 8).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_program_that_hangs_floods_or_fails_is_said_and_ended() {
        for (script_text, says) in [
            ("sleep 600 & echo $! > \"$0.pid\"; wait", "did not answer"),
            ("exec >&-; sleep 600 & echo $! > \"$0.pid\"; wait", "did not answer"),
            ("while :; do echo too much of it; done", "did not answer"),
            ("exit 1", "failed to say"),
            ("echo 'bob:x:8:8:::'", "something else"),
            ("echo nonsense", "something else"),
        ] {
            let answers = script(script_text);
            let error = ask(answers.path().join("getent").as_path().into(), 7).await.unwrap_err();
            assert!(error.to_string().contains(says), "{script_text}: {error}");
            if let Ok(pid) = std::fs::read_to_string(answers.path().join("getent.pid")) {
                let gone = || !Path::new(&format!("/proc/{}/cmdline", pid.trim())).exists() || cmdline(pid.trim()).is_empty();
                let deadline = Instant::now() + Duration::from_secs(20);
                while !gone() {
                    assert!(Instant::now() < deadline, "what it started lives on");
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        let error = ask(Path::new("/nowhere/getent").into(), 7).await.unwrap_err();
        assert!(matches!(error, Silent::Start { .. }) && error.is_for_good(), "{error}");
        let is_for_good = |errno: Errno| Silent::Start { program: String::new(), reason: errno.into() }.is_for_good();
        assert_eq!([Errno::ACCESS, Errno::AGAIN, Errno::NOMEM, Errno::TXTBSY].map(is_for_good), [true, false, false, false]);
    }

    /// Empty of a process that ended, also while nobody has asked for its status.
    fn cmdline(pid: &str) -> String {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
    }

    #[tokio::test]
    async fn the_program_has_no_capabilities_no_environment_and_may_gain_nothing() {
        let answers = script("cat /proc/self/status > \"$0.status\"; env > \"$0.env\"; exit 2");
        assert_eq!(ask(answers.path().join("getent").as_path().into(), 7).await.unwrap(), None);
        let read = |suffix: &str| std::fs::read_to_string(answers.path().join(format!("getent.{suffix}"))).unwrap();
        let status = read("status");
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        assert_eq!([of("CapEff:"), of("CapPrm:"), of("CapInh:")], ["0000000000000000"; 3].map(str::to_owned));
        assert_eq!(of("NoNewPrivs:"), "1");
        let inherited = read("env")
            .lines()
            .filter(|line| !["LC_ALL=", "PWD=", "_=", "SHLVL=", "OLDPWD="].iter().any(|own| line.starts_with(own)))
            .count();
        assert_eq!(inherited, 0, "{}", read("env"));
    }
}
