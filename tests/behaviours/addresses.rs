//! Who had an address: containers that live for milliseconds, namespaces, and what happens while nobody looks.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mayfly_tests::{IMAGE, Mayfly, Namespace, Result, Row, Verdict, churn, daemon::Docker, report, run, until};

use crate::{amount, docker, turn};

fn following(docker: &Docker) -> Result<Mayfly> {
    Mayfly::with(&format!(
        "[docker]\nendpoints = [\"{}\"]\n[containerd]\nendpoints = [\"{}\"]\n[netlink]\nenabled = true\n",
        docker.endpoint(),
        docker.containerd_endpoint()
    ))
}

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(serde_json::Value::as_str).unwrap_or_default()
}

fn number(row: &Row, column: &str) -> Option<i64> {
    let value = row.get(column)?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Asks until the answer satisfies.
fn wait(mayfly: &Mayfly, sql: &str, holds: impl Fn(&[Row]) -> bool) -> Result<Vec<Row>> {
    until("answer", Duration::from_secs(20), || {
        let rows = mayfly.query(sql)?;
        if holds(&rows) { Ok(rows) } else { Err(format!("{sql}: {rows:?}; {}", mayfly.log()).into()) }
    })
}

#[test]
fn each_instant_of_a_short_life_finds_that_container_and_no_other() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = following(docker)?;
    let recording = mayfly.record()?;
    let runs = amount(60, 200);
    let truth: Mutex<BTreeMap<String, String>> = Mutex::default();
    let took = churn(runs, 8, |n| {
        let (name, pause) = (format!("short-{n}"), format!("hostname -i; sleep 0.{:02}", 5 + n * 7 % 45));
        let address = run(docker.cli().args(["run", "--rm", "--name", &name, IMAGE, "sh", "-c", &pause]))?;
        truth.lock().map_err(|_| "poisoned")?.insert(name, address.trim().to_owned());
        Ok(())
    })?;
    let truth = truth.into_inner()?;
    mayfly.wait_for_count("SELECT count(*) FROM container_lifecycle_events WHERE action = 'destroy' AND name LIKE 'short-%'", runs)?;
    wait(&mayfly, "SELECT * FROM ip_lease_history WHERE valid_to IS NULL AND container_name LIKE 'short-%'", <[Row]>::is_empty)?;

    let mut verdict = Verdict::default();
    // Its start, its end, and the middle between the two.
    let lives = mayfly.query(
        "SELECT s.name, s.container_id, s.time_ns AS began, d.time_ns AS ended, s.ip_addresses FROM container_lifecycle_events s
         JOIN container_lifecycle_events d ON d.container_id = s.container_id AND d.action = 'die'
         WHERE s.action = 'start' AND s.name LIKE 'short-%'",
    )?;
    verdict.check(lives.len() == runs, "lives that are not recorded", || format!("{} of {runs}", lives.len()));
    let history = mayfly.query(
        "SELECT ip_address, container_id, container_name, valid_from_ns, valid_to_ns, evidence, mac_address, interface, scope, \
         net_namespace FROM ip_lease_history WHERE container_id <> '' ORDER BY ip_address, valid_from_ns",
    )?;
    for life in &lives {
        let (name, id) = (text(life, "name"), text(life, "container_id"));
        let Some(address) = truth.get(name) else { continue };
        let (began, ended) = (number(life, "began").unwrap_or(0), number(life, "ended").unwrap_or(0));
        for instant in [began, began.midpoint(ended), ended - 1] {
            let held = |row: &&Row| {
                text(row, "ip_address") == address
                    && number(row, "valid_from_ns").is_some_and(|from| from <= instant)
                    && number(row, "valid_to_ns").is_none_or(|to| to > instant)
            };
            let holders: Vec<_> = history.iter().filter(held).map(|row| text(row, "container_id")).collect();
            verdict.check(holders == [id], "instants with another holder than the truth", || {
                format!("{name} {address}: {holders:?}, {life:?}")
            });
        }
    }
    // The table answers as the rows say, for the first and the last.
    for life in lives.first().into_iter().chain(lives.last()) {
        let asked = format!(
            "SELECT container_id FROM ip_lease_history WHERE ip_address = '{}' AND as_of = '{}'",
            truth[text(life, "name")],
            number(life, "began").unwrap_or(0)
        );
        let holders = mayfly.query(&asked)?;
        verdict.check(holders.len() == 1 && text(&holders[0], "container_id") == text(life, "container_id"), "answers", || {
            format!("{holders:?}")
        });
    }
    for pair in history.windows(2).filter(|pair| text(&pair[0], "ip_address") == text(&pair[1], "ip_address")) {
        let (to, from) = (number(&pair[0], "valid_to_ns"), number(&pair[1], "valid_from_ns"));
        verdict.check(to <= from && to.is_some(), "addresses with two holders at once", || format!("{pair:?}"));
    }
    for row in history.iter().filter(|row| text(row, "container_name").starts_with("short-")) {
        let whole = text(row, "interface") == "eth0" && text(row, "mac_address").len() == 17 && text(row, "scope") == "container";
        verdict.check(whole && text(row, "net_namespace").parse::<u64>().is_ok(), "rows with holes", || format!("{row:?}"));
        verdict.check(text(row, "evidence").contains("netlink"), "rows that the kernel did not witness", || format!("{row:?}"));
    }
    let addresses: std::collections::BTreeSet<_> = truth.values().collect();
    let told =
        lives.iter().filter(|life| truth.get(text(life, "name")).is_some_and(|a| text(life, "ip_addresses").contains(a.as_str()))).count();
    report(&format!(
        "{runs} containers by 8 workers in {took:.1?} shared {} addresses: {} intervals; {told} starts told the address",
        addresses.len(),
        history.len()
    ));
    let added = mayfly
        .count("SELECT count(*) FROM ip_lease_events WHERE action = 'added' AND source = 'netlink' AND container_name LIKE 'short-%'")?;
    verdict.check(added == i64::try_from(runs)?, "events that do not know their container", || format!("{added} of {runs}"));
    verdict.check(recording.stop()?.success(), "recorder that does not end in order", || mayfly.log());
    verdict.pass()
}

