//! The law of captures: while a host changes, the history of each table as of any instant is what the table had then, within the resolution that it states.
//!
//! The host is a network and a mount namespace of its own and a tree of files. Each thing changes rarely enough that every state lasts longer than the
//! resolution: what comes and goes in between nobody promises to see. Containers, which need a daemon, have the same test in `tests/behaviours/captures.rs`.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use mayfly::sql::Database;
use mayfly_history::{Nanos, now};
use serde_json::{Value, json};

use crate::{
    host::{Host, SECOND, spelt},
    peer::{Osqueryd, until},
};

/// By how much a told change may be seen late.
const TOLD: Nanos = SECOND;
/// How much earlier than it is there a change may be dated: a file has the time at which it was written, then it is renamed.
const EARLY: Nanos = SECOND / 10;
/// How long a state of what is told of lasts at least, in milliseconds; and of the rest, whose safety net is at 10 s.
const LASTS: u64 = 1500;
const LASTS_UNTOLD: u64 = 14_000;
/// Tables whose changes nothing tells of.
const UNTOLD: usize = 16;

/// A network and a mount namespace, for as long as it lives.
struct Namespaces(Child);

impl Namespaces {
    fn new() -> Self {
        // `cat` waits for ever.
        let child =
            Command::new("unshare").args(["--net", "--mount", "cat"]).stdin(Stdio::piped()).spawn().expect("unshare, of util-linux");
        let ours = fs::read_link("/proc/self/ns/mnt").unwrap();
        let theirs = format!("/proc/{}/ns/mnt", child.id());
        until("namespaces (these tests need root)", || fs::read_link(&theirs).is_ok_and(|theirs| theirs != ours));
        let namespaces = Self(child);
        for command in ["ip link add v0 type veth peer name v1", "ip link set v0 up", "ip link set v1 up"] {
            namespaces.run(command);
        }
        namespaces
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.id().to_string(), "--net", "--mount", program]);
        command
    }

    fn run(&self, command: &str) {
        let mut words = command.split(' ');
        let done = self.command(words.next().unwrap()).args(words).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a table of osquery's is compared with its history.
struct Compared {
    table: String,
    columns: &'static [&'static str],
    condition: &'static str,
    is_told: bool,
}

fn compared() -> Vec<Compared> {
    let told = |table: &str, columns: &'static [&'static str]| Compared { table: table.into(), columns, condition: "", is_told: true };
    let native = |table: &str, columns: &'static [&'static str]| Compared { condition: "AND container_id = ''", ..told(table, columns) };
    let untold = |table: &str, columns: &'static [&'static str]| Compared { is_told: false, ..told(table, columns) };
    let mut all = vec![
        native("users", &["uid", "gid", "username", "description", "directory", "shell"]),
        native("groups", &["gid", "groupname"]),
        native("mounts", &["device", "path", "type"]),
        told("interface_addresses", &["interface", "address", "mask", "broadcast"]),
        told("routes", &["destination", "netmask", "gateway", "interface", "metric"]),
        told("etc_hosts", &["address", "hostnames"]),
        told("crontab", &["schedule", "command", "path"]),
        told("deb_packages", &["name", "version", "arch"]),
        told("authorized_keys", &["uid", "algorithm", "key", "key_file"]),
        told("sudoers", &["source", "header", "rule_details"]),
        told("dns_resolvers", &["id", "type", "address"]),
        told("apt_sources", &["name", "source"]),
        told("systemd_units", &["id", "path"]),
        untold("kernel_modules", &["name", "size", "used_by", "status", "address"]),
    ];
    all.extend((0..UNTOLD).map(|n| untold(&format!("thing_{n}"), &["name", "size"])));
    all
}

/// What a table had between two instants.
struct Snapshot {
    table: usize,
    taken: Range<Nanos>,
    rows: Vec<Vec<String>>,
}

fn snapshot(osqueryd: &mut Osqueryd, table: usize, compared: &Compared) -> Snapshot {
    let answer = osqueryd.ask(&json!({"do": "snapshot", "table": compared.table}));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = |row: &Value| -> Vec<String> { row.as_array().unwrap().iter().take(compared.columns.len()).map(text).collect() };
    let mut rows: Vec<_> = answer["rows"].as_array().unwrap().iter().map(row).collect();
    rows.sort();
    Snapshot { table, taken: answer["before"].as_i64().unwrap()..answer["after"].as_i64().unwrap(), rows }
}

