use std::os::unix::net::UnixListener;

use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// Keeps the list of `places` while `work` watches it.
async fn watching(places: Places, work: impl AsyncFnOnce(watch::Receiver<Present>)) {
    let (send, receive) = watch::channel(look(&places));
    tokio::select! {
        kept = keep(&places, &send) => panic!("{kept:?}"),
        done = timeout(SOON * 3, work(receive)) => done.expect("each step is seen soon"),
    }
}

async fn until(present: &mut watch::Receiver<Present>, what: impl FnMut(&Present) -> bool) -> Present {
    timeout(SOON, present.wait_for(what)).await.expect("seen soon").unwrap().clone()
}

#[tokio::test]
async fn a_socket_is_seen_as_it_appears_goes_and_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("run/deep/daemon.sock");
    watching(Places::at(root.path(), [socket.clone()], &[]), async |mut present| {
        assert!(present.borrow().is_empty());
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let first = UnixListener::bind(&socket).unwrap();
        let before = until(&mut present, |p| p.contains_key(&socket)).await[&socket];

        let other = root.path().join("run/deep/other.sock");
        let second = UnixListener::bind(&other).unwrap();
        fs::rename(&other, &socket).unwrap();
        until(&mut present, |p| p.get(&socket).is_some_and(|now| !now.is(&before))).await;

        // A whole directory goes, and comes back with its socket inside.
        fs::rename(root.path().join("run"), root.path().join("gone")).unwrap();
        until(&mut present, BTreeMap::is_empty).await;
        fs::rename(root.path().join("gone"), root.path().join("run")).unwrap();
        until(&mut present, |p| p.contains_key(&socket)).await;
        fs::remove_dir_all(root.path().join("run")).unwrap();
        until(&mut present, BTreeMap::is_empty).await;
        drop((first, second));
    })
    .await;
}

#[tokio::test]
async fn each_users_socket_is_seen_when_they_log_in() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("user")).unwrap();
    watching(Places::at(root.path(), [], &["podman/podman.sock"]), async |mut present| {
        let podman = root.path().join("user/1000/podman");
        fs::create_dir_all(&podman).unwrap();
        fs::create_dir_all(root.path().join("user/nobody/podman")).unwrap();
        let _other = UnixListener::bind(root.path().join("user/nobody/podman/podman.sock")).unwrap();
        let _socket = UnixListener::bind(podman.join("podman.sock")).unwrap();
        let found = until(&mut present, |p| !p.is_empty()).await;
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [podman.join("podman.sock")]);
    })
    .await;
}

#[tokio::test]
async fn a_directory_that_is_mounted_over_is_watched_anew() {
    let root = tempfile::tempdir().unwrap();
    let user = root.path().join("user/1000");
    fs::create_dir_all(&user).unwrap();
    watching(Places::at(root.path(), [], &["docker.sock"]), async |mut present| {
        // Armed before the mount.
        let _early = UnixListener::bind(user.join("docker.sock")).unwrap();
        until(&mut present, |p| !p.is_empty()).await;
        let flags = rustix::mount::MountFlags::empty();
        if let Err(error) = rustix::mount::mount("none", &user, "tmpfs", flags, None::<&std::ffi::CStr>) {
            assert_eq!(error, rustix::io::Errno::PERM, "only for lack of root");
            println!("not root: nothing can be mounted here");
            return;
        }
        until(&mut present, BTreeMap::is_empty).await;
        let late = UnixListener::bind(user.join("docker.sock"));
        let seen = timeout(SOON, present.wait_for(|p| !p.is_empty())).await.is_ok();
        drop(late);
        rustix::mount::unmount(&user, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(seen);
    })
    .await;
}

#[test]
fn what_is_not_a_socket_is_not_present() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("docker.sock");
    fs::write(&file, "").unwrap();
    assert!(look(&Places::at(root.path(), [file], &[])).is_empty());
}