#[test]
fn containers_that_share_a_network_are_all_named() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = following(docker)?;
    let recording = mayfly.record()?;
    let start = |args: &[&str]| run(docker.cli().args(["run", "--detach", "--rm"]).args(args).args([IMAGE, "sleep", "60"]));
    start(&["--name", "sandbox", "--publish", "127.0.0.1:18080:80", "--publish", "18443:443/udp"])?;
    start(&["--name", "inside", "--network", "container:sandbox"])?;
    start(&["--name", "on-host", "--network", "host"])?;
    let holders = "SELECT DISTINCT container_name FROM ip_lease_history WHERE valid_to IS NULL AND container_name <> '' ORDER BY 1";
    let named = |rows: &[Row]| rows.iter().map(|row| text(row, "container_name").to_owned()).collect::<Vec<_>>();
    wait(&mayfly, holders, |rows| named(rows) == ["inside", "sandbox"])?;
    // Docker tells the address of one of them; both have it.
    let having = "SELECT DISTINCT h.name AS container_name FROM container_history h JOIN ip_lease_history l ON h.ip_addresses = json_array(l.ip_address) \
                  AND l.container_name = h.name WHERE h.state = 'running' ORDER BY 1";
    wait(&mayfly, having, |rows| named(rows) == ["inside", "sandbox"])?;
    let on_host = mayfly.count("SELECT count(*) FROM ip_lease_history WHERE scope = 'host' AND container_id <> ''")?;
    assert_eq!(on_host, 0, "the host's addresses are the host's");
    assert!(
        mayfly.count("SELECT count(*) FROM ip_lease_history WHERE scope = 'host' AND valid_to IS NULL AND evidence = 'netlink,startup'")?
            > 0
    );

    let ports = "SELECT host_address, host_port, protocol, container_port, container_name FROM container_port_history \
                 WHERE valid_to IS NULL ORDER BY container_name, host_port";
    let rows = wait(&mayfly, ports, |rows| rows.len() >= 3)?;
    let of = |name: &str| rows.iter().filter(|row| text(row, "container_name") == name).collect::<Vec<_>>();
    assert!(matches!(of("on-host")[..], [row] if number(row, "host_port").is_none()), "{rows:?}");
    assert!(of("inside").is_empty(), "{rows:?}");
    let published: Vec<_> = of("sandbox")
        .iter()
        .map(|r| (text(r, "host_address"), number(r, "host_port"), number(r, "protocol"), number(r, "container_port")))
        .collect();
    assert!(published.contains(&("127.0.0.1", Some(18080), Some(6), Some(80))), "{published:?}");
    assert!(published.contains(&("0.0.0.0", Some(18443), Some(17), Some(443))), "{published:?}");

    let ended = now();
    run(docker.cli().args(["kill", "inside", "on-host", "sandbox"]))?;
    wait(&mayfly, holders, <[Row]>::is_empty)?;
    wait(&mayfly, "SELECT 1 FROM container_port_history WHERE valid_to IS NULL", <[Row]>::is_empty)?;
    let later = mayfly.query(&format!("SELECT container_name FROM ip_lease_history WHERE container_name <> '' AND as_of = '{ended}'"))?;
    assert_eq!(later.len(), 2, "{later:?}");
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}

