//! A pod on a real containerd, as both of its sources tell of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use mayfly_history::{
    container::{Action, Report, State, Witness},
    recorder::{Handle, Sinks},
    sink::Bell,
};
use mayfly_sources::{RuntimeConfig, SourcesConfig};
use mayfly_tests::{IMAGE, Image, Result, run, tool, until};
use prost::Message;
use rustix::mount::{UnmountFlags, unmount};
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

/// The part of `runtime.v1` by which kubelet makes a pod.
mod kubelet {
    use std::collections::HashMap;

    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Metadata {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) uid: String,
        #[prost(string, tag = "3")]
        pub(super) namespace: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct NamespaceOptions {
        #[prost(int32, tag = "1")]
        pub(super) network: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct SecurityContext {
        #[prost(message, optional, tag = "1")]
        pub(super) namespaces: Option<NamespaceOptions>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Linux {
        #[prost(message, optional, tag = "2")]
        pub(super) security: Option<SecurityContext>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Pod {
        #[prost(message, optional, tag = "1")]
        pub(super) metadata: Option<Metadata>,
        #[prost(map = "string, string", tag = "6")]
        pub(super) labels: HashMap<String, String>,
        #[prost(message, optional, tag = "8")]
        pub(super) linux: Option<Linux>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct RunPod {
        #[prost(message, optional, tag = "1")]
        pub(super) config: Option<Pod>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ImageSpec {
        #[prost(string, tag = "1")]
        pub(super) image: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ContainerMetadata {
        #[prost(string, tag = "1")]
        pub(super) name: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Container {
        #[prost(message, optional, tag = "1")]
        pub(super) metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")]
        pub(super) image: Option<ImageSpec>,
        #[prost(string, repeated, tag = "3")]
        pub(super) command: Vec<String>,
        #[prost(message, optional, tag = "15")]
        pub(super) linux: Option<ContainerLinux>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ContainerLinux {
        #[prost(message, optional, tag = "2")]
        pub(super) security: Option<ContainerSecurity>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ContainerSecurity {
        #[prost(message, optional, tag = "3")]
        pub(super) namespaces: Option<NamespaceOptions>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct CreateContainer {
        #[prost(string, tag = "1")]
        pub(super) pod: String,
        #[prost(message, optional, tag = "2")]
        pub(super) config: Option<Container>,
        #[prost(message, optional, tag = "3")]
        pub(super) sandbox: Option<Pod>,
    }

    /// All other questions and answers: the id of a pod or container.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Id {
        #[prost(string, tag = "1")]
        pub(super) id: String,
    }
}

/// What holds a pod's namespaces.
const PAUSE: &str = "docker.io/library/pause:test";

/// Makes of the tests' image one that waits.
fn make_pause(dir: &Path) -> Result<PathBuf> {
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(dir.join("config.json"))?)?;
    config["config"]["Cmd"] = serde_json::json!(["sleep", "3600"]);
    fs::write(dir.join("config.json"), config.to_string())?;
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"] }]);
    fs::write(dir.join("manifest.json"), manifest.to_string())?;
    run(Command::new("tar").current_dir(dir).args(["-cf", "pause.tar", "manifest.json", "config.json", "layer.tar"]))?;
    Ok(dir.join("pause.tar"))
}

/// A containerd of the test's own, ended with it.
struct Daemon {
    process: Child,
    dir: PathBuf,
}

impl Drop for Daemon {
    /// What still runs would live on under its shim, and its mounts with it.
    fn drop(&mut self) {
        for task in ctr(&self.dir, &["tasks", "list", "--quiet"]).unwrap_or_default().split_whitespace() {
            let _ = ctr(&self.dir, &["tasks", "delete", "--force", task]);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for point in mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| Path::new(point).starts_with(&self.dir)) {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
}

impl Daemon {
    fn start(dir: &Path) -> Result<Self> {
        let at = dir.display();
        let cri = format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\ndisable_apparmor = true\nrestrict_oom_score_adj = true\n"
        );
        let daemon = format!("root = \"{at}/root\"\nstate = \"{at}/state\"\n[grpc]\naddress = \"{at}/c.sock\"\n");
        fs::write(dir.join("config.toml"), format!("version = 2\n{daemon}{cri}"))?;
        let log = fs::File::create(dir.join("log"))?;
        let mut command = Command::new(tool("containerd", "containerd")?);
        let process = command.arg("--config").arg(dir.join("config.toml")).stderr(log).spawn()?;
        let daemon = Self { process, dir: dir.to_path_buf() };
        until("answer of containerd", Duration::from_secs(30), || {
            std::thread::sleep(Duration::from_millis(50));
            ctr(dir, &["version"])
        })?;
        Ok(daemon)
    }
}

fn ctr(dir: &Path, arguments: &[&str]) -> Result<String> {
    run(Command::new("ctr").arg("--address").arg(dir.join("c.sock")).args(["--namespace", "k8s.io"]).args(arguments))
}

async fn ask<Q: Message + 'static, A: Message + Default + 'static>(channel: &Channel, method: &str, question: Q) -> Result<A> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
    Ok(grpc.unary(Request::new(question), path, ProstCodec::default()).await?.into_inner())
}

/// Runs a pod on the node's network, with one container that exits with 3; leaves the container, ended. Its id.
async fn run_pod(socket: &Path) -> Result<String> {
    const NODE: kubelet::NamespaceOptions = kubelet::NamespaceOptions { network: 2 };
    let channel = containerd_client::connect(socket).await?;
    let pod = kubelet::Pod {
        metadata: Some(kubelet::Metadata { name: "web-0".into(), uid: "uid-1".into(), namespace: "shop".into() }),
        labels: [("io.kubernetes.pod.name".to_owned(), "web-0".to_owned())].into(),
        linux: Some(kubelet::Linux { security: Some(kubelet::SecurityContext { namespaces: Some(NODE) }) }),
    };
    let sandbox: kubelet::Id = ask(&channel, "RunPodSandbox", kubelet::RunPod { config: Some(pod.clone()) }).await?;
    let container = kubelet::Container {
        metadata: Some(kubelet::ContainerMetadata { name: "app".into() }),
        image: Some(kubelet::ImageSpec { image: IMAGE.into() }),
        command: ["sh", "-c", "exit 3"].map(str::to_owned).into(),
        linux: Some(kubelet::ContainerLinux { security: Some(kubelet::ContainerSecurity { namespaces: Some(NODE) }) }),
    };
    let create = kubelet::CreateContainer { pod: sandbox.id.clone(), config: Some(container), sandbox: Some(pod) };
    let container: kubelet::Id = ask(&channel, "CreateContainer", create).await?;
    let _: kubelet::Id = ask(&channel, "StartContainer", container.clone()).await?;
    Ok(container.id)
}

fn follow(socket: &Path) -> Result<(mayfly_sources::Sources, Sinks)> {
    let off = RuntimeConfig { enabled: false, endpoints: Vec::new() };
    let on = RuntimeConfig { enabled: true, endpoints: vec![format!("unix://{}", socket.display())] };
    let config = SourcesConfig { docker: off.clone(), podman: off, containerd: on.clone(), cri: on, ..SourcesConfig::default() };
    let bell = Bell::default();
    let sinks = Sinks::new(bell);
    Ok((mayfly_sources::start(config, Handle::detached(sinks.clone()))?, sinks))
}

/// Reports as they come, until `enough`.
fn collect(sinks: &Sinks, mut enough: impl FnMut(&[Report]) -> bool) -> Vec<Report> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut reports = Vec::new();
    while !enough(&reports) {
        assert!(Instant::now() < deadline, "not all came: {reports:#?}");
        reports.extend(sinks.containers.drain(64).into_iter().map(|received| received.item));
        std::thread::sleep(Duration::from_millis(5));
    }
    reports
}

fn snapshots(reports: &[Report]) -> usize {
    reports.iter().filter(|report| matches!(report, Report::Snapshot(s) if &*s.runtime_namespace == "k8s.io")).count()
}

#[test]
fn a_pods_container_is_told_by_containerd_and_known_to_the_cri() -> Result<()> {
    for (name, package) in [("containerd", "containerd"), ("runc", "runc"), ("busybox", "busybox-static")] {
        tool(name, package)?;
    }
    let dir = tempfile::Builder::new().prefix("mayfly-pod-").tempdir_in("/tmp")?;
    let image = Image::make(dir.path())?;
    let _daemon = Daemon::start(dir.path())?;
    for archive in [&image.archive, &make_pause(dir.path())?] {
        ctr(dir.path(), &["images", "import", &archive.display().to_string()])?;
    }
    let socket = dir.path().join("c.sock");

    let (sources, sinks) = follow(&socket)?;
    collect(&sinks, |reports| snapshots(reports) == 2);
    let id = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run_pod(&socket))?;
    let known_to_have_ended = |report: &Report| matches!(report, Report::Details { key, witness: Witness::Cri, details } if *key.container_id == *id && details.run.exit_code == Some(3));
    let reports = collect(&sinks, |reports| reports.iter().any(known_to_have_ended));

    let of_container: Vec<_> = reports
        .iter()
        .filter_map(|report| if let Report::Event(event) = report { Some(event) } else { None })
        .filter(|e| *e.key.container_id == *id)
        .collect();
    let actions: Vec<_> = of_container.iter().map(|event| event.action).filter(|action| *action != Action::Update).collect();
    assert_eq!(actions, [Action::Create, Action::Start, Action::Die]);
    let created = &of_container[0].details;
    assert_eq!((created.command.as_deref(), created.image_id.as_deref()), (Some("sh -c exit 3"), Some(image.id.as_str())));
    assert_eq!(created.labels["io.kubernetes.pod.name"], "web-0");
    assert!(created.sandbox_id.is_some());
    assert_eq!(of_container[1].details.network_mode.as_deref(), Some("host"));
    let started = &of_container[1].details.run;
    assert!(started.pid.is_some() && started.net_namespace.is_some(), "{started:?}");
    assert!(started.ip_addresses.is_empty(), "the node's addresses are not the container's");
    assert!(reports.iter().any(|report| matches!(report, Report::Details { details, .. } if details.name.as_deref() == Some("app")
        && details.labels["io.kubernetes.pod.uid"] == "uid-1")));
    sources.stop();

    // Whoever comes later finds what containerd no longer has a task of.
    let (sources, sinks) = follow(&socket)?;
    let reports = collect(&sinks, |reports| snapshots(reports) == 2);
    let listed = reports.iter().find_map(|report| match report {
        Report::Snapshot(snapshot) if snapshot.witness == Witness::Cri => {
            snapshot.containers.iter().find(|(key, ..)| *key.container_id == *id)
        }
        _ => None,
    });
    let (key, state, details) = listed.ok_or("not listed")?;
    assert_eq!((&*key.runtime_namespace, *state, details.run.exit_code), ("k8s.io", State::Exited, Some(3)));
    sources.stop();
    Ok(())
}
