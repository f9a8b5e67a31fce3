//! Asks the system's name service for a user or a group, in a process of its own: its modules are other people's code, which may be slow or worse.

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

use super::asked::Asked;

/// One answer, from the start of the program on.
const WITHIN: Duration = Duration::from_secs(2);
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
    #[error("{program} did not answer who has {what} {id}")]
    Answer {
        program: String,
        what: &'static str,
        id: u32,
        #[source]
        reason: io::Error,
    },
    #[error("{program} failed to say who has {what} {id}: {status}")]
    Failed { program: String, what: &'static str, id: u32, status: ExitStatus },
    #[error("{program} answered something else than who has {what} {id}")]
    Nonsense { program: String, what: &'static str, id: u32 },
}

impl Silent {
    /// Whether there is nobody to be asked. Too many processes, or a program that is just being replaced, say nothing of the next time.
    pub(crate) fn is_for_good(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied};
        matches!(self, Self::Start { reason, .. } if matches!(reason.kind(), NotFound | PermissionDenied))
    }
}

/// The account of that id; `None` where the name service knows none.
pub(crate) async fn ask<A: Asked>(program: Arc<Path>, id: u32) -> Result<Option<A>, Silent> {
    let failed = {
        let program = program.display().to_string();
        move |reason| Silent::Answer { program, what: A::ID, id, reason }
    };
    let (send, answer) = oneshot::channel();
    // Capabilities belong to threads, so that one of its own can give up what the others need.
    let asking = thread::Builder::new().name("getent".into()).spawn(move || drop(send.send(look_up(&program, id))));
    match asking {
        Ok(_) => answer.await.unwrap_or_else(|_| Err(failed(io::ErrorKind::BrokenPipe.into()))),
        Err(reason) => Err(failed(reason)),
    }
}

/// Blocks, for little longer than [`WITHIN`] unless the kernel itself hangs.
fn look_up<A: Asked>(program: &Path, id: u32) -> Result<Option<A>, Silent> {
    let called = || program.display().to_string();
    let none = CapabilitySets { effective: CapabilitySet::empty(), permitted: CapabilitySet::empty(), inheritable: CapabilitySet::empty() };
    let start = |reason| Silent::Start { program: called(), reason };
    set_no_new_privs(true).and_then(|()| set_capabilities(None, none)).map_err(|error| start(error.into()))?;
    let mut command = Command::new(program);
    command.args([A::DATABASE, &id.to_string()]).env_clear().env("LC_ALL", "C").current_dir("/").process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(start)?;
    let (status, answer) = finish(&mut child, A::LONGEST, Instant::now() + WITHIN).map_err(|reason| {
        end(&mut child);
        Silent::Answer { program: called(), what: A::ID, id, reason }
    })?;
    match status.code() {
        Some(0) => {
            let account = A::parse(&answer).filter(|account| account.id() == Some(id.into()));
            account.map(Some).ok_or_else(|| Silent::Nonsense { program: called(), what: A::ID, id })
        }
        Some(NOT_FOUND) => Ok(None),
        _ => Err(Silent::Failed { program: called(), what: A::ID, id, status }),
    }
}

/// Reads what it says until it ends, `longest` bytes at most.
fn finish(child: &mut Child, longest: usize, deadline: Instant) -> io::Result<(ExitStatus, Vec<u8>)> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        wait_for(&output, deadline)?;
        match output.read(&mut chunk)? {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
        if answer.len() > longest {
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
    use mayfly_history::account::{Group, User};
    use rustix::io::Errno;

    use super::*;
    use crate::accounts::tests::script;

    #[tokio::test]
    async fn what_the_program_says_is_who_the_user_is() {
        let answers = script("[ \"$*\" = 'passwd 7' ] && echo 'ann:x:7:100:Ann:/home/ann:/bin/sh' && exit; exit 2");
        let program: Arc<Path> = answers.path().join("getent").as_path().into();
        let ann = ask::<User>(Arc::clone(&program), 7).await.unwrap().unwrap();
        assert_eq!((ann.name.as_str(), ann.uid, ann.gid, ann.shell.as_str()), ("ann", Some(7), Some(100), "/bin/sh"));
        assert_eq!(ask::<User>(program, 8).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_group_may_have_more_members_than_a_user_has_words() {
        let answers = script(
            "[ \"$*\" = 'group 9' ] || exit 2; printf 'team:x:9:'; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); printf 'member%d,' $i; done; echo ann",
        );
        let program: Arc<Path> = answers.path().join("getent").as_path().into();
        let team = ask::<Group>(Arc::clone(&program), 9).await.unwrap().unwrap();
        assert_eq!((team.name.as_str(), team.gid, team.members.len(), team.members[0].as_str()), ("team", Some(9), 3001, "ann"));
        assert_eq!(ask::<Group>(program, 8).await.unwrap(), None);
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
            let error = ask::<User>(answers.path().join("getent").as_path().into(), 7).await.unwrap_err();
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
        let error = ask::<User>(Path::new("/nowhere/getent").into(), 7).await.unwrap_err();
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
        assert_eq!(ask::<User>(answers.path().join("getent").as_path().into(), 7).await.unwrap(), None);
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
