//! Whose process was it? A uid is given to one name, taken away, and given to another; each process has the name of its time.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use mayfly_tests::{IMAGE, Mayfly, Result, Row, Verdict, report, run, tool};
use serde_json::Value;

use crate::{
    amount, containerd, docker,
    mounts::{Place as Mounted, who_is_told},
    turn,
};

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

type Give<'a> = Box<dyn Fn(Option<&str>) -> Result<()> + 'a>;
type Execute<'a> = Box<dyn Fn(&str) -> Result<()> + 'a>;

/// Where a uid is given to names, and processes run as it.
struct Place<'a> {
    container: String,
    /// As the host's kernel sees it.
    uid: u32,
    programs: usize,
    /// Gives the uid to that name and to no other.
    give: Give<'a>,
    /// Runs `/bin/echo WORD` as the uid.
    run: Execute<'a>,
}

/// Each process event with the name that the uid had then, as an analyst would ask; first the one that tells which program it was.
const JOIN: &str = "SELECT e.pid, e.action, e.cmdline, e.time_ns, coalesce(u.username, '') AS username FROM container_process_events e \
    LEFT JOIN users_history u ON u.uid = e.uid AND u.container_id = e.container_id AND u.as_of = e.time_ns";

impl Place<'_> {
    fn check(&self, mayfly: &Mayfly, verdict: &mut Verdict) -> Result<()> {
        let Self { container, uid, programs, .. } = self;
        let phases = [("ann", Some("mayfly-ann")), ("nobody", None), ("bob", Some("mayfly-bob")), ("nobody-again", None)];
        for (at, (phase, name)) in phases.into_iter().enumerate() {
            (self.give)(name)?;
            // At once: whoever is told of the account first, the time of its file counts.
            for n in 0..*programs {
                (self.run)(&format!("{phase}-{n}"))?;
            }
            // The next change waits until this one is seen: what comes and goes between two looks leaves nothing to look at.
            let (action, of) = if name.is_some() { ("user_added", at / 2 + 1) } else { ("user_removed", at.div_ceil(2)) };
            let seen = format!(
                "SELECT count(*) AS n FROM account_events WHERE action = '{action}' AND uid = {uid} AND container_id = '{container}'"
            );
            mayfly.wait_for_count(&seen, of)?;
        }
        let own = format!("WHERE e.uid = {uid} AND e.container_id = '{container}'");
        let all = phases.len() * programs;
        mayfly.wait_for_count(&format!("SELECT count(*) AS n FROM container_process_events e {own} AND action = 'exit'"), all)?;
        let rows = mayfly.query(&format!("{JOIN} {own} ORDER BY e.time_ns"))?;
        for (phase, name) in phases {
            for n in 0..*programs {
                let program = format!("/bin/echo {phase}-{n}");
                let pid = rows.iter().find(|row| text(row, "cmdline") == program).and_then(|row| row.get("pid"));
                let events: Vec<_> = rows.iter().filter(|row| pid.is_some() && row.get("pid") == pid).collect();
                verdict.check(events.len() >= 2, format!("{container}: events missing"), || format!("{program}: {events:?}"));
                for row in events {
                    verdict.check(text(row, "username") == name.unwrap_or_default(), format!("{container}: another name"), || {
                        format!("{program}: {row:?}; {:?}", mayfly.query("SELECT * FROM users_history WHERE username LIKE 'mayfly%'"))
                    });
                }
            }
        }
        Ok(())
    }
}

/// An account of this very host, taken away again whatever happens.
struct Accounts;

impl Accounts {
    const UID: u32 = 54_321;
    const NAMES: [&str; 2] = ["mayfly-ann", "mayfly-bob"];

    fn give(name: Option<&str>) -> Result<()> {
        let passwd = fs::read_to_string("/etc/passwd")?;
        for there in Self::NAMES.iter().filter(|there| passwd.lines().any(|line| line.starts_with(&format!("{there}:")))) {
            run(Command::new(tool("userdel", "passwd")?).arg(there))?;
        }
        let Some(name) = name else { return Ok(()) };
        let mut add = Command::new(tool("useradd", "passwd")?);
        run(add.args(["--no-create-home", "--gid", "65534", "--uid", &Self::UID.to_string(), name])).map(drop)
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        if let Err(error) = Self::give(None) {
            report(&format!("an account of the test may be left: {error}"));
        }
    }
}

