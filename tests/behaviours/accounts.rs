//! A user id belongs to one name now and to another later, and to others again in a container with its own passwd.

use std::{fs, path::Path};

use mayfly_tests::{IMAGE, Mayfly, Result, Row, Verdict, run};
use serde_json::Value;

use crate::{containerd, turn};

/// As every tool does it: another file is renamed over the one that is there.
fn write(etc: &Path, name: &str, content: &str) -> Result<()> {
    fs::create_dir_all(etc)?;
    let beside = etc.join(format!("{name}.new"));
    fs::write(&beside, content)?;
    Ok(fs::rename(beside, etc.join(name))?)
}

/// The names that had a uid at the moment that an event tells, as a scheduled query would ask.
fn names(mayfly: &Mayfly, uid: u32, container: &str, event: &str) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT u.username FROM account_events e CROSS JOIN users_history u ON u.uid = {uid} AND u.as_of = e.time_ns \
         WHERE u.container_id = '{container}' AND e.action || ' ' || e.username = '{event}' ORDER BY 1"
    );
    Ok(mayfly.query(&sql)?.iter().map(|row| text(row, "username")).collect())
}

fn text(row: &Row, column: &str) -> String {
    row.get(column).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[test]
fn an_id_has_the_name_of_its_time_also_after_a_restart() -> Result<()> {
    let _turn = turn();
    let root = tempfile::tempdir()?;
    let etc = root.path().join("etc");
    write(&etc, "passwd", "root:x:0:0::/root:/bin/sh\njoe:x:1000:1000::/home/joe:/bin/sh\n")?;
    write(&etc, "group", "sudo:x:27:joe\n")?;
    let mayfly = Mayfly::with(&format!("[accounts]\nroot = \"{}\"\n", root.path().display()))?;
    let recording = mayfly.record()?;
    let events = "SELECT count(*) AS n FROM account_events";
    write(&etc, "passwd", "root:x:0:0::/root:/bin/sh\n")?;
    mayfly.wait_for_count(events, 1)?;
    write(&etc, "passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")?;
    mayfly.wait_for_count(events, 2)?;
    write(&etc, "passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/bash\nbob:x:1001:1001:::\n")?;
    write(&etc, "group", "sudo:x:27:ann\n")?;
    mayfly.wait_for_count(events, 5)?;
    // Events and what holds since are written by different transactions at times.
    mayfly.wait_for_count("SELECT count(*) AS n FROM users_history WHERE shell = '/bin/bash'", 1)?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM groups_history WHERE evidence = 'accounts'", 1)?;

    let mut verdict = Verdict::default();
    let mut check = |what: &str, found: Vec<String>, expected: &[&str]| {
        verdict.check(found == expected, what, || format!("{found:?} instead of {expected:?}"));
    };
    check("before ann came", names(&mayfly, 1000, "", "user_removed joe")?, &[]);
    check("when ann came", names(&mayfly, 1000, "", "user_added ann")?, &["ann"]);
    check("at all times", names(&mayfly, 0, "", "user_added bob")?, &["root"]);
    let before =
        "SELECT username FROM users_history WHERE uid = 1000 AND as_of = (SELECT valid_from_ns FROM users_history WHERE username = 'joe')";
    check("at the start", mayfly.query(before)?.iter().map(|row| text(row, "username")).collect(), &["joe"]);
    let shells = "SELECT shell || ' ' || ended_reason AS s FROM users_history WHERE username = 'ann' ORDER BY valid_from_ns";
    check("ann's shells", mayfly.query(shells)?.iter().map(|row| text(row, "s")).collect(), &["/bin/sh changed", "/bin/bash "]);
    let members = "SELECT members || evidence AS m FROM groups_history ORDER BY valid_from_ns";
    check("members", mayfly.query(members)?.iter().map(|row| text(row, "m")).collect(), &["[\"joe\"]startup", "[\"ann\"]accounts"]);

    recording.stop()?;
    write(&etc, "passwd", "root:x:0:0::/root:/bin/sh\neve:x:1000:1000:::\n")?;
    let recording = mayfly.record()?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM users_history WHERE username = 'eve'", 1)?;
    let ends = "SELECT username || ' ' || ended_reason || ' ' || complete AS e FROM users_history WHERE uid = 1000 ORDER BY valid_from_ns DESC LIMIT 2";
    check("ends after the gap", mayfly.query(ends)?.iter().map(|row| text(row, "e")).collect(), &["eve  1", "ann unknown 0"]);
    let rows = mayfly.query("SELECT valid_from_ns FROM users_history WHERE username = 'root'")?;
    check("root goes on", vec![rows.len().to_string()], &["1"]);
    recording.stop()?;
    verdict.pass()
}

#[test]
fn a_containers_ids_are_its_own() -> Result<()> {
    let _turn = turn();
    let containerd = containerd()?;
    let home = tempfile::tempdir()?;
    let (host, inside) = (home.path().join("host"), home.path().join("inside"));
    write(&host.join("etc"), "passwd", "joe:x:1000:1000::/home/joe:/bin/sh\n")?;
    write(&inside, "passwd", "app:x:1000:1000::/app:/bin/sh\n")?;
    let mayfly =
        Mayfly::with(&format!("[containerd]\nendpoints = [\"{}\"]\n[accounts]\nroot = \"{}\"\n", containerd.endpoint(), host.display()))?;
    let recording = mayfly.record()?;
    let mount = format!("type=bind,src={},dst=/etc,options=rbind:ro", inside.display());
    run(containerd.cli().args(["run", "--detach", "--mount", &mount, IMAGE, "with-passwd", "sleep", "600"]))?;
    let mapped = ["--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"];
    run(containerd.cli().args(["run", "--detach", "--mount", &mount]).args(mapped).args([IMAGE, "in-namespace", "sleep", "600"]))?;
    let script = "busybox mkdir /etc; echo 'late:x:7:7:::' > /etc/passwd; sleep 600";
    run(containerd.cli().args(["run", "--detach", IMAGE, "makes-passwd", "sh", "-c", script]))?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM users_history WHERE container_id <> ''", 3)?;

    let mut verdict = Verdict::default();
    let sql = "SELECT uid || ' ' || username || ' ' || container_id AS u FROM users_history ORDER BY 1";
    let users: Vec<_> = mayfly.query(sql)?.iter().map(|row| text(row, "u")).collect();
    let expected = ["1000 app with-passwd", "1000 joe ", "201000 app in-namespace", "7 late makes-passwd"];
    verdict.check(users == expected, "users", || format!("{users:?} instead of {expected:?}"));
    // A process of the container ran from its start; its user must be known from there.
    let early = "SELECT count(*) AS n FROM users_history u JOIN container_lifecycle_events e ON e.container_id = u.container_id \
                 WHERE e.action = 'start' AND u.container_id = 'with-passwd' AND u.valid_from_ns <= e.time_ns";
    verdict.check(mayfly.count(early)? == 1, "user known from the container's start", String::new);
    write(&inside, "passwd", "app:x:1000:1000::/app:/bin/sh\nmore:x:1001:1001:::\n")?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM account_events WHERE username = 'more' AND container_id = 'with-passwd'", 1)?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM account_events WHERE username = 'more' AND uid = 201001", 1)?;
    for name in ["with-passwd", "in-namespace", "makes-passwd"] {
        run(containerd.cli().args(["tasks", "delete", "--force", name]))?;
    }
    mayfly.wait_for_count("SELECT 5 - count(*) AS n FROM users_history WHERE container_id <> '' AND valid_to IS NULL", 5)?;
    recording.stop()?;
    verdict.pass()
}
