//! A pod: containers that come and go in one network namespace. Its address is that of each of them, and of nobody else, while they are in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mayfly_tests::{IMAGE, Mayfly, Result, Row, Verdict, daemon::Podman, report, run, until};

use crate::turn;

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(serde_json::Value::as_str).unwrap_or_default()
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// One who records it, and what containers are called there: a runtime tells names, the kernel alone ids.
struct Watcher<'a> {
    by: &'a str,
    mayfly: Mayfly,
    column: &'a str,
}

impl Watcher<'_> {
    /// Who had the address, in order; with `when`, that is a condition.
    fn holders(&self, address: &str, when: &str) -> Result<Vec<String>> {
        let column = self.column;
        self.mayfly.lines(&format!("SELECT {column} FROM ip_lease_history WHERE ip_address = '{address}' AND {when} ORDER BY 1"))
    }

    /// Waits until these have it, and nobody else.
    fn wait(&self, address: &str, wanted: &[&str]) -> Result<()> {
        until("holders of the address", Duration::from_secs(20), || {
            let holders = self.holders(address, "valid_to IS NULL")?;
            if holders == wanted {
                Ok(())
            } else {
                Err(format!("{}: {holders:?} instead of {wanted:?}; {}", self.by, self.mayfly.log()).into())
            }
        })
    }
}

#[test]
fn the_address_of_a_pod_names_each_of_its_containers_while_it_is_in_it() -> Result<()> {
    let _turn = turn();
    let podman = Podman::start()?;
    let netlink = "[netlink]\nenabled = true\n";
    let watchers = [
        Watcher {
            by: "podman",
            mayfly: Mayfly::with(&format!("[podman]\nendpoints = [\"{}\"]\n{netlink}", podman.endpoint()))?,
            column: "container_name",
        },
        Watcher { by: "the kernel alone", mayfly: Mayfly::with(netlink)?, column: "container_id" },
    ];
    let recordings = watchers.iter().map(|watcher| watcher.mayfly.record()).collect::<Result<Vec<_>>>()?;
    recordings.iter().try_for_each(|recording| recording.wait_for(&["netlink"], "running"))?;

    podman.pod("web")?;
    let start =
        |name: &str, options: &[&str]| run(podman.runner().args(["--detach", "--name", name]).args(options).args([IMAGE, "sleep", "600"]));
    start("alone", &[])?;
    start("first", &["--pod", "web"])?;
    let inspect = |name: &str, what: &str| {
        Ok::<_, mayfly_tests::Error>(run(podman.cli().args(["inspect", "--format", what, name]))?.trim().to_owned())
    };
    let alone = inspect("alone", "{{.Id}}")?;
    let address = inspect("web-infra", "{{.NetworkSettings.IPAddress}}")?;
    let mut ids = BTreeMap::new();
    let mut check = |names: &[&str]| -> Result<u128> {
        for name in names {
            if !ids.contains_key(*name) {
                ids.insert((*name).to_owned(), inspect(name, "{{.Id}}")?);
            }
        }
        for watcher in &watchers {
            let mut wanted: Vec<&str> = names.to_vec();
            if watcher.column == "container_id" {
                wanted = names.iter().map(|name| ids[*name].as_str()).collect();
            }
            wanted.sort_unstable();
            watcher.wait(&address, &wanted)?;
        }
        Ok(now())
    };
    let two = check(&["first", "web-infra"])?;
    start("second", &["--pod", "web"])?;
    let three = check(&["first", "second", "web-infra"])?;
    run(podman.cli().args(["rm", "--force", "--time", "0", "first"]))?;
    let later = check(&["second", "web-infra"])?;
    run(podman.cli().args(["pod", "rm", "--force", "--time", "0", "web"]))?;
    check(&[])?;

    let mut verdict = Verdict::default();
    let [of_podman, of_kernel] = &watchers;
    for (at, wanted) in [(two, "first web-infra"), (three, "first second web-infra"), (later, "second web-infra")] {
        let holders = of_podman.holders(&address, &format!("as_of = '{at}'"))?.join(" ");
        verdict.check(holders == wanted, "holders at a past time", || format!("{holders:?} instead of {wanted:?}"));
    }
    let rows = of_podman.mayfly.query(&format!(
        "SELECT container_name, mac_address, net_namespace, scope, ended_reason, evidence FROM ip_lease_history WHERE ip_address = '{address}'"
    ))?;
    let ends: BTreeMap<_, _> = rows.iter().map(|row| (text(row, "container_name"), text(row, "ended_reason"))).collect();
    verdict.check(rows.len() == 3 && ends.get("first") == Some(&"die"), "intervals", || format!("{rows:?}"));
    for column in ["mac_address", "net_namespace"] {
        let values: BTreeSet<_> = rows.iter().map(|row| text(row, column)).collect();
        verdict.check(values.len() == 1 && !values.contains(""), format!("{column} of a pod"), || format!("{rows:?}"));
    }
    for watcher in &watchers {
        let mayfly = &watcher.mayfly;
        // Of the moment when it came, only what holds the namespace was there.
        let told =
            mayfly.lines(&format!("SELECT {} FROM ip_lease_events WHERE ip_address = '{address}' AND action = 'added'", watcher.column))?;
        let may_be = ["", "web-infra", ids["web-infra"].as_str()];
        verdict.check(told.len() == 1 && told.iter().all(|name| may_be.contains(&name.as_str())), "whose it was when it came", || {
            format!("{told:?}")
        });
        // Each container's own rows have it too.
        let column = if watcher.column == "container_id" { "container_id" } else { "name" };
        let having = mayfly.lines(&format!(
            "SELECT DISTINCT {column} FROM container_history WHERE state = 'running' AND ip_addresses = json_array('{address}') ORDER BY 1"
        ))?;
        verdict.check(having.len() == 3, format!("{}: containers with the address of the pod", watcher.by), || format!("{having:?}"));
        let alone =
            mayfly.lines(&format!("SELECT ip_addresses FROM container_history WHERE state = 'running' AND container_id = '{alone}'"))?;
        let has_its_own = matches!(&alone[..], [ip] if ip.len() > 2 && !ip.contains(&format!("\"{address}\"")));
        verdict.check(has_its_own, format!("{}: address of the container beside", watcher.by), || format!("{alone:?}"));
        let several = mayfly.query("SELECT * FROM ip_lease_events WHERE action = 'conflict'")?;
        verdict.check(several.is_empty(), format!("{}: conflicts that were none", watcher.by), || format!("{several:?}"));
    }
    report(&format!(
        "a pod at {address}: {} intervals by Podman, {} by the kernel alone",
        rows.len(),
        of_kernel.holders(&address, "1")?.len()
    ));
    for recording in recordings {
        verdict.check(recording.stop()?.success(), "recorder that does not end in order", String::new);
    }
    verdict.pass()
}