#[test]
fn the_kernel_tells_of_every_namespace_and_what_changed_unseen_has_no_invented_time() -> Result<()> {
    let _turn = turn();
    let mayfly = Mayfly::with("[netlink]\nenabled = true\n")?;
    let place = Namespace::new("mayfly-a")?;
    place.ip("address add 10.77.0.9/24 dev lan0")?;
    let recording = mayfly.record()?;
    let all = "SELECT ip_address, prefix_length, interface, mac_address, net_namespace, scope, valid_from_ns, valid_to_ns, ended_reason, \
               evidence, complete FROM ip_lease_history WHERE ip_address LIKE '10.77.%' OR ip_address LIKE 'fd77:%' ORDER BY ip_address, valid_from_ns";
    let rows = wait(&mayfly, all, |rows| rows.len() == 1)?;
    assert_eq!((text(&rows[0], "evidence"), text(&rows[0], "net_namespace")), ("netlink,startup", &*place.inode()?));

    let began = now();
    place.ip("address add 10.77.0.1/24 dev lan0")?;
    place.ip("address add fd77::1/64 dev lan0 nodad")?;
    let added = now();
    wait(&mayfly, all, |rows| rows.len() == 3)?;
    place.ip("address del 10.77.0.1/24 dev lan0")?;
    let removed = now();
    let rows = wait(&mayfly, all, |rows| rows.iter().any(|row| text(row, "ended_reason") == "removed"))?;
    let row = &rows[0];
    let (from, to) = (number(row, "valid_from_ns").unwrap_or(0), number(row, "valid_to_ns").unwrap_or(0));
    assert!((began..added + 1_000_000_000).contains(&from) && (added..removed + 1_000_000_000).contains(&to), "{row:?}");
    assert_eq!(
        (text(row, "ip_address"), number(row, "prefix_length"), text(row, "interface"), text(row, "scope")),
        ("10.77.0.1", Some(24), "lan0", "container")
    );

    // While nobody looks one goes and one comes; one stays.
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    place.ip("address del fd77::1/64 dev lan0")?;
    place.ip("address add 10.77.0.2/24 dev lan0")?;
    let resumed = now();
    let recording = mayfly.record()?;
    let rows = wait(&mayfly, all, |rows| rows.len() == 4)?;
    let of = |address: &str| rows.iter().find(|row| text(row, "ip_address") == address);
    let (gone, came, stayed) = (of("fd77::1").ok_or("gone")?, of("10.77.0.2").ok_or("came")?, of("10.77.0.9").ok_or("stayed")?);
    assert_eq!(text(gone, "ended_reason"), "unknown");
    assert!(number(gone, "valid_to_ns") >= Some(resumed) && number(gone, "complete") == Some(0), "{gone:?}");
    assert!(number(came, "valid_from_ns") >= Some(resumed), "{came:?}");
    assert!(number(stayed, "valid_to_ns").is_none() && number(stayed, "valid_from_ns") < Some(began), "{stayed:?}");

    // The namespace goes, and all that was in it.
    drop(place);
    wait(&mayfly, all, |rows| rows.iter().all(|row| number(row, "valid_to_ns").is_some()))?;
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}
