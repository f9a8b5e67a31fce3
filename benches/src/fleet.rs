//! A fleet of containers that never was, but could have been: what is measured is measured on its events.
//!
//! Ids are unique and random as real ones are, 200 images bring their own labels, and each container is Compose's, Kubernetes'
//! or nobody's. The same seed gives the same fleet.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};

use mayfly_history::{
    Nanos,
    container::{Action, ContainerEvent, ContainerKey, ContainerState, Details, Run, Runtime, State, Witness},
    lease::{Lease, LeaseScope},
};

/// What Docker says of a container that is run and removed, in order.
const LIFE: [Action; 6] = [Action::Create, Action::NetworkConnect, Action::Start, Action::Die, Action::NetworkDisconnect, Action::Destroy];
const IMAGES: usize = 200;
const MILLISECOND: i64 = 1_000_000;

/// SplitMix64: small, and good enough to be incompressible.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    fn millis(&mut self, from: u64, to: u64) -> i64 {
        // With the nanoseconds that real clocks have.
        (from + self.below(to - from)).cast_signed() * MILLISECOND + self.below(1_000_000).cast_signed()
    }

    /// `digits` random hex digits.
    pub fn hex(&mut self, digits: usize) -> String {
        let mut text = String::new();
        while text.len() < digits {
            text.push_str(&format!("{:016x}", self.number()));
        }
        text.truncate(digits);
        text
    }
}

#[derive(Clone, Debug)]
struct Image {
    name: String,
    title: String,
    id: String,
    digest: String,
    command: String,
    labels: Vec<(&'static str, String)>,
}

impl Image {
    fn new(n: usize, random: &mut Random) -> Self {
        let titles = ["api", "worker", "billing", "gateway", "search", "importer", "mailer", "reports", "cache", "scheduler"];
        let title = format!("{}-{}", titles[n % titles.len()], n / titles.len());
        let version = format!("{}.{}.{}", random.below(9), random.below(30), random.below(99));
        let labels = vec![
            ("maintainer", "Platform Team <platform@example.com>".to_owned()),
            (
                "org.opencontainers.image.created",
                format!("2025-10-{:02}T0{}:1{}:00Z", 1 + random.below(28), random.below(9), random.below(9)),
            ),
            ("org.opencontainers.image.licenses", "Apache-2.0".to_owned()),
            ("org.opencontainers.image.revision", random.hex(40)),
            ("org.opencontainers.image.source", format!("https://git.example.com/platform/{title}")),
            ("org.opencontainers.image.title", title.clone()),
            ("org.opencontainers.image.version", version.clone()),
        ];
        Self {
            name: format!("registry.example.com/platform/{title}:{version}"),
            id: format!("sha256:{}", random.hex(64)),
            digest: format!("sha256:{}", random.hex(64)),
            command: format!("/usr/local/bin/{title} --config /etc/{title}/config.toml --once"),
            labels,
            title,
        }
    }
}

/// Makes containers, one after the other.
#[derive(Clone, Debug)]
struct Yard {
    random: Random,
    images: Vec<Image>,
    made: u64,
}

impl Yard {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let images = (0..IMAGES).map(|n| Image::new(n, &mut random)).collect();
        Self { random, images, made: 0 }
    }

