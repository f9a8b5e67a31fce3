//! The host says who it is, in one row.

use mayfly_tests::{Mayfly, Result, Verdict};
use serde_json::Value;

use crate::turn;

#[test]
fn the_host_has_one_identity_also_after_a_restart() -> Result<()> {
    let _turn = turn();
    let mayfly = Mayfly::with("[identity]\ncloud = \"none\"\n")?;
    let recording = mayfly.record()?;
    const NOW: &str = "SELECT * FROM host_identity";
    mayfly.wait_for_count("SELECT count(*) AS n FROM host_identity", 1)?;
    let before = mayfly.query(NOW)?;
    recording.stop()?;
    let recording = mayfly.record()?;
    let mut verdict = Verdict::default();
    let after = mayfly.query(NOW)?;
    verdict.check(before == after && after.len() == 1, "identity after a restart", || format!("{before:?} then {after:?}"));
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let told = |column: &str| after.first().and_then(|row| row.get(column)).and_then(Value::as_str).unwrap_or_default().to_owned();
    verdict.check(told("hostname") == hostname.trim(), "hostname", || told("hostname"));
    verdict.check(told("incarnation_id").len() == 32 && !told("boot_id").is_empty(), "ids", || format!("{after:?}"));
    let intervals = mayfly.count("SELECT count(*) AS n FROM host_identity_history")?;
    verdict.check(intervals == 1, "one interval over the restart", || intervals.to_string());
    recording.stop()?;
    verdict.pass()
}
