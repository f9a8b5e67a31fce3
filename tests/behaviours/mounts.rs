//! What is mounted within a container is told, and ends with it.

use mayfly_tests::{IMAGE, Mayfly, Result, Verdict, run};

use crate::{containerd, turn};

#[test]
fn what_a_container_mounts_is_told_and_ends_with_it() -> Result<()> {
    let _turn = turn();
    let containerd = containerd()?;
    let endpoint = containerd.endpoint();
    let mayfly = Mayfly::with(&format!("[containerd]\nendpoints = [\"{endpoint}\"]\n[mounts]\nenabled = true\n"))?;
    let recording = mayfly.record()?;
    let script = "busybox mkdir /m; sleep 1; busybox mount -t tmpfs inner /m; sleep 600";
    run(containerd.cli().args(["run", "--detach", "--privileged", IMAGE, "mounts-within", "sh", "-c", script]))?;
    let open = "SELECT count(*) AS n FROM mounts_history WHERE container_id = 'mounts-within' AND valid_to IS NULL";
    mayfly.wait_for_count(&format!("{open} AND path = '/m'"), 1)?;

    let mut verdict = Verdict::default();
    let mounted =
        mayfly.query("SELECT action, device, path, type FROM mount_events WHERE container_id = 'mounts-within' AND path = '/m'")?;
    let told = format!("{mounted:?}");
    verdict.check(mounted.len() == 1 && ["inner", "tmpfs"].iter().all(|word| told.contains(word)), "mount within", || told);
    // The container's root, and what the runtime mounts for it, were there before its first program ran.
    let roots = mayfly.count(&format!("{open} AND path IN ('/', '/proc') AND mnt_namespace <> ''"))?;
    verdict.check(roots == 2, "root and /proc", || roots.to_string());
    let early = "SELECT count(*) AS n FROM mounts_history m JOIN container_lifecycle_events e ON e.container_id = m.container_id \
                 WHERE e.action = 'start' AND m.path = '/proc' AND m.valid_from_ns <= e.time_ns AND m.container_id = 'mounts-within'";
    verdict.check(mayfly.count(early)? == 1, "known from the container's start", String::new);
    run(containerd.cli().args(["tasks", "delete", "--force", "mounts-within"]))?;
    mayfly.wait_for_count(&format!("SELECT 1 - count(*) AS n FROM ({})", open.replace("count(*) AS n", "*")), 1)?;
    recording.stop()?;
    verdict.pass()
}