    fn build(&mut self, created_ns: Nanos) -> (ContainerKey, Details) {
        let random = &mut self.random;
        self.made += 1;
        let image = &self.images[usize::try_from(random.below(IMAGES as u64)).unwrap_or(0)];
        let id = random.hex(64);
        let mut labels: BTreeMap<String, String> = image.labels.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let mut label = |key: &str, value: String| drop(labels.insert(key.to_owned(), value));
        let mut sandbox_id = None;
        let name = match random.below(4) {
            0 | 1 => {
                let project = format!("project-{}", random.below(12));
                label("com.docker.compose.config-hash", image.digest[7..].to_owned());
                label("com.docker.compose.container-number", (1 + random.below(3)).to_string());
                label("com.docker.compose.oneoff", "True".to_owned());
                label("com.docker.compose.project", project.clone());
                label("com.docker.compose.project.working_dir", format!("/srv/{project}"));
                label("com.docker.compose.service", image.title.clone());
                label("com.docker.compose.version", "2.29.1".to_owned());
                format!("{project}-{}-run-{}", image.title, random.hex(12))
            }
            2 => {
                let pod = format!("{}-{}", image.title, &random.hex(5));
                let uid = random.hex(32);
                sandbox_id = Some(random.hex(64));
                label("io.kubernetes.container.name", image.title.clone());
                label("io.kubernetes.pod.name", pod.clone());
                label("io.kubernetes.pod.namespace", format!("team-{}", random.below(8)));
                label("io.kubernetes.pod.uid", format!("{}-{}-4{}-a{}-{}", &uid[..8], &uid[8..12], &uid[13..16], &uid[17..20], &uid[20..]));
                format!("k8s_{}_{pod}", image.title)
            }
            _ => format!("{}_{}", ["eager", "quiet", "brave", "happy"][usize::try_from(random.below(4)).unwrap_or(0)], random.hex(6)),
        };
        let address = 2 + self.made % 250;
        let namespace = 4_026_531_840 + self.made * 6;
        let run = Run {
            started_ns: Some(created_ns + random.millis(120, 400)),
            finished_ns: None,
            pid: Some((2000 + (self.made * 37) % 4_000_000).cast_signed()),
            exit_code: Some(if random.below(20) == 0 { 1 } else { 0 }),
            signal: None,
            oom_killed: Some(false),
            ip_addresses: vec![format!("172.17.0.{address}")],
            mac_addresses: vec![format!("02:42:ac:11:00:{address:02x}")],
            cgroup_path: Some(format!("/docker/{id}")),
            cgroup_id: Some((10_000 + self.made * 11).cast_signed()),
            pid_namespace: Some(namespace.to_string()),
            net_namespace: Some((namespace + 2).to_string()),
            mnt_namespace: Some((namespace + 1).to_string()),
        };
        let details = Details {
            runtime: Runtime::Docker,
            name: Some(name),
            image: Some(image.name.clone()),
            image_id: Some(image.id.clone()),
            image_digest: Some(image.digest.clone()),
            command: Some(image.command.clone()),
            user: Some("1000:1000".to_owned()),
            hostname: Some(id[..12].to_owned()),
            privileged: Some(false),
            network_mode: Some("bridge".to_owned()),
            labels: labels.into(),
            mounts: Some(format!(
                r#"[{{"destination":"/data","mode":"","name":"","rw":true,"source":"/srv/data/{}","type":"bind"}}]"#,
                image.title
            )),
            ports: Some(r#"[{"container_port":8080,"host_address":"","host_port":0,"protocol":"tcp"}]"#.to_owned()),
            sandbox_id,
            created_ns: Some(created_ns),
            run,
        };
        let key = ContainerKey { container_id: id.into(), runtime_namespace: "moby".into(), endpoint: "unix:///run/docker.sock".into() };
        (key, details)
    }
}

/// The events of a fleet, in the order of their time, for ever: six of each container, some dozens alive at once.
#[derive(Clone, Debug)]
pub struct Fleet {
    yard: Yard,
    next_create: Nanos,
    due: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    alive: HashMap<u64, (ContainerKey, Details)>,
}

impl Fleet {
    /// A fleet whose first container is created at `from_ns`.
    pub fn new(seed: u64, from_ns: Nanos) -> Self {
        Self { yard: Yard::new(seed), next_create: from_ns, due: BinaryHeap::new(), alive: HashMap::new() }
    }

    fn create(&mut self) {
        let at = self.next_create;
        let (key, details) = self.yard.build(at);
        self.next_create += self.yard.random.millis(1, 40);
        let number = self.yard.made;
        let started = details.run.started_ns.unwrap_or(at);
        let died = started + self.yard.random.millis(30, 3000);
        let times = [at, started - self.yard.random.millis(10, 50), started, died];
        let gone = [died + self.yard.random.millis(5, 40), died + self.yard.random.millis(40, 90)];
        for (phase, time) in times.into_iter().chain(gone).enumerate() {
            self.due.push(Reverse((time, number, phase)));
        }
        self.alive.insert(number, (key, details));
    }
}

impl Iterator for Fleet {
    type Item = ContainerEvent;

