//! What the kernel tells: every program in every container, connections, and containers that no runtime's API reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use mayfly_tests::{IMAGE, Lifecycle, Mayfly, Result, Row, Verdict, by_name, churn, exits, report, run, until};
use serde_json::Value;

use crate::{amount, containerd, docker, turn};

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

fn number(row: &Row, column: &str) -> Option<i64> {
    row.get(column).and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()))
}

/// The probes' source, whose counters must show no loss.
fn check_probes(verdict: &mut Verdict, mayfly: &Mayfly) -> Result<()> {
    let lost =
        mayfly.query("SELECT * FROM recorder_sources WHERE source = 'ebpf' AND (evicted > 0 OR rejected > 0 OR lost_in_kernel > 0)")?;
    verdict.check(lost.is_empty(), "probes that lost events", || format!("{lost:?}"));
    Ok(())
}

#[test]
fn every_program_of_every_container_is_recorded_with_its_container_and_its_end() -> Result<()> {
    let _turn = turn();
    let (docker, runs) = (docker()?, amount(80, 300));
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let recording = mayfly.record()?;
    let polled = Mutex::new(BTreeSet::new());
    let done = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        // As osquery's `processes` would see it, were it asked each second.
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let seen = processes_in_containers();
                polled.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
                thread::sleep(std::time::Duration::from_secs(1));
            }
        });
        let took = churn(runs, 8, |n| {
            let mut cli = docker.cli();
            exits(cli.args(["run", "--rm", "--name", &format!("job-{n}"), IMAGE, "sh", "-c", "/bin/echo; /bin/true"]), 0)
        });
        done.store(true, Relaxed);
        took
    })?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy' AND name LIKE 'job-%'", runs)?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_process_events WHERE action = 'exit' AND ns_pid = 1", runs)?;

    let mut verdict = Verdict::default();
    check_probes(&mut verdict, &mayfly)?;
    let containers = by_name(Lifecycle::all(&mayfly)?);
    let rows = mayfly.query("SELECT * FROM container_process_events WHERE container_name LIKE 'job-%'")?;
    let mut by_container: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        by_container.entry(text(row, "container_id")).or_default().push(row);
    }
    let (mut execs, mut with_image) = (0_usize, 0_usize);
    for n in 0..runs {
        let name = format!("job-{n}");
        let id = containers.get(&name).and_then(|events| events.first()).map_or("", |event| event.text("container_id"));
        let own = by_container.get(id).map_or(&[][..], Vec::as_slice);
        // Its shell is the first: no program of the container ran before.
        for command in ["sh -c", "/bin/echo", "/bin/true"] {
            let started: Vec<_> =
                own.iter().filter(|row| text(row, "action") == "exec" && text(row, "cmdline").starts_with(command)).collect();
            verdict.check(started.len() == 1, format!("{command} executed {} times", started.len()), || format!("{name} {id}: {own:?}"));
            for exec in started {
                execs += 1;
                with_image += usize::from(text(exec, "image").contains("busybox:test"));
                verdict.check(text(exec, "container_name") == name, "a program of another container", || format!("{name}: {exec:?}"));
                let ended = own.iter().find(|row| text(row, "action") == "exit" && number(row, "pid") == number(exec, "pid"));
                let code = ended.and_then(|row| number(row, "exit_code"));
                verdict.check(code == Some(0), "a program without its exit code", || format!("{name}: {exec:?} {ended:?}"));
            }
        }
    }
    let polled = polled.into_inner().unwrap_or_else(PoisonError::into_inner).len();
    report(&format!(
        "{runs} containers by 8 workers in {took:.1?}: {execs} programs recorded, {with_image} with image; polling /proc each second saw {polled} \
         processes in containers"
    ));
    verdict.check(with_image * 1000 >= execs * 999, "programs without image", || format!("{with_image} of {execs}"));
    verdict.check(recording.stop()?.success(), "recorder that does not end in order", || mayfly.log());
    verdict.pass()
}

/// Start time and pid of each process whose cgroup is a container's.
fn processes_in_containers() -> BTreeSet<(String, String)> {
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        if pid.bytes().all(|b| b.is_ascii_digit())
            && read("cgroup").is_some_and(|cgroup| cgroup.contains("/docker/"))
            && let Some(stat) = read("stat")
        {
            let started = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).unwrap_or_default().to_owned();
            seen.insert((started, pid));
        }
    }
    seen
}