#[test]
fn every_process_event_joins_to_the_name_that_its_uid_had_then() -> Result<()> {
    let _turn = turn();
    let (docker, containerd) = (docker()?, containerd()?);
    let config = format!(
        "[docker]\nendpoints = [\"{}\"]\n[containerd]\nendpoints = [\"{}\"]\n[accounts]\n[ebpf]\nhost_processes = true\n",
        docker.endpoint(),
        containerd.endpoint()
    );
    let mayfly = Mayfly::with(&config)?;
    let _accounts = Accounts;
    Accounts::give(None)?;
    let recording = mayfly.record()?;
    let mut verdict = Verdict::default();

    let as_user = |word: &str| run(Command::new("/bin/echo").arg(word).uid(Accounts::UID).gid(65_534)).map(drop);
    let host = Place {
        container: String::new(),
        uid: Accounts::UID,
        programs: amount(10, 50),
        give: Box::new(Accounts::give),
        run: Box::new(as_user),
    };
    host.check(&mayfly, &mut verdict)?;

    // What a shell in the container does, as every tool does it: another file is renamed over the one that is there.
    let script = |name: Option<&str>| {
        let line = name.map(|name| format!("echo '{name}:x:1000:1000::/:/bin/sh' >> /etc/passwd.new; ")).unwrap_or_default();
        format!("busybox mkdir -p /etc; echo 'root:x:0:0::/:/bin/sh' > /etc/passwd.new; {line}busybox mv /etc/passwd.new /etc/passwd")
    };
    let id = run(docker.cli().args(["run", "--detach", "--network", "none", IMAGE, "sleep", "600"]))?.trim().to_owned();
    let in_docker = Place {
        container: id.clone(),
        uid: 1000,
        programs: amount(2, 5),
        give: Box::new(|name| run(docker.cli().args(["exec", &id, "sh", "-c", &script(name)])).map(drop)),
        run: Box::new(|word| run(docker.cli().args(["exec", "--user", "1000", &id, "/bin/echo", word])).map(drop)),
    };
    in_docker.check(&mayfly, &mut verdict)?;
    run(docker.cli().args(["rm", "--force", &id]))?;

    // The same id again, which is another to the host's kernel.
    let name = format!("mapped-{}", std::process::id());
    let map = ["--uidmap", "0:300000:65536", "--gidmap", "0:300000:65536"];
    run(containerd.cli().args(["run", "--detach"]).args(map).args([IMAGE, &name, "sleep", "600"]))?;
    let executed = AtomicUsize::new(0);
    let exec = |user: &str, command: &[&str]| {
        let id = format!("exec-{}", executed.fetch_add(1, Relaxed));
        run(containerd.cli().args(["tasks", "exec", "--user", user, "--exec-id", &id, &name]).args(command)).map(drop)
    };
    let mapped = Place {
        container: name.clone(),
        uid: 301_000,
        programs: amount(2, 5),
        give: Box::new(|user| exec("0", &["sh", "-c", &script(user)])),
        run: Box::new(|word| exec("1000", &["/bin/echo", word])),
    };
    mapped.check(&mayfly, &mut verdict)?;
    run(containerd.cli().args(["tasks", "delete", "--force", &name]))?;

    verdict.check(recording.stop()?.success(), "recorder that does not end in order", || mayfly.log());
    verdict.pass()
}

/// A source of the name service that is nobody's file: `libnss-extrausers` of Debian, switched on for the time of a test.
struct ExtraUsers {
    before: String,
}

impl ExtraUsers {
    const SWITCH: &str = "/etc/nsswitch.conf";
    const HOME: &str = "/var/lib/extrausers";
    const USERS: &str = "passwd";
    const GROUPS: &str = "group";

    fn switch_on() -> Result<Self> {
        if !run(Command::new("/sbin/ldconfig").arg("-p"))?.contains("libnss_extrausers") {
            return Err("libnss_extrausers is not installed: `apt-get install libnss-extrausers`, or `cargo xtask setup`".into());
        }
        let before = fs::read_to_string(Self::SWITCH)?;
        let is_ours = |line: &str| [Self::USERS, Self::GROUPS].iter().any(|name| line.starts_with(&format!("{name}:")));
        let line = |line: &str| if is_ours(line) { format!("{line} extrausers") } else { line.to_owned() };
        let with = before.lines().map(line).collect::<Vec<_>>().join("\n");
        let switched = Self { before };
        fs::write(Self::SWITCH, with + "\n")?;
        Ok(switched)
    }

    fn write(name: &str, lines: &str) -> Result<()> {
        let file = format!("{}/{name}", Self::HOME);
        let beside = format!("{file}.new");
        fs::create_dir_all(Self::HOME)?;
        fs::write(&beside, lines)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o644))?;
        Ok(fs::rename(beside, file)?)
    }
}

impl Drop for ExtraUsers {
    fn drop(&mut self) {
        let restored = fs::write(Self::SWITCH, &self.before);
        for name in [Self::USERS, Self::GROUPS] {
            let _ = fs::remove_file(format!("{}/{name}", Self::HOME));
        }
        if let Err(error) = restored {
            report(&format!("{} was left changed: {error}", Self::SWITCH));
        }
    }
}

