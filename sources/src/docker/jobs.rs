//! Questions to the daemon that events raise: asked beside the stream, a bounded number at once, never in its way.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use mayfly_history::container::{ContainerKey, Details, Runtime, State};

use super::{
    api::Api,
    decode::ImageTold,
    files::Disk,
    image::{self, Image, Images},
    inspect::{self, Inspect},
    proof::{self, Keeper},
};
use crate::error::SourceError;

/// Questions asked at once. An inspect of a container that starts takes as long as the start.
const AT_ONCE: usize = 64;
/// Questions that wait; past this they are not asked at all.
const MOST_WAITING: usize = 4096;

/// A daemon, as one session knows it; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub(super) api: Api,
    pub(super) runtime: Runtime,
    /// Other than root's need proof of their pids, and their paths are not opened.
    pub(super) keeper: Keeper,
    /// Docker's root directory, where its files can be read.
    pub(super) root: Option<PathBuf>,
    disk: Disk,
    images: Arc<Mutex<Images>>,
}

/// What an inspect of a container brought.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) details: Box<Details>,
    pub(super) state: State,
    /// Names of all its labels.
    pub(super) labels: Vec<String>,
}

/// What Docker's own files of a container are good for: they can be read before the daemon would answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    Nothing,
    /// It was created: they tell what it is.
    Created,
    /// It was started: they tell its process, as long as that runs.
    Started,
}

/// A question.
#[derive(Debug)]
pub(super) enum Job {
    /// Look at a container, in Docker's own files if they are good for it; where it is gone and was just created, at its image by the name
    /// that it was asked for.
    Container { id: String, files: Files, created_from: Option<String> },
    /// Find the image of a new container.
    Reference(String),
    /// Find the id and digest of an image.
    Image(ImageTold),
    /// List the images, so that their names are known.
    Images,
}

/// An answer.
#[derive(Debug)]
pub(super) enum Done {
    Container {
        id: String,
        examined: Result<Option<Examined>, SourceError>,
    },
    /// Of the image of these containers.
    Reference {
        reference: String,
        containers: Vec<String>,
        found: Result<Image, SourceError>,
    },
    Image(ImageTold, Image),
    Images(Result<(), SourceError>),
    Listed(Result<Vec<(ContainerKey, Examined)>, SourceError>),
}

impl Daemon {
    pub(super) fn new(api: Api, runtime: Runtime, keeper: Keeper, root: Option<PathBuf>, disk: Disk) -> Self {
        Self { api, runtime, keeper, root, disk, images: Arc::default() }
    }

    fn images(&self) -> MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to an image; what was known of it may be wrong. True: nothing is known of any now.
    pub(super) fn forget_image(&self, told: &ImageTold) -> bool {
        self.images().forget(told)
    }

    /// An image by its id or name, if it was asked for before.
    pub(super) fn known_image(&self, reference: &str) -> Option<Image> {
        self.images().get(reference)
    }

    /// An image by its id or name.
    async fn image(&self, reference: &str) -> Result<Image, SourceError> {
        match self.known_image(reference) {
            Some(image) => Ok(image),
            None => self.ask_image(reference).await,
        }
    }

    async fn ask_image(&self, reference: &str) -> Result<Image, SourceError> {
        let asked_at = self.images().changes();
        let image = image::image(&self.api, reference).await?;
        self.images().remember(reference, &image, asked_at);
        Ok(image)
    }

    /// The image of an event, whose name, where it tells one, is this image's now.
    async fn ask_event_image(&self, told: &ImageTold, reference: &str) -> Result<Image, SourceError> {
        let asked_at = self.images().changes();
        let image = self.ask_image(reference).await?;
        if let (Some(name), true) = (&told.name, told.action != "untag") {
            self.images().remember(name, &image, asked_at);
        }
        Ok(image)
    }

    async fn list_images(&self) -> Result<(), SourceError> {
        let asked_at = self.images().changes();
        let listed = image::list(&self.api).await?;
        let mut images = self.images();
        for (names, image) in listed {
            for name in names {
                images.remember(&name, &image, asked_at);
            }
        }
        Ok(())
    }