/// Changes one thing after the other, each at random.
struct Churn<'h> {
    host: &'h mut Host,
    namespaces: &'h Namespaces,
    random: u64,
    /// When each thing may change next.
    next: BTreeMap<usize, Instant>,
    there: BTreeMap<usize, bool>,
    version: u64,
}

impl Churn<'_> {
    fn random(&mut self, below: u64) -> u64 {
        // Marsaglia's xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Changes everything whose time has come.
    fn step(&mut self) {
        const TOLD_OF: usize = 11;
        for thing in 0..TOLD_OF + UNTOLD {
            if self.next.get(&thing).is_some_and(|next| Instant::now() < *next) {
                continue;
            }
            self.version += 1;
            let is_there = !self.there.get(&thing).copied().unwrap_or(false);
            self.there.insert(thing, is_there);
            self.change(thing, is_there);
            let lasts = if thing < TOLD_OF { LASTS } else { LASTS_UNTOLD };
            let pause = lasts + self.random(lasts);
            self.next.insert(thing, Instant::now() + Duration::from_millis(pause));
        }
    }

    fn change(&mut self, thing: usize, is_there: bool) {
        let version = self.version;
        let file =
            |path: &str, base: &str, more: String| self.host.write(path, &if is_there { format!("{base}{more}") } else { base.to_owned() });
        let (root, key) = ("root:x:0:0:root:/root:/bin/sh\n", "ssh-ed25519 AAAA");
        match thing {
            0 => file("etc/passwd", root, format!("ann:x:{}:100:Ann:/home/ann:/bin/sh\n", 1000 + version % 50)),
            1 => file("etc/group", "root:x:0:\n", format!("staff{version}:x:{}:\n", 2000 + version % 50)),
            2 => file("etc/hosts", "127.0.0.1 localhost\n", format!("10.0.0.1 host-{version}\n")),
            3 => file("etc/cron.d/job", "", format!("* * * * * root job-{version}\n")),
            4 => {
                let package = |name: &str, version: u64| {
                    format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: all\n\n")
                };
                file("var/lib/dpkg/status", &package("base", 1), package("more", version));
            }
            5 => file("root/.ssh/authorized_keys", "", format!("{key}{version} ann\n")),
            6 => file("etc/sudoers.d/ann", "", format!("ann ALL=(ALL) NOPASSWD: {version}\n")),
            7 => file("etc/resolv.conf", "nameserver 10.0.0.53\n", format!("nameserver 10.0.0.{}\n", version % 250)),
            8 => file("etc/apt/sources.list.d/x.list", "", format!("deb http://example.org/{version} stable main\n")),
            9 => {
                let mounted = self.host.root.join("mnt");
                fs::create_dir_all(&mounted).unwrap();
                let mounted = mounted.display();
                self.namespaces.run(&if is_there { format!("mount -t tmpfs churn {mounted}") } else { format!("umount {mounted}") });
            }
            10 => {
                let action = if is_there { "add" } else { "del" };
                self.namespaces.run(&format!("ip addr {action} 10.77.0.1/24 dev v0"));
            }
            untold => {
                let rows = if is_there { json!([["always", "1"], [format!("v{version}"), "2"]]) } else { json!([["always", "1"]]) };
                self.host.osqueryd.ask(&json!({"do": "put", "table": format!("thing_{}", untold - 11), "rows": rows}));
            }
        }
    }
}

