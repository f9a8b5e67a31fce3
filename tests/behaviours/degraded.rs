//! What an operator is told where the kernel does not let itself be listened to.

use std::time::Duration;

use mayfly_tests::{Mayfly, Result, Row, until};
use serde_json::Value;

use crate::turn;

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