/// Docker's API is not followed: the kernel alone tells.
#[test]
fn containers_that_no_runtime_reports_have_id_and_lifetime_from_the_kernel() -> Result<()> {
    let _turn = turn();
    let (docker, runs) = (docker()?, amount(20, 100));
    let mayfly = Mayfly::with("")?;
    let recording = mayfly.record()?;
    let told = Mutex::new(BTreeMap::new());
    churn(runs, 4, |n| {
        let code = i32::try_from(n % 3)?;
        let id = run(docker.cli().args(["create", IMAGE, "sh", "-c", &format!("/bin/sleep 0.2; exit {code}")]))?.trim().to_owned();
        exits(docker.cli().args(["start", "--attach", &id]), code)?;
        let state = run(docker.cli().args(["inspect", "--format", "{{json .State}}", &id]))?;
        run(docker.cli().args(["rm", &id]))?;
        told.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (code, serde_json::from_str::<Value>(&state)?));
        Ok(())
    })?;
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    let ended = "SELECT count(*) AS n FROM container_lifecycle_events WHERE source = 'ebpf' AND action = 'die'";
    mayfly.wait_for_count(ended, runs)?;
    let rows = mayfly.query("SELECT * FROM container_lifecycle_events ORDER BY eid")?;
    let mut verdict = Verdict::default();
    for (id, (code, state)) in &told {
        let own: Vec<_> = rows.iter().filter(|row| text(row, "container_id") == id).collect();
        let actions: Vec<_> = own.iter().map(|row| text(row, "action")).collect();
        verdict.check(actions == ["create", "start", "die"], "a life told otherwise", || format!("{id}: {actions:?}"));
        for die in own.iter().filter(|row| text(row, "action") == "die") {
            verdict.check(number(die, "exit_code") == Some((*code).into()), "a wrong exit code", || format!("{die:?} {state}"));
            // What Docker calls its life begins a little before the first program and ends a little after it.
            let lifetime = number(die, "lifetime_ms").unwrap_or(-1);
            verdict.check(lifetime >= 199, "a life shorter than its sleep", || format!("{die:?} {state}"));
            let (started, finished) = (state["StartedAt"].as_str().unwrap_or_default(), state["FinishedAt"].as_str().unwrap_or_default());
            let sql = format!("SELECT (julianday('{finished}') - julianday('{started}')) * 86400000 + 2000 > {lifetime} AS fits");
            verdict.check(mayfly.count(&sql)? == 1, "a life longer than Docker's", || format!("{die:?} {state}"));
        }
        let running =
            mayfly.count(&format!("SELECT count(*) AS n FROM container_history WHERE container_id = '{id}' AND state = 'running'"))?;
        verdict.check(running == 1, "runs in the history", || format!("{id}: {running}"));
    }
    verdict.check(recording.stop()?.success(), "recorder that does not end in order", || mayfly.log());
    verdict.pass()
}

/// `runc run` by hand, under a name that no pattern knows.
#[test]
fn a_container_that_runc_alone_made_is_told_from_its_creation_to_its_removal() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::with("")?;
    let recording = mayfly.record()?;
    let bundle = tempfile_dir()?;
    let rootfs = bundle.join("rootfs");
    fs::create_dir(&rootfs)?;
    let made = run(docker.cli().args(["create", IMAGE, "true"]))?;
    let archive = bundle.join("rootfs.tar");
    run(docker.cli().args(["export", "--output"]).arg(&archive).arg(made.trim()))?;
    run(docker.cli().args(["rm", made.trim()]))?;
    run(Command::new("tar").arg("-C").arg(&rootfs).arg("-xf").arg(&archive))?;
    run(Command::new("runc").arg("spec").current_dir(&bundle))?;
    let spec = fs::read_to_string(bundle.join("config.json"))?;
    let mut spec: Value = serde_json::from_str(&spec)?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["/bin/sh", "-c", "exit 5"]);
    fs::write(bundle.join("config.json"), spec.to_string())?;
    let name = format!("by-hand-{}", std::process::id());
    exits(Command::new("runc").arg("run").arg(&name).current_dir(&bundle), 5)?;
    fs::remove_dir_all(&bundle)?;
    let own = format!("FROM container_lifecycle_events WHERE container_id = '{name}'");
    mayfly.wait_for_count(&format!("SELECT count(*) AS n {own} AND action = 'destroy'"), 1)?;
    let rows = mayfly.query(&format!("SELECT action, source, runtime, exit_code {own} ORDER BY eid"))?;
    let told: Vec<_> = rows.iter().map(|row| (text(row, "action"), text(row, "source"))).collect();
    assert_eq!(told, ["create", "start", "die", "destroy"].map(|action| (action, "ebpf")), "{rows:?}");
    assert_eq!(number(&rows[2], "exit_code"), Some(5));
    let programs = mayfly.count(&format!(
        "SELECT count(*) AS n FROM container_process_events WHERE container_id = '{name}' AND action = 'exec' AND cmdline = '/bin/sh -c exit 5'"
    ))?;
    assert_eq!(programs, 1);
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}