#[test]
fn a_user_and_a_group_of_the_name_service_are_known_from_the_first_process_that_shows_them() -> Result<()> {
    const UID: u32 = 54_322;
    const GID: u32 = 54_323;
    let _turn = turn();
    let _switched = ExtraUsers::switch_on()?;
    ExtraUsers::write(ExtraUsers::USERS, &format!("mayfly-sss:x:{UID}:{GID}:from the directory:/:/bin/sh\n"))?;
    ExtraUsers::write(ExtraUsers::GROUPS, &format!("mayfly-team:x:{GID}:mayfly-sss,mayfly-ann\n"))?;
    let mayfly = Mayfly::with("[accounts]\n[ebpf]\nhost_processes = true\n")?;
    let names = format!("{JOIN} WHERE e.uid = {UID} ORDER BY e.time_ns");
    let named = format!("SELECT count(*) AS n FROM users_history WHERE username = 'mayfly-sss' AND evidence = 'nss' AND uid = {UID}");
    let team = format!("SELECT count(*) AS n FROM groups_history WHERE groupname = 'mayfly-team' AND evidence = 'nss' AND gid = {GID}");
    let show = |word: &str| run(Command::new("/bin/echo").arg(word).uid(UID).gid(GID));
    let mut verdict = Verdict::default();

    let recording = mayfly.record()?;
    show("first")?;
    mayfly.wait_for_count(&named, 1)?;
    mayfly.wait_for_count(&format!("{team} AND members = '[\"mayfly-ann\",\"mayfly-sss\"]'"), 1)?;
    show("second")?;
    mayfly.wait_for_count(&format!("SELECT count(*) AS n FROM container_process_events WHERE uid = {UID} AND action = 'exit'"), 2)?;
    let rows = mayfly.query(&names)?;
    verdict
        .check(rows.iter().all(|row| text(row, "username") == "mayfly-sss"), "process events without their name", || format!("{rows:?}"));
    verdict.check(rows.len() >= 4, "process events", || format!("{rows:?}"));
    let groups = mayfly.query(&format!(
        "SELECT e.cmdline, coalesce(g.groupname, '') AS groupname FROM container_process_events e LEFT JOIN groups_history g \
         ON g.gid = e.gid AND g.container_id = e.container_id AND g.as_of = e.time_ns WHERE e.gid = {GID}"
    ))?;
    let are_named = groups.len() >= 4 && groups.iter().all(|row| text(row, "groupname") == "mayfly-team");
    verdict.check(are_named, "process events without the name of their group", || format!("{groups:?}"));
    let told = mayfly.count("SELECT count(*) AS n FROM account_events WHERE username = 'mayfly-sss' OR groupname = 'mayfly-team'")?;
    verdict.check(told == 0, "an account that nobody added just now", || told.to_string());
    recording.stop()?;

    // Nobody knows what became of it while nobody asked, until it is seen again.
    let recording = mayfly.record()?;
    for known in [&named, &team] {
        mayfly.wait_for_count(&format!("{known} AND ended_reason = 'unknown' AND complete = 0"), 1)?;
    }
    show("third")?;
    for known in [&named, &team] {
        mayfly.wait_for_count(&format!("{known} AND valid_to IS NULL"), 1)?;
    }
    let third = "SELECT count(*) AS n FROM container_process_events WHERE cmdline = '/bin/echo third' AND action = 'exec'";
    mayfly.wait_for_count(third, 1)?;
    let rows = mayfly.query(&names)?;
    verdict.check(rows.iter().all(|row| text(row, "username") == "mayfly-sss"), "names after a restart", || format!("{rows:?}"));
    recording.stop()?;
    verdict.pass()
}

#[test]
fn a_user_of_the_name_service_who_mounts_is_known_though_no_process_of_the_host_is_recorded() -> Result<()> {
    const UID: u32 = 54_324;
    let _turn = turn();
    let _switched = ExtraUsers::switch_on()?;
    ExtraUsers::write(ExtraUsers::USERS, &format!("mayfly-mounts:x:{UID}:65534::/:/bin/sh\n"))?;
    let mayfly = Mayfly::with("[accounts]\n[mounts]\nenabled = true\n")?;
    let recording = mayfly.record()?;
    let home = tempfile::tempdir()?;
    let at = Mounted(home.path().to_owned());
    // Programs that mount want to be root; the call itself only wants the capability.
    let call = "import ctypes, sys; sys.exit(ctypes.CDLL(None).mount(b'of-a-user', sys.argv[1].encode(), b'tmpfs', 0, None))";
    let mut mount = Command::new(tool("setpriv", "util-linux")?);
    mount.args([&format!("--reuid={UID}"), "--regid=65534", "--clear-groups", "--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"]);
    run(mount.arg("/usr/bin/python3").args(["-c", call]).arg(&at.0))?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM mount_events WHERE device = 'of-a-user'", 1)?;
    if who_is_told(&mayfly)? {
        mayfly.wait_for_count(&format!("SELECT count(*) AS n FROM mount_events WHERE device = 'of-a-user' AND uid = {UID}"), 1)?;
        let named = "SELECT count(*) AS n FROM users_history WHERE username = 'mayfly-mounts' AND evidence = 'nss'";
        mayfly.wait_for_count(named, 1)?;
    } else {
        report("this kernel does not tell who mounts, so that nobody is asked for");
    }
    drop(at);
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}
