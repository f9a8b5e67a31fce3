//! A daemon whose stream tells the life of one container after the other, and that answers what is asked about them.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use mayfly_tests::{
    IMAGE, Result,
    fake::{Fake, begin, empty, event, json, now},
};
use serde_json::{Value, json};

/// Events of one container.
pub(crate) const STEPS: usize = 4;

/// How many events it was asked to send, and how many it has sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Amounts {
    pub(crate) wanted: Arc<AtomicUsize>,
    pub(crate) sent: Arc<AtomicUsize>,
}

/// Starts it; it sends until as many events as wanted were sent.
pub(crate) fn start(amounts: Amounts) -> Result<Fake> {
    Fake::start(move |path, stream| {
        let path = path.trim_start_matches("/v1.41");
        if path.starts_with("/events") {
            tell(&amounts, stream)
        } else if path == "/images/json" {
            json(stream, &json!([{ "Id": image_id(), "RepoTags": [IMAGE], "RepoDigests": [] }]).to_string())
        } else if let Some(id) = path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json")).filter(|id| id.len() == 64) {
            json(stream, &inspect(id).to_string())
        } else {
            empty(path, stream)
        }
    })
}

fn tell(amounts: &Amounts, stream: &mut UnixStream) -> std::io::Result<()> {
    begin(stream)?;
    let mut text = String::new();
    loop {
        let sent = amounts.sent.load(SeqCst);
        if sent >= amounts.wanted.load(SeqCst) {
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        // A client that is gone shows when it is written to; its events are the next one's.
        stream.write_all(b"\n")?;
        let id = format!("{:064x}", sent / STEPS);
        let known = labels(&id);
        let mut dead = known.clone();
        dead["exitCode"] = json!("0");
        text.clear();
        for (action, attributes) in [("create", &known), ("start", &known), ("die", &dead), ("destroy", &known)] {
            text.push_str(&event(action, &id, now(), attributes));
        }
        stream.write_all(text.as_bytes())?;
        amounts.sent.fetch_add(STEPS, SeqCst);
    }
}

fn labels(id: &str) -> Value {
    json!({ "image": IMAGE, "name": name(id), "com.example.team": "payments", "com.example.commit": &id[24..] })
}

fn name(id: &str) -> String {
    format!("job-{}", id.trim_start_matches('0'))
}

fn image_id() -> String {
    format!("sha256:{:064x}", 0xbeef)
}

/// What Docker answers at once about a container that was just created.
fn inspect(id: &str) -> Value {
    json!({
        "Id": id,
        "Name": format!("/{}", name(id)),
        "Created": "2026-01-02T03:04:05.000000006Z",
        "Image": image_id(),
        "Config": {
            "Image": IMAGE,
            "Hostname": &id[..12],
            "User": "",
            "Cmd": ["/bin/true"],
            "Labels": { "com.example.team": "payments", "com.example.commit": &id[24..] },
        },
        "HostConfig": { "NetworkMode": "bridge", "Privileged": false },
        "State": { "Status": "created", "Pid": 0, "ExitCode": 0 },
        "Mounts": [],
        "NetworkSettings": { "Networks": {}, "Ports": {} },
    })
}
