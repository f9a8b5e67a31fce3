//! What an operator is told where the kernel does not let itself be listened to.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mayfly_tests::{IMAGE, Mayfly, Result, Row, Verdict, churn, exits, run, until};
use serde_json::Value;

use crate::{amount, docker, turn};

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

/// Records with this configuration, as `launcher` starts it, until `recorder_sources` gives a hint for the probes; then `doctor` must give it too.
fn check(config: &str, launcher: &[&str], error: &str, remedy: &str) -> Result<()> {
    let _turn = turn();
    let mayfly = Mayfly::with(config)?;
    let recording = mayfly.launch_by(launcher)?;
    let source = until("a hint for the probes", Duration::from_secs(20), || {
        let rows = mayfly.query("SELECT * FROM recorder_sources WHERE source = 'ebpf'")?;
        rows.into_iter().find(|row| !text(row, "hint").is_empty()).ok_or_else(|| mayfly.log().into())
    })?;
    // With tracefs at hand plain tracepoints stand in for the probes.
    assert!(["disabled", "running"].contains(&text(&source, "state")), "{source:?}");
    assert!(text(&source, "last_error").starts_with(error) && text(&source, "hint").starts_with(remedy), "{source:?}");
    // That it finds something bad elsewhere is none of our business.
    let findings: Vec<Row> = serde_json::from_slice(&mayfly.command("doctor")?.arg("--json").output()?.stdout)?;
    let finding = findings.iter().find(|finding| text(finding, "what") == "source ebpf").ok_or("doctor says nothing of the probes")?;
    assert_eq!((text(finding, "verdict"), text(finding, "remedy")), ("warn", text(&source, "hint")), "{finding:?}");
    assert!(text(finding, "detail").contains(error), "{finding:?}");
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}

#[test]
fn says_that_the_kernel_has_no_type_information_and_what_would_help() -> Result<()> {
    let error = "cannot read the kernel's type information (BTF";
    check("[ebpf]\nbtf = \"/nonexistent\"\n", &[], error, "run a kernel built with CONFIG_DEBUG_INFO_BTF=y")
}

#[test]
fn says_that_the_recorder_may_not_load_programs_and_what_would_help() -> Result<()> {
    let without_rights = ["setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon"];
    check("", &without_rights, "may not load BPF programs", "run as root, or with CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH")
}

/// The kernel tells no types, and no runtime's API is followed.
#[test]
fn plain_tracepoints_tell_a_containers_life_and_programs() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::with("[ebpf]\nbtf = \"/nonexistent\"\n")?;
    // The host's own tracefs may not be mounted.
    let with_tracefs = "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec \"$@\"";
    let recording = mayfly.launch_by(&["unshare", "--mount", "sh", "-c", with_tracefs, "sh"])?;
    recording.wait_for(&["ebpf"], "running")?;
    let runs = amount(10, 100);
    let ids = Mutex::new(Vec::new());
    churn(runs, 4, |n| {
        let id = run(docker.cli().args(["create", IMAGE, "sh", "-c", "/bin/true; exit 5"]))?.trim().to_owned();
        exits(docker.cli().args(["start", "--attach", &id]), 5).map_err(|error| format!("{n}: {error}"))?;
        run(docker.cli().args(["rm", &id]))?;
        ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        Ok(())
    })?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE source = 'ebpf' AND action = 'die'", runs)?;
    let mut verdict = Verdict::default();
    for id in ids.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let lives =
            mayfly.query(&format!("SELECT action, exit_code FROM container_lifecycle_events WHERE container_id = '{id}' ORDER BY eid"))?;
        let told: Vec<_> =
            lives.iter().map(|row| format!("{} {}", text(row, "action"), row.get("exit_code").unwrap_or(&Value::Null))).collect();
        verdict.check(told == ["create null", "start null", "die 5"], "a life told otherwise", || format!("{id}: {told:?}"));
        let programs = mayfly
            .query(&format!("SELECT action, path, exit_code FROM container_process_events WHERE container_id = '{id}' ORDER BY eid"))?;
        for (path, code) in [("sh", 5_i64), ("/bin/true", 0)] {
            let has = |action: &str, code: Value| {
                programs
                    .iter()
                    .any(|row| text(row, "action") == action && text(row, "path").ends_with(path) && row.get("exit_code") == Some(&code))
            };
            verdict.check(has("exec", Value::Null) && has("exit", Value::from(code)), "a program told otherwise", || {
                format!("{id}: {programs:?}")
            });
        }
    }
    verdict.check(recording.stop()?.success(), "recorder that does not end in order", || mayfly.log());
    verdict.pass()
}
