//! Which container a port of the host led to, and when: ports that are used again, picked by the runtime, or shared with the host.

use std::time::Duration;

use mayfly_tests::{IMAGE, Mayfly, Result, Row, daemon::Docker, report, run, until};
use serde_json::Value;

use crate::{docker, turn};

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

fn number(row: &Row, column: &str) -> Option<i64> {
    let value = row.get(column)?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

struct Host<'d> {
    docker: &'d Docker,
    mayfly: Mayfly,
}

impl Host<'_> {
    fn start(&self, name: &str, options: &[&str]) -> Result<()> {
        let mut cli = self.docker.cli();
        run(cli.args(["run", "--detach", "--name", name]).args(options).args([IMAGE, "sleep", "300"])).map(drop)
    }

    fn kill(&self, name: &str) -> Result<()> {
        run(self.docker.cli().args(["kill", name])).map(drop)
    }

    /// Bindings of a container, the newest last, once there are so many, of which so many hold.
    fn bindings(&self, name: &str, all: usize, open: usize) -> Result<Vec<Row>> {
        let asked = format!(
            "SELECT host_address, host_port, protocol, container_port, valid_from_ns, valid_to_ns FROM container_port_history \
             WHERE container_name = '{name}' ORDER BY valid_from_ns, host_address, host_port"
        );
        until("bindings", Duration::from_secs(20), || {
            let rows = self.mayfly.query(&asked)?;
            let holding = rows.iter().filter(|row| number(row, "valid_to_ns").is_none()).count();
            if rows.len() == all && holding == open { Ok(rows) } else { Err(format!("{name}: {rows:?}").into()) }
        })
    }

    /// Who may have answered there at that time.
    fn holders(&self, address: &str, port: i64, protocol: i64, at_ns: i64) -> Result<Vec<String>> {
        let rows = self.mayfly.query(&format!(
            "SELECT container_name FROM container_port_history WHERE as_of = '{at_ns}' AND host_address IN ('{address}', '') \
             AND (host_port = {port} AND protocol = {protocol} OR host_port IS NULL) ORDER BY 1"
        ))?;
        Ok(rows.iter().map(|row| text(row, "container_name").to_owned()).collect())
    }
}

#[test]
fn a_port_of_the_host_leads_at_each_time_to_the_container_of_that_time() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let host = Host { docker, mayfly: Mayfly::following("docker", &docker.endpoint())? };
    let recording = host.mayfly.record()?;

    // One port, two containers in turn.
    for name in ["web-1", "web-2"] {
        host.start(name, &["--publish", "127.0.0.1:18081:80"])?;
        host.bindings(name, 1, 1)?;
        host.kill(name)?;
    }
    let (first, second) = (host.bindings("web-1", 1, 0)?, host.bindings("web-2", 1, 0)?);
    let times = |rows: &[Row]| (number(&rows[0], "valid_from_ns").unwrap_or(0), number(&rows[0], "valid_to_ns").unwrap_or(0));
    let ((from_1, to_1), (from_2, to_2)) = (times(&first), times(&second));
    assert!(from_1 < to_1 && to_1 < from_2 && from_2 < to_2, "{first:?} {second:?}");
    let expected: [(i64, &[&str]); 5] =
        [(from_1 - 1, &[]), (from_1.midpoint(to_1), &["web-1"]), (to_1.midpoint(from_2), &[]), (from_2, &["web-2"]), (to_2, &[])];
    for (at, names) in expected {
        assert_eq!(host.holders("127.0.0.1", 18081, 6, at)?, names, "at {at}: {first:?} {second:?}");
    }

    // Several at once: a range, another protocol, and one that the runtime picks; it picks another when the container starts again.
    host.start(
        "many",
        &["--publish", "127.0.0.1:19000-19002:9000-9002", "--publish", "127.0.0.1:19003:53/udp", "--publish", "127.0.0.1::80"],
    )?;
    let rows = host.bindings("many", 5, 5)?;
    let fixed: Vec<_> =
        rows.iter().filter(|r| number(r, "container_port") != Some(80)).map(|r| (number(r, "host_port"), number(r, "protocol"))).collect();
    assert_eq!(fixed, [(Some(19000), Some(6)), (Some(19001), Some(6)), (Some(19002), Some(6)), (Some(19003), Some(17))], "{rows:?}");
    let picked = |rows: &[Row]| {
        let of = rows.iter().filter(|r| number(r, "container_port") == Some(80));
        of.filter_map(|r| Some(format!("{}:{}", text(r, "host_address"), number(r, "host_port")?))).next_back().unwrap_or_default()
    };
    let told = |name: &str| run(docker.cli().args(["port", name, "80/tcp"])).map(|told| told.trim().to_owned());
    assert_eq!(picked(&rows), told("many")?);
    run(docker.cli().args(["restart", "--time", "0", "many"]))?;
    let rows = host.bindings("many", 10, 5)?;
    assert_eq!(picked(&rows), told("many")?, "{rows:?}");

    // On the host's network a container may have any port that nobody published: said, not guessed.
    host.start("on-host", &["--network", "host"])?;
    let rows = host.bindings("on-host", 1, 1)?;
    assert_eq!((text(&rows[0], "host_address"), number(&rows[0], "host_port")), ("", None), "{rows:?}");
    let now = number(&rows[0], "valid_from_ns").unwrap_or(0);
    assert_eq!(host.holders("127.0.0.1", 19001, 6, now)?, ["many", "on-host"]);
    assert_eq!(host.holders("127.0.0.1", 19001, 17, now)?, ["on-host"], "another protocol");
    // What shares another's network has no ports of its own.
    host.start("inside", &["--network", "container:many"])?;
    run(docker.cli().args(["rm", "--force", "web-1", "web-2", "inside", "on-host", "many"]))?;
    host.bindings("many", 10, 0)?;
    host.bindings("on-host", 1, 0)?;
    host.bindings("inside", 0, 0)?;
    report("ports: one used again, a range, UDP, one picked by the runtime at each start, and the host's network");
    assert!(recording.stop()?.success(), "{}", host.mayfly.log());
    Ok(())
}
