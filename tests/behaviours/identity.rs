//! The host says who it is, in one row.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

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

/// A metadata service of EC2, for the instance of that id.
struct Ec2 {
    url: String,
    instance: Arc<Mutex<&'static str>>,
}

impl Ec2 {
    fn serve(instance: &'static str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let instance = Arc::new(Mutex::new(instance));
        let own = Arc::clone(&instance);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let Ok(reading) = stream.try_clone() else { continue };
                let head: Vec<_> = BufReader::new(reading).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
                let is_in_session = head.iter().any(|line| line.eq_ignore_ascii_case("x-aws-ec2-metadata-token: session"));
                let id = *own.lock().unwrap_or_else(PoisonError::into_inner);
                let (status, body) = match path {
                    "/latest/api/token" => ("200 OK", "session".to_owned()),
                    "/latest/dynamic/instance-identity/document" if is_in_session => {
                        ("200 OK", format!(r#"{{"accountId":"1","region":"eu-west-1","instanceId":"{id}"}}"#))
                    }
                    _ => ("404 Not Found", String::new()),
                };
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            }
        });
        Ok(Self { url, instance })
    }

    fn become_another(&self, instance: &'static str) {
        *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = instance;
    }
}

/// The image keeps machine id, boot id, disk and store of the host that it was made of; its cloud calls it something else.
#[test]
fn an_image_of_a_running_host_begins_another_incarnation_and_a_new_generation() -> Result<()> {
    let _turn = turn();
    let ec2 = Ec2::serve("i-original")?;
    let mayfly = Mayfly::with(&format!("[identity]\ncloud = \"aws\"\nmetadata_url = \"{}\"\n", ec2.url))?;
    let as_instance = |id: &str| -> Result<(String, String)> {
        let recording = mayfly.record()?;
        mayfly.wait_for_count(&format!("SELECT count(*) AS n FROM host_identity WHERE instance_id = '{id}'"), 1)?;
        let rows = mayfly.query("SELECT i.incarnation_id, r.generation FROM host_identity i CROSS JOIN recorder_info r")?;
        let told = |column: &str| rows.first().and_then(|row| row.get(column)).and_then(Value::as_str).unwrap_or_default().to_owned();
        recording.stop()?;
        Ok((told("incarnation_id"), told("generation")))
    };
    let original = as_instance("i-original")?;
    let again = as_instance("i-original")?;
    ec2.become_another("i-clone");
    let clone = as_instance("i-clone")?;
    let clone_again = as_instance("i-clone")?;

    let mut verdict = Verdict::default();
    let all = || format!("{original:?}, {again:?}, then {clone:?}, {clone_again:?}");
    verdict.check(original == again && clone == clone_again, "a restart that began something", all);
    verdict.check(original.0 != clone.0 && clone.0.len() == 32, "incarnation of the clone", all);
    verdict.check(original.1 < clone.1, "generation of the clone", all);
    let before = "SELECT count(*) AS n FROM host_identity_history WHERE instance_id = 'i-original' AND valid_to IS NOT NULL";
    verdict.check(mayfly.count(before)? >= 1, "the original's interval, ended", all);
    verdict.pass()
}