    fn next(&mut self) -> Option<ContainerEvent> {
        while self.due.peek().is_none_or(|Reverse((time, ..))| *time >= self.next_create) {
            self.create();
        }
        let Reverse((time_ns, number, phase)) = self.due.pop()?;
        let action = LIFE[phase];
        let (key, details) = if action == Action::Destroy { self.alive.remove(&number)? } else { self.alive.get(&number)?.clone() };
        let network = || BTreeMap::from([("container".to_owned(), key.container_id.to_string()), ("name".to_owned(), "bridge".to_owned())]);
        Some(ContainerEvent {
            time_ns,
            action,
            source: Witness::Docker,
            recovered: false,
            exec_id: None,
            lifetime_ms: (action == Action::Die).then(|| (time_ns - details.run.started_ns.unwrap_or(time_ns)) / MILLISECOND),
            attributes: if matches!(action, Action::NetworkConnect | Action::NetworkDisconnect) { network() } else { BTreeMap::new() },
            settled: true,
            key,
            details,
        })
    }
}

/// A fact, such as one state of a container, and when it held.
#[derive(Clone, Debug)]
pub struct Held<F> {
    pub state: F,
    pub from_ns: Nanos,
    /// `None` while it holds.
    pub to_ns: Option<Nanos>,
}

/// The states of `containers` containers, of which about `alive` exist at any time: created, running, paused or running again, exited.
pub fn states(seed: u64, from_ns: Nanos, containers: u64, alive: u64) -> impl Iterator<Item = [Held<ContainerState>; 4]> {
    let mut yard = Yard::new(seed);
    let life = 60_000 * MILLISECOND;
    let step = life / alive.max(1).cast_signed();
    (0..containers.cast_signed()).map(move |n| {
        let created = from_ns + n * step;
        let (key, details) = yard.build(created);
        let ends = [
            created + yard.random.millis(100, 900),
            created + life / 2 + yard.random.millis(0, 9000),
            created + life * 3 / 4,
            created + life,
        ];
        let key = ContainerKey { container_id: Arc::clone(&key.container_id), ..key };
        let mut from = created;
        [State::Created, State::Running, State::Running, State::Exited].map(|state| {
            let to = ends.iter().copied().find(|end| *end > from).unwrap_or(from);
            let held = Held { state: ContainerState { key: key.clone(), state, details: details.clone() }, from_ns: from, to_ns: Some(to) };
            from = to;
            held
        })
    })
}

/// `leases` leases of `addresses` addresses, of which `alive` are held at any time, each by another machine, half of them by containers.
pub fn leases(seed: u64, from_ns: Nanos, leases: u32, addresses: u32, alive: u32) -> impl Iterator<Item = Held<Lease>> {
    let mut random = Random::new(seed);
    let step = 60_000 * MILLISECOND / i64::from(alive.max(1));
    (0..leases).map(move |n| {
        let from_ns = from_ns + i64::from(n) * step;
        // A prime apart, so that neighbours in time are none in the table.
        let address = u32::try_from(u64::from(n) * 7919 % u64::from(addresses.max(1))).unwrap_or(0);
        let hardware = random.number().to_be_bytes();
        let mac = format!("02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", hardware[0], hardware[1], hardware[2], hardware[3], hardware[4]);
        let known = Lease {
            ip_address: Some(Ipv4Addr::from_bits((10 << 24) + address).into()),
            prefix_length: Some(16),
            mac_address: Some(mac.clone()),
            ..Lease::default()
        };
        let state = if n.is_multiple_of(2) {
            let container_id = Arc::from(random.hex(64));
            Lease {
                interface: Some("eth0".to_owned()),
                scope: LeaseScope::Container,
                net_namespace: Some((4_026_531_840 + u64::from(n)).to_string()),
                container: ContainerKey { container_id, runtime_namespace: "moby".into(), endpoint: "unix:///run/docker.sock".into() },
                ..known
            }
        } else {
            Lease {
                interface: Some("br0".to_owned()),
                hostname: Some(format!("machine-{n}")),
                client_id: Some(format!("01:{mac}")),
                server_address: Some(Ipv4Addr::new(10, 255, 0, 1).into()),
                lease_seconds: Some(3600),
                ..known
            }
        };
        Held { state, from_ns, to_ns: Some(from_ns + step * i64::from(alive)) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_has_six_events_in_order_and_an_id_of_its_own() {
        let mut of: HashMap<Arc<str>, Vec<Action>> = HashMap::new();
        let mut last = 0;
        for event in Fleet::new(1, 1_700_000_000_000_000_000).take(6000) {
            assert!(event.time_ns >= last);
            last = event.time_ns;
            of.entry(event.key.container_id).or_default().push(event.action);
        }
        let whole = of.values().filter(|actions| actions.last() == Some(&Action::Destroy)).inspect(|actions| assert_eq!(**actions, LIFE));
        assert!(whole.count() > 800);
    }

    #[test]
    fn so_many_containers_are_alive_at_a_time() {
        let at = 1_700_000_000_000_000_000 + 200 * 60_000 * MILLISECOND;
        let held =
            states(1, 1_700_000_000_000_000_000, 200_000, 500).flatten().filter(|h| h.from_ns <= at && h.to_ns.is_none_or(|to| to > at));
        assert!((490..=510).contains(&held.count()));
    }

    #[test]
    fn so_many_addresses_are_held_at_a_time_each_by_one() {
        let all: Vec<_> = leases(1, 0, 20_000, 5_000, 1_000).collect();
        let at = all[10_000].from_ns;
        let held: Vec<_> = all.iter().filter(|h| h.from_ns <= at && h.to_ns.is_none_or(|to| to > at)).collect();
        let addresses: std::collections::BTreeSet<_> = held.iter().map(|h| h.state.ip_address).collect();
        assert_eq!((held.len(), addresses.len()), (1_000, 1_000));
    }
}
