use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use mayfly_history::{
    recorder::{Handle, Sinks},
    sink::Bell,
};

use super::*;
use crate::config::SourcesConfig;

/// An answer that never comes.
const HANGS: &str = "hangs";

/// A metadata service: what it answers to each path, and what it was asked.
struct Fake {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// `header`: a line that each request must have, in lower case, or it is refused.
    fn serve(answers: &[(&'static str, &'static str)], header: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (answers, asking): (BTreeMap<_, _>, _) = (answers.iter().copied().collect(), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let Some(first) = lines.next() else { continue };
                let headers: Vec<_> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_ascii_lowercase()).collect();
                let path = first.split(' ').nth(1).unwrap().to_owned();
                let is_session = first.starts_with("PUT ");
                let body = answers.get(path.as_str()).filter(|_| is_session || headers.iter().any(|line| line == header));
                asking.lock().unwrap().push(path);
                if body == Some(&HANGS) {
                    std::mem::forget(stream);
                    continue;
                }
                let (status, body) = body.map_or(("404 Not Found", ""), |body| ("200 OK", *body));
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { url, asked }
    }

    async fn ask(&self, provider: Provider) -> Result<Cloud, metadata::Untold> {
        Service { base: self.url.clone() }.ask(provider).await
    }
}

const DOCUMENT: &str = r#"{"accountId":"123456789012","region":"eu-west-1","availabilityZone":"eu-west-1a","instanceId":"i-1","instanceType":"m7g.large","imageId":"ami-1","kernelId":null}"#;

fn ec2() -> Fake {
    let answers = [
        ("/latest/api/token", "secret-session"),
        ("/latest/dynamic/instance-identity/document", DOCUMENT),
        ("/latest/meta-data/tags/instance", "owner\nName"),
        ("/latest/meta-data/tags/instance/owner", "payments"),
        ("/latest/meta-data/tags/instance/Name", "web 1"),
    ];
    Fake::serve(&answers, "x-aws-ec2-metadata-token: secret-session")
}