    /// All that can be known of a container now; `None` if it is gone.
    pub(super) async fn examine(&self, id: &str) -> Result<Option<Examined>, SourceError> {
        match inspect::container(&self.api, id).await {
            Ok(inspect) => Ok(Some(self.complete(id, &inspect).await)),
            Err(SourceError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same, in Docker's own files.
    async fn read_files(&self, id: &str, files: Files) -> Option<Examined> {
        let root = self.root.as_deref().filter(|_| files != Files::Nothing)?;
        let found = self.disk.read(root, id).await?;
        let examined = self.complete(id, &found).await;
        let suffices = match files {
            Files::Nothing => false,
            Files::Created => examined.details.image_id.is_some(),
            Files::Started => examined.details.run.pid.is_some(),
        };
        suffices.then_some(examined)
    }

    async fn complete(&self, id: &str, inspect: &Inspect) -> Examined {
        let mut details = Box::new(inspect.details(self.runtime));
        // At once: the process may be gone in a moment.
        if let Some(process) = proof::ask_kernel(&mut details.run, id, self.keeper)
            && details.run.ip_addresses.is_empty()
            && let Ok(addresses) = process.addresses().await
        {
            details.run.ip_addresses = addresses.ip;
            details.run.mac_addresses = addresses.mac;
        }
        if details.image_digest.is_none()
            && let Some(image) = &details.image_id
            && let Ok(image) = self.image(image).await
        {
            details.image_digest = image.digest(inspect.image_name());
        }
        Examined { details, state: inspect.state(), labels: inspect.label_names().cloned().collect() }
    }

    async fn run(self, job: Job) -> Done {
        match job {
            Job::Container { id, files, created_from } => {
                if let Some(examined) = self.read_files(&id, files).await {
                    return Done::Container { id, examined: Ok(Some(examined)) };
                }
                let mut examined = self.examine(&id).await;
                if let (Ok(None), Some(name)) = (&examined, &created_from)
                    && let Ok(image) = self.image(name).await
                {
                    let details = Box::new(image.details(self.runtime, name));
                    examined = Ok(Some(Examined { details, state: State::Exited, labels: Vec::new() }));
                }
                Done::Container { id, examined }
            }
            Job::Reference(reference) => {
                let found = self.image(&reference).await;
                Done::Reference { reference, containers: Vec::new(), found }
            }
            Job::Images => Done::Images(self.list_images().await),
            Job::Image(told) => {
                let reference = told.id.as_deref().or(told.name.as_deref()).unwrap_or_default();
                let gone = told.action == "delete" || reference.is_empty();
                let found = if gone { None } else { self.ask_event_image(&told, reference).await.ok() };
                Done::Image(told, found.unwrap_or_default())
            }
        }
    }
}

/// The questions of one session.
pub(super) struct Jobs {
    daemon: Daemon,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    waiting: VecDeque<Job>,
    /// The containers that those who wait ask about.
    queued: HashSet<String>,
    /// How many questions about a container have no answer yet.
    open: HashMap<String, usize>,
    /// The containers that wait for an image that is asked for.
    naming: HashMap<String, Vec<String>>,
    /// Events of images that wait for an answer.
    images: Vec<ImageTold>,
}

impl Jobs {
    pub(super) fn new(daemon: Daemon) -> Self {
        Self {
            daemon,
            running: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            queued: HashSet::new(),
            open: HashMap::new(),
            naming: HashMap::new(),
            images: Vec::new(),
        }
    }

    /// Asks, now or when it is its turn. False: too many wait, it is never asked.
    #[must_use]
    pub(super) fn ask(&mut self, job: Job) -> bool {
        if let Job::Container { id, .. } = &job {
            // One that still waits will see all that this one would.
            if self.queued.contains(id) {
                return true;
            }
            if self.waiting.len() < MOST_WAITING {
                *self.open.entry(id.clone()).or_default() += 1;
            }
        }
        self.begin(job)
    }

    /// Asks for the image of a new container, once for all that are created from it at a time. False as above.
    #[must_use]
    pub(super) fn ask_image(&mut self, reference: &str, container: &str) -> bool {
        if !self.naming.contains_key(reference) && !self.begin(Job::Reference(reference.to_owned())) {
            return false;
        }
        let containers = self.naming.entry(reference.to_owned()).or_default();
        let room = containers.len() < MOST_WAITING;
        if room {
            containers.push(container.to_owned());
            *self.open.entry(container.to_owned()).or_default() += 1;
        }
        room
    }

    /// Asks for the image of an event. False as above: the event is the caller's to tell.
    #[must_use]
    pub(super) fn ask_told(&mut self, told: ImageTold) -> bool {
        let asked = self.begin(Job::Image(told.clone()));
        if asked {
            self.images.push(told);
        }
        asked
    }

    /// The events of images that still wait, for when no answer will come any more.
    pub(super) fn unanswered(&mut self) -> Vec<ImageTold> {
        std::mem::take(&mut self.images)
    }

    fn begin(&mut self, job: Job) -> bool {
        if self.running.len() < AT_ONCE {
            self.running.push(Box::pin(self.daemon.clone().run(job)));
            return true;
        }
        let room = self.waiting.len() < MOST_WAITING;
        if room {
            if let Job::Container { id, .. } = &job {
                self.queued.insert(id.clone());
            }
            self.waiting.push_back(job);
        }
        room
    }

    /// Runs a listing beside the questions.
    pub(super) fn list(&mut self, listing: impl Future<Output = Result<Vec<(ContainerKey, Examined)>, SourceError>> + Send + 'static) {
        self.running.push(Box::pin(async { Done::Listed(listing.await) }));
    }

    /// Whether an answer about this container is still to come.
    pub(super) fn concern(&self, id: &str) -> bool {
        self.open.contains_key(id)
    }

    /// The next answer; waits for ever where nothing is asked.
    pub(super) async fn next(&mut self) -> Done {
        match self.running.next().await {
            Some(mut done) => {
                if let Some(job) = self.waiting.pop_front() {
                    if let Job::Container { id, .. } = &job {
                        self.queued.remove(id);
                    }
                    self.running.push(Box::pin(self.daemon.clone().run(job)));
                }
                match &mut done {
                    Done::Container { id, .. } => self.close(id),
                    Done::Reference { reference, containers, .. } => {
                        *containers = self.naming.remove(reference).unwrap_or_default();
                        for id in containers {
                            self.close(id);
                        }
                    }
                    Done::Image(told, _) => {
                        if let Some(at) = self.images.iter().position(|waiting| waiting == told) {
                            self.images.remove(at);
                        }
                    }
                    Done::Images(_) | Done::Listed(_) => {}
                }
                done
            }
            None => std::future::pending().await,
        }
    }

    fn close(&mut self, id: &str) {
        if let Some(open) = self.open.get_mut(id) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(id);
            }
        }
    }
}