#[test]
fn as_of_any_instant_a_history_is_what_its_table_had_then() {
    let prove = std::env::var_os("MAYFLY_PROVE").is_some();
    let (lasts, instants) = if prove { (Duration::from_secs(600), 200) } else { (Duration::from_secs(30), 25) };
    let namespaces = Namespaces::new();
    let mut host = Host::within(|program| namespaces.command(program));
    let tables = compared();
    for thing in 0..UNTOLD {
        host.put(&format!("thing_{thing}"), &[("name", "TEXT", 1), ("size", "BIGINT", 8)], json!([["always", "1"]]));
    }
    let real: Vec<_> = tables.iter().map(|compared| &compared.table).filter(|table| !table.starts_with("thing_")).collect();
    host.osqueryd.ask(&json!({"do": "have", "tables": real, "root": host.root}));
    host.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    host.write("etc/group", "root:x:0:\n");
    let names: Vec<_> = tables.iter().map(|compared| compared.table.as_str()).collect();
    // What a budget does is shown elsewhere: here it must not be in the way.
    let history = "interval_seconds = 10\ncpu_percent = 100\n";
    let more = format!("[mounts]\ncontainers = false\nprocess = {}\n", namespaces.0.id());
    host.start_with(&names, history, &more, namespaces.command(env!("CARGO_BIN_EXE_mayfly")));
    let running = "SELECT count(*) FROM recorder_sources WHERE source = 'tables' AND state = 'running' AND endpoint <> ''";
    until("all are followed", || host.texts(running) == [tables.len().to_string()]);
    until("the recorder's sources run", || {
        let quiet = "SELECT source FROM recorder_sources WHERE source IN ('accounts', 'mounts', 'netlink') AND state <> 'running'";
        host.texts(quiet).is_empty() && host.texts("SELECT count(*) FROM users_history") == ["1"]
    });

    let (began, seed) = (Instant::now(), now().unsigned_abs() | 1);
    println!("seed {seed}");
    let mut churn =
        Churn { host: &mut host, namespaces: &namespaces, random: seed, next: BTreeMap::new(), there: BTreeMap::new(), version: 0 };
    let mut snapshots = Vec::new();
    let pause = lasts / instants;
    while began.elapsed() < lasts {
        let random = Duration::from_millis(churn.random(u64::try_from(2 * pause.as_millis()).unwrap()));
        let at = Instant::now() + random;
        while Instant::now() < at {
            churn.step();
            thread::sleep(Duration::from_millis(20).min(at.saturating_duration_since(Instant::now())));
        }
        // All tables at about that instant.
        snapshots.extend(tables.iter().enumerate().map(|(n, compared)| snapshot(&mut churn.host.osqueryd, n, compared)));
    }
    // So that the last ones may be seen, too.
    thread::sleep(Duration::from_secs(13));

    let database = Database::open(&host.place.state_dir()).unwrap();
    let mut late: BTreeMap<&str, Nanos> = BTreeMap::new();
    for snapshot in &snapshots {
        let compared = &tables[snapshot.table];
        let resolution = if compared.is_told { TOLD } else { stated(&host, &compared.table) };
        let found = seen_after(&database, compared, snapshot, resolution).unwrap_or_else(|held| {
            panic!("{} had {:?} at {:?}, and its history within {resolution} ns {held:#?}", compared.table, snapshot.rows, snapshot.taken)
        });
        let latest = late.entry(if compared.is_told { "told" } else { "untold" }).or_default();
        *latest = (*latest).max(found);
    }
    println!("{} snapshots of {} tables; seen at most so late (ms): {:?}", snapshots.len(), tables.len(), {
        late.iter().map(|(kind, late)| (*kind, late / 1_000_000)).collect::<Vec<_>>()
    });
}

/// The resolution that a table states.
fn stated(host: &Host, table: &str) -> Nanos {
    let hint = host.texts(&format!("SELECT hint FROM recorder_sources WHERE source = 'tables' AND endpoint = '{table}'")).concat();
    let seconds = hint.strip_prefix("resolution: ").and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{table}: {hint:?}"));
    seconds.parse::<i64>().unwrap() * SECOND
}

/// How long after a snapshot the history had the same; all that it had within its resolution if it never had.
fn seen_after(database: &Database, compared: &Compared, snapshot: &Snapshot, resolution: Nanos) -> Result<Nanos, Vec<Vec<Vec<String>>>> {
    let Compared { table, columns, condition, .. } = compared;
    let (from, to) = (snapshot.taken.start - EARLY, snapshot.taken.end + resolution);
    let changes = format!(
        "SELECT valid_from_ns FROM {table}_history WHERE valid_from_ns BETWEEN {from} AND {to} UNION \
         SELECT valid_to_ns FROM {table}_history WHERE valid_to_ns BETWEEN {from} AND {to} ORDER BY 1"
    );
    let ask = |sql: &str| -> Vec<Vec<String>> {
        let mut statement = database.connection().prepare(sql).unwrap();
        let width = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..width).map(|at| row.get(at).map(spelt)).collect();
        statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let instants = std::iter::once(from).chain(ask(&changes).into_iter().map(|row| row[0].parse().unwrap()));
    let mut held = Vec::new();
    for instant in instants {
        let mut rows = ask(&format!("SELECT {} FROM {table}_history WHERE as_of = {instant} {condition}", columns.join(", ")));
        rows.sort();
        if rows == snapshot.rows {
            return Ok((instant - snapshot.taken.end).max(0));
        }
        held.push(rows);
    }
    Err(held)
}
