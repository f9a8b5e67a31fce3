//! One life of the socket that hears the kernel's messages about devices.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use mayfly_history::{
    Change, Fact, Nanos,
    device::{BlockDevice, DeviceAction, DeviceEvent},
    feed::cause,
    now,
};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind,
    netlink::{KOBJECT_UEVENT, SocketAddrNetlink},
    socket_with, sockopt,
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{inventory::Inventory, superblock::Name, sysfs::Sysfs, turns::LOOK_WITHIN, uevent::parse};
use crate::{
    netlink::{LONGEST, receive},
    readable::readable,
    supervise::Site,
};

/// Who saw what is told here.
const EVIDENCE: &str = "devices";
/// The group of the kernel's own messages; those of udev go to another.
pub(super) const KERNEL: u32 = 1;
/// Room for the messages of some thousand devices at once.
const RECEIVE_BUFFER: usize = 4 << 20;
/// After a number that is missing; by then the messages that are on their way have come.
const CHECK_AFTER: Duration = Duration::from_secs(1);
/// What is not true then must still not be true after this.
const CHECK_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// The first driver's number: floppy drives seek noisily, whether there is a disk in them or not.
const FLOPPY: &str = "2:";

/// One life of the socket.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) site: Site,
    sysfs: Sysfs,
    pub(super) socket: AsyncFd<OwnedFd>,
    inventory: Inventory,
    /// Of the last message.
    pub(super) sequence: Option<u64>,
    pub(super) check: Option<Check>,
    pub(super) last_ns: Nanos,
}

/// Whether messages were lost is to be found out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    at: Instant,
    /// From when on they may have been.
    from_ns: Nanos,
    /// What is known was found not to be true once.
    pub(super) is_second: bool,
}

impl Session {
    pub(super) fn open(site: Site) -> io::Result<Self> {
        let sysfs = Sysfs::new(&site.config.devices.root);
        // It listens before anything is listed, so that nothing falls between.
        let socket = readable(listen()?)?;
        let inventory = Inventory::new(sysfs.clone());
        Ok(Self { site, sysfs, socket, inventory, sequence: None, check: None, last_ns: now() })
    }

    /// Tells all that there is now.
    pub(super) async fn list(&mut self, blind_since: Option<Nanos>, evidence: &'static str) {
        self.inventory.scan();
        let sysfs = self.sysfs.clone();
        let mut facts = Vec::new();
        for (_, device) in self.inventory.blocks() {
            name(&self.site, &sysfs, device, Sysfs::filesystem).await;
            facts.push(device.clone());
        }
        self.push(Change::Present { group: String::new(), facts, taken_ns: self.last_ns, blind_since, evidence });
    }

    pub(super) async fn run(&mut self, stop: &CancellationToken) -> io::Result<()> {
        let mut buffer = Box::new([0; LONGEST]);
        loop {
            let due = self.check.map(|check| check.at);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => self.check().await,
                ready = self.socket.readable() => {
                    let mut ready = ready?;
                    let heard = match receive(ready.get_inner().as_fd(), &mut buffer) {
                        Ok(datagram) => Ok(datagram.bytes),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            ready.clear_ready();
                            continue;
                        }
                        Err(error) => Err(error),
                    };
                    drop(ready);
                    match heard {
                        Ok(bytes) => self.hear(bytes).await,
                        Err(error) if error.raw_os_error() == Some(OVERRUN) => self.recover(self.last_ns, "the socket overran").await,
                        Err(error) => return Err(error),
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    pub(super) async fn hear(&mut self, bytes: &[u8]) {
        let event = match parse(bytes) {
            Ok(event) => event,
            Err(error) => return self.site.feed.reject(error.to_string()),
        };
        let before_ns = self.last_ns;
        let at_ns = self.tick();
        if let Some(sequence) = event.sequence {
            let is_next = self.sequence.is_none_or(|last| last.wrapping_add(1) == sequence);
            self.sequence = Some(sequence);
            if !is_next && self.check.is_none() {
                self.check = Some(Check { at: Instant::now() + CHECK_AFTER, from_ns: before_ns, is_second: false });
            }
        }
        let Some(mut told) = self.inventory.hear(&event) else { return };
        if told.is_block && told.is_there {
            name(&self.site, &self.sysfs, &mut told.device, Sysfs::filesystem_now).await;
            self.inventory.learn(event.path, &told.device);
        }
        if told.is_block {
            self.push(if told.action == DeviceAction::Remove {
                let (key, scope) = (told.device.key().into_owned(), told.device.scope().into_owned());
                Change::Ended { key, scope, at_ns, reason: "removed", evidence: EVIDENCE }
            } else {
                Change::Holds { fact: told.device.clone(), at_ns, evidence: EVIDENCE }
            });
        }
        let event = DeviceEvent { time_ns: at_ns, action: told.action, device: told.device };
        self.site.recorder.sinks().of().push(&self.site.feed, event);
    }

    /// Finds out whether what is known is still true, after a number was missing.
    pub(super) async fn check(&mut self) {
        let Some(check) = self.check.take().filter(|_| !self.inventory.is_true()) else { return };
        if check.is_second {
            self.recover(check.from_ns, "messages of the kernel are missing").await;
        } else {
            self.check = Some(Check { at: Instant::now() + CHECK_AGAIN_AFTER, is_second: true, ..check });
        }
    }

    /// The kernel dropped messages: nobody knows which, so that everything is looked at again.
    async fn recover(&mut self, from_ns: Nanos, why: &'static str) {
        self.check = None;
        self.site.feed.count_lost_in_kernel(1);
        self.tick();
        self.list(Some(from_ns), EVIDENCE).await;
        self.site.feed.blind(cause::STREAM_LAGGED, from_ns, Some(self.last_ns), 0, why);
    }

    fn push(&self, change: Change<BlockDevice>) {
        self.site.recorder.sinks().of().push(&self.site.feed, change);
    }

    /// Now, and later than before.
    fn tick(&mut self) -> Nanos {
        self.last_ns = now().max(self.last_ns + 1);
        self.last_ns
    }
}

/// ENOBUFS.
const OVERRUN: i32 = rustix::io::Errno::NOBUFS.raw_os_error();

/// Looks at what lies on a device.
async fn name(site: &Site, sysfs: &Sysfs, device: &mut BlockDevice, look: fn(&Sysfs, &str, &Path) -> Name) {
    let (number, sequence) = (device.device_number.clone(), device.disk_sequence);
    if device.size.is_none_or(|size| size == 0) || number.starts_with(FLOPPY) {
        return;
    }
    let sysfs = sysfs.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let folder = sysfs.folder(&number)?;
        let name = look(&sysfs, &number, &folder);
        // Another one may have come meanwhile.
        (sysfs.disk_sequence(&folder) == sequence).then_some(name)
    });
    match timeout(LOOK_WITHIN, looked).await {
        Ok(Ok(Some(name))) => (device.kind, device.uuid, device.label) = (name.kind, name.uuid, name.label),
        Ok(_) => {}
        Err(_) => site.feed.complain(format!("{} does not answer: what lies on it stays unknown", device.name)),
    }
}

fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(KOBJECT_UEVENT))?;
    // Without the privilege the usual size has to do.
    if sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER)?;
    }
    bind(&fd, &SocketAddrNetlink::new(0, KERNEL))?;
    Ok(fd)
}