fn tempfile_dir() -> Result<std::path::PathBuf> {
    let path = Path::new("/tmp").join(format!("mayfly-bundle-{}", std::process::id()));
    fs::create_dir_all(&path)?;
    Ok(path)
}

#[test]
fn a_connection_joins_with_image_and_labels_of_a_container_that_is_gone() -> Result<()> {
    let _turn = turn();
    let (docker, containerd) = (docker()?, containerd()?);
    let config = format!("[docker]\nendpoints = [\"{}\"]\n[containerd]\nendpoints = [\"{}\"]\n", docker.endpoint(), containerd.endpoint());
    let mayfly = Mayfly::with(&config)?;
    let recording = mayfly.record()?;
    let gateway = docker.gateway();
    // (who runs it, address to dial, as it is shown, family)
    let cases = [
        ("docker", gateway.clone(), gateway.clone(), 2),
        ("containerd", "::1".to_owned(), "::1".to_owned(), 10),
        ("containerd", "::ffff:127.0.0.1".to_owned(), "127.0.0.1".to_owned(), 2),
    ];
    for (at, (runtime, dialled, shown, family)) in cases.iter().enumerate() {
        let listener = TcpListener::bind(("::", 0))?;
        let port = listener.local_addr()?.port();
        let script = format!("/bin/busybox nc -w 2 {dialled} {port} </dev/null");
        let (name, label) = (format!("caller-{at}-{port}"), format!("call={at}"));
        let mut cli = if *runtime == "docker" {
            let mut cli = docker.cli();
            cli.args(["run", "--rm", "--name", &name, "--label", &label, IMAGE]);
            cli
        } else {
            let mut cli = containerd.cli();
            cli.args(["run", "--rm", "--net-host", "--label", &label, IMAGE, &name]);
            cli
        };
        let server = thread::spawn(move || listener.accept().and_then(|(mut peer, _)| peer.read(&mut [0]).map(drop)));
        run(cli.args(["sh", "-c", &script]))?;
        server.join().map_err(|_| "the server panicked")??;
        let sql = format!(
            "SELECT e.action, e.family, e.protocol, e.remote_address, e.remote_port, e.path, e.image AS image_then, h.image, h.labels \
             FROM container_socket_events e LEFT JOIN container_history h ON h.container_id = e.container_id AND h.as_of = e.time_ns \
             WHERE e.remote_port = {port} AND e.action = 'connect'"
        );
        let row = until("connection", std::time::Duration::from_secs(10), || {
            let rows = mayfly.query(&sql)?;
            let is_whole = rows.len() == 1 && text(&rows[0], "labels").contains(&format!("\"call\":\"{at}\""));
            if is_whole { Ok(rows.into_iter().next()) } else { Err(format!("{rows:?}").into()) }
        })?
        .ok_or("no row")?;
        let told = (text(&row, "remote_address"), number(&row, "family"), number(&row, "protocol"));
        assert_eq!(told, (shown.as_str(), Some(*family), Some(6)), "{row:?}");
        assert!(text(&row, "image").contains("busybox:test") && text(&row, "image_then").contains("busybox:test"), "{row:?}");
        assert_eq!(text(&row, "path"), "/bin/busybox", "{row:?}");
    }
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}