#[tokio::test]
async fn ec2_is_asked_within_a_session_and_for_its_tags() {
    let cloud = ec2().ask(Provider::Aws).await.unwrap();
    let fields = [
        &cloud.provider,
        &cloud.account_id,
        &cloud.region,
        &cloud.availability_zone,
        &cloud.instance_id,
        &cloud.instance_type,
        &cloud.image_id,
    ];
    assert_eq!(fields, ["aws", "123456789012", "eu-west-1", "eu-west-1a", "i-1", "m7g.large", "ami-1"]);
    assert_eq!(cloud.instance_tags, [("owner", "payments"), ("Name", "web 1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[tokio::test]
async fn google_is_asked_with_its_flavour_and_attributes_are_left_there() {
    let answer = r#"{"instance":{"id":4520031799277581759,"zone":"projects/1/zones/europe-west1-b","machineType":"projects/1/machineTypes/e2-small","image":"projects/debian-cloud/global/images/debian-12","tags":["web"],"attributes":{"startup-script":"password"}},"project":{"projectId":"shop"}}"#;
    let fake = Fake::serve(&[("/computeMetadata/v1/?recursive=true", answer)], "metadata-flavor: google");
    let cloud = fake.ask(Provider::Gce).await.unwrap();
    let fields = [&cloud.account_id, &cloud.region, &cloud.availability_zone, &cloud.instance_id, &cloud.instance_type];
    assert_eq!(fields, ["shop", "europe-west1", "europe-west1-b", "4520031799277581759", "e2-small"]);
    assert!(!format!("{cloud:?}").contains("password"));
}

#[tokio::test]
async fn azure_is_asked_with_its_header() {
    let answer = r#"{"compute":{"subscriptionId":"s-1","location":"westeurope","zone":"2","vmId":"v-1","vmSize":"Standard_B1s","storageProfile":{"imageReference":{"id":"","publisher":"debian","offer":"debian-12","sku":"12","version":"latest"}},"tagsList":[{"name":"owner","value":"ops"}]}}"#;
    let fake = Fake::serve(&[("/metadata/instance?api-version=2021-02-01", answer)], "metadata: true");
    let cloud = fake.ask(Provider::Azure).await.unwrap();
    let fields = [&cloud.account_id, &cloud.region, &cloud.availability_zone, &cloud.instance_id, &cloud.image_id];
    assert_eq!(fields, ["s-1", "westeurope", "2", "v-1", "debian:debian-12:12:latest"]);
    assert_eq!(cloud.instance_tags["owner"], "ops");
}

#[tokio::test]
async fn a_service_that_refuses_or_is_not_there_is_said() {
    let refused = Fake::serve(&[], "").ask(Provider::Aws).await.unwrap_err();
    assert!(refused.to_string().contains("404"), "{refused}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let absent = Service { base: format!("http://{nobody}") }.ask(Provider::Gce).await.unwrap_err();
    assert!(absent.to_string().contains("cannot ask"), "{absent}");
    for base in ["https://x", "", "http://"] {
        assert!(Service { base: base.into() }.ask(Provider::Gce).await.is_err(), "{base}");
    }
}

fn site(config: IdentityConfig) -> Site {
    let recorder = Handle::detached(Sinks::new(Bell::default()));
    let feed = recorder.feed("identity", "");
    let config = Arc::new(SourcesConfig { identity: config, ..SourcesConfig::default() });
    Site { endpoint: "".into(), feed, recorder, config }
}

/// Follows until something is told; the fact and what is kept with it.
async fn first(source: &mut HostIdentity) -> (Identity, String) {
    let (sink, stop) = (source.site.recorder.sinks().of::<Change<Identity>>(), CancellationToken::new());
    let listening = async {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(received) = sink.drain(1).pop() {
                stop.cancel();
                return received;
            }
            assert!(Instant::now() < deadline, "nothing was told");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (followed, received) = tokio::join!(source.follow(stop.clone()), listening);
    followed.unwrap();
    let Change::Present { mut facts, .. } = received.item else { panic!("{:?}", received.item) };
    (facts.remove(0), received.cursor.unwrap())
}

#[tokio::test]
async fn an_image_of_a_running_host_begins_as_another_and_a_restart_does_not() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/machine-id"), "baked-in\n").unwrap();
    let fake = ec2();
    let config = IdentityConfig {
        cloud: CloudChoice::Aws,
        metadata_url: fake.url.clone(),
        root: root.path().to_owned(),
        ..IdentityConfig::default()
    };
    let (told, kept) = first(&mut HostIdentity::new(site(config.clone()))).await;
    assert_eq!((told.cloud.instance_id.as_str(), told.machine_id.as_str(), told.incarnation_id.len()), ("i-1", "baked-in", 32));
    assert!(!fake.asked.lock().unwrap().is_empty());

    let again = |config| {
        let mut source = HostIdentity::new(site(config));
        source.kept = serde_json::from_str(&kept).unwrap();
        source
    };
    let (restarted, _) = first(&mut again(config.clone())).await;
    assert_eq!(restarted, told);
    // The service does not answer: what it told before, in this boot, still stands.
    let silent = IdentityConfig { metadata_url: "http://127.0.0.1:1".into(), ..config.clone() };
    assert_eq!(first(&mut again(silent)).await.0, told);
    let other = DOCUMENT.replace("i-1", "i-2").leak();
    let answers = [("/latest/api/token", "s"), ("/latest/dynamic/instance-identity/document", &*other)];
    let clone = Fake::serve(&answers, "x-aws-ec2-metadata-token: s");
    let (cloned, _) = first(&mut again(IdentityConfig { metadata_url: clone.url, ..config })).await;
    assert_ne!(cloned.incarnation_id, told.incarnation_id);
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up_soon_and_the_host_is_told_without_it() {
    // Connections are taken, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = |metadata_url| IdentityConfig { cloud: CloudChoice::Aws, metadata_url, ..IdentityConfig::default() };
    let begun = Instant::now();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (told, _) = first(&mut HostIdentity::new(site(config(url)))).await;
    assert!(!told.hostname.is_empty() && told.cloud == Cloud::default(), "{told:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    // It hangs at each of many tags: what it told before counts.
    let names: Vec<_> = (0..40).map(|n| format!("tag{n}")).collect();
    let paths: Vec<&str> = names.iter().map(|name| &*format!("/latest/meta-data/tags/instance/{name}").leak()).collect();
    let mut answers = vec![
        ("/latest/api/token", "s"),
        ("/latest/dynamic/instance-identity/document", DOCUMENT),
        ("/latest/meta-data/tags/instance", &*names.join("\n").leak()),
    ];
    answers.extend(paths.iter().map(|path| (*path, HANGS)));
    answers.push(("/latest/meta-data/tags/instance/tag0", "first"));
    let fake = Fake::serve(&answers, "x-aws-ec2-metadata-token: s");
    let begun = Instant::now();
    let (told, _) = first(&mut HostIdentity::new(site(config(fake.url)))).await;
    assert_eq!((told.cloud.instance_id.as_str(), told.cloud.instance_tags), ("i-1", [("tag0".into(), "first".into())].into()));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Whether the instance is a spot one, and what its cloud says of its end.
fn taken_back(cloud: &str, answers: &[(&'static str, &'static str)], header: &'static str) -> (bool, Option<String>) {
    let service = Fake::serve(answers, header);
    let spot = Spot::find(cloud, &service.url).unwrap();
    (spot.is_some(), spot.and_then(|spot| spot.notice().unwrap()))
}

#[test]
fn a_spot_instance_learns_that_it_is_taken_back() {
    let action = r#"{"action":"terminate","time":"2026-01-31T10:00:00Z"}"#;
    let ec2 = |more: &[(&'static str, &'static str)]| {
        let answers = [&[("/latest/api/token", "s"), ("/latest/meta-data/instance-life-cycle", "spot")], more].concat();
        taken_back("aws", &answers, "x-aws-ec2-metadata-token: s")
    };
    assert_eq!(ec2(&[]), (true, None));
    assert_eq!(ec2(&[("/latest/meta-data/spot/instance-action", action)]), (true, Some(action.to_owned())));
    assert_eq!(ec2(&[("/latest/meta-data/instance-life-cycle", "on-demand")]), (false, None));

    let gce = |preempted| {
        let answers =
            [("/computeMetadata/v1/instance/scheduling/preemptible", "TRUE"), ("/computeMetadata/v1/instance/preempted", preempted)];
        taken_back("gce", &answers, "metadata-flavor: google")
    };
    assert_eq!(gce("FALSE\n"), (true, None));
    assert_eq!(gce("TRUE\n"), (true, Some("preempted".to_owned())));

    let azure = |events| {
        let answers = [
            ("/metadata/instance?api-version=2021-02-01", r#"{"compute":{"priority":"Spot"}}"#),
            ("/metadata/scheduledevents?api-version=2020-07-01", events),
        ];
        taken_back("azure", &answers, "metadata: true")
    };
    assert_eq!(azure(r#"{"Events":[{"EventType":"Freeze"}]}"#), (true, None));
    assert_eq!(azure(r#"{"Events":[{"EventType":"Preempt"}]}"#), (true, Some(r#"{"EventType":"Preempt"}"#.to_owned())));
    assert_eq!(taken_back("", &[], ""), (false, None), "a host in no cloud asks nobody");
}