/// Their first programs wait, so that their images are known before the next.
#[test]
fn containers_of_an_excluded_image_are_left_out_once_it_is_known() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    run(docker.cli().args(["tag", IMAGE, "dull:1"]))?;
    let config = format!("[docker]\nendpoints = [\"{}\"]\n[ebpf]\nexclude_images = [\"dull:*\"]\n", docker.endpoint());
    let mayfly = Mayfly::with(&config)?;
    let recording = mayfly.record()?;
    for (name, image) in [("dull", "dull:1"), ("other", IMAGE)] {
        let script = "read line; /bin/echo $line; /bin/true";
        let mut cli = docker.cli();
        cli.args(["run", "--detach", "--interactive", "--name", name, image, "sh", "-c", script]);
        run(&mut cli)?;
        mayfly.wait_for_count(
            &format!("SELECT count(*) AS n FROM container_history WHERE name = '{name}' AND state = 'running' AND image <> ''"),
            1,
        )?;
    }
    for name in ["dull", "other"] {
        run(docker.cli().args(["exec", name, "/bin/echo", "seen"]))?;
        run(docker.cli().args(["exec", name, "/bin/echo", "unseen"]))?;
        run(docker.cli().args(["rm", "--force", name]))?;
    }
    let programs = |name: &str, word: &str| {
        format!("SELECT count(*) AS n FROM container_process_events WHERE container_name = '{name}' AND cmdline = '/bin/echo {word}'")
    };
    mayfly.wait_for_count(&programs("other", "unseen"), 1)?;
    assert_eq!(mayfly.count(&programs("dull", "unseen"))?, 0);
    run(docker.cli().args(["rmi", "dull:1"]))?;
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}

#[test]
fn a_fork_bomb_in_one_container_costs_the_others_nothing() -> Result<()> {
    let _turn = turn();
    let (docker, quiet) = (docker()?, amount(20, 50));
    let mayfly = Mayfly::with(&format!("[docker]\nendpoints = [\"{}\"]\n[ebpf]\nmax_events_per_second = 50\n", docker.endpoint()))?;
    let recording = mayfly.record()?;
    let bomb = "for i in 1 2 3 4; do (while /bin/true; do /bin/true; done) & done; wait";
    run(docker.cli().args(["run", "--detach", "--rm", "--name", "bomb", IMAGE, "sh", "-c", bomb]))?;
    churn(quiet, 2, |n| run(docker.cli().args(["run", "--rm", "--name", &format!("quiet-{n}"), IMAGE, "/bin/true"])).map(drop))?;
    run(docker.cli().args(["kill", "bomb"]))?;
    let ended = "SELECT count(*) AS n FROM container_lifecycle_events WHERE name LIKE 'quiet-%' AND action = 'destroy'";
    mayfly.wait_for_count(ended, quiet)?;
    mayfly
        .wait_for_count("SELECT count(*) AS n FROM container_process_events WHERE action = 'throttled' AND container_name = 'bomb'", 1)?;
    let mut verdict = Verdict::default();
    // By id: a row that the kernel told before a starved daemon did has no name.
    let all = Lifecycle::all(&mayfly)?;
    let ids: BTreeMap<&str, &str> =
        all.iter().filter(|e| e.text("name").starts_with("quiet-")).map(|e| (e.text("container_id"), e.text("name"))).collect();
    verdict.check(ids.len() == quiet, "containers of the others missing", || format!("{} of {quiet}", ids.len()));
    for (id, name) in ids {
        for step in ["create", "start", "die", "destroy"] {
            let own: Vec<_> = all.iter().filter(|e| e.text("container_id") == id && e.action() == step).collect();
            verdict.check(own.len() == 1, format!("{step} recorded {} times", own.len()), || format!("{name}: {own:?}"));
        }
    }
    let programs = "SELECT count(*) AS n FROM container_process_events WHERE container_name LIKE 'quiet-%' AND action = 'exec' AND cmdline = '/bin/true'";
    let programs = mayfly.count(programs)?;
    verdict.check(programs == i64::try_from(quiet)?, "programs of the others missing", || format!("{programs} of {quiet}"));
    let bomb =
        mayfly.query("SELECT count(*) AS n, coalesce(sum(shed), 0) AS shed FROM container_process_events WHERE container_name = 'bomb'")?;
    report(&format!("fork bomb: {bomb:?}"));
    verdict.check(bomb.first().and_then(|row| number(row, "shed")).is_some_and(|shed| shed > 0), "nothing shed", || format!("{bomb:?}"));
    verdict.check(recording.stop()?.success(), "recorder that does not end in order", || mayfly.log());
    verdict.pass()
}
