//! Questions to the daemon that events raise: asked beside the stream, a bounded number at once, never in its way.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use mayfly_history::container::{ContainerKey, Details, Runtime, State};

use super::{
    api::Api,
    decode::ImageTold,
    image::{self, Image, Images},
    inspect::{self, Inspect},
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
    /// Whether root runs it: else its pids need proof, and its paths are not opened.
    pub(super) trusted: bool,
    /// Docker's root directory, where its files can be read.
    pub(super) root: Option<PathBuf>,
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

/// A question.
#[derive(Debug)]
pub(super) enum Job {
    /// Inspect a container; where it is gone, its image by the name it was asked for.
    Container { id: String, image: Option<String> },
    /// Find the id and digest of an image.
    Image(ImageTold),
}

/// An answer.
#[derive(Debug)]
pub(super) enum Done {
    Container { id: String, examined: Result<Option<Examined>, SourceError> },
    Image(ImageTold, Image),
    Listed(Result<Vec<(ContainerKey, Examined)>, SourceError>),
}

impl Daemon {
    pub(super) fn new(api: Api, runtime: Runtime, trusted: bool, root: Option<PathBuf>) -> Self {
        Self { api, runtime, trusted, root, images: Arc::default() }
    }

    fn images(&self) -> MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to an image; what was known of it may be wrong.
    pub(super) fn forget_image(&self, id: &str) {
        self.images().forget(id);
    }

    /// An image by its id.
    async fn image(&self, id: &str) -> Result<Image, SourceError> {
        if let Some(image) = self.images().get(id) {
            return Ok(image);
        }
        let image = image::image(&self.api, id).await?;
        self.images().remember(id.to_owned(), image.clone());
        Ok(image)
    }

    /// All that can be known of a container now; `None` if it is gone.
    pub(super) async fn examine(&self, id: &str) -> Result<Option<Examined>, SourceError> {
        match inspect::container(&self.api, id).await {
            Ok(inspect) => Ok(Some(self.complete(id, &inspect).await)),
            Err(SourceError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn complete(&self, id: &str, inspect: &Inspect) -> Examined {
        let mut details = Box::new(inspect.details(self.runtime));
        // At once: the process may be gone in a moment.
        if let Some(process) = inspect::ask_kernel(&mut details.run, id, self.trusted)
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
            Job::Container { id, image } => {
                let mut examined = self.examine(&id).await;
                if let (Ok(None), Some(name)) = (&examined, &image)
                    && let Ok(image) = image::image(&self.api, name).await
                {
                    let details =
                        Details { runtime: self.runtime, image_digest: image.digest(name), image_id: image.id, ..Details::default() };
                    examined = Ok(Some(Examined { details: Box::new(details), state: State::Exited, labels: Vec::new() }));
                }
                Done::Container { id, examined }
            }
            Job::Image(told) => {
                let reference = told.id.as_deref().or(told.name.as_deref()).unwrap_or_default();
                let gone = told.action == "delete" || reference.is_empty();
                let found = if gone { None } else { image::image(&self.api, reference).await.ok() };
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
    /// How many questions about a container have no answer yet.
    open: HashMap<String, usize>,
}

impl Jobs {
    pub(super) fn new(daemon: Daemon) -> Self {
        Self { daemon, running: FuturesUnordered::new(), waiting: VecDeque::new(), open: HashMap::new() }
    }

    /// Asks, now or when it is its turn. False: too many wait, it is never asked.
    #[must_use]
    pub(super) fn ask(&mut self, job: Job) -> bool {
        if let Job::Container { id, .. } = &job {
            // One that still waits will see all that this one would.
            let same = |waiting: &Job| matches!(waiting, Job::Container { id: other, .. } if other == id);
            if self.waiting.iter().any(same) {
                return true;
            }
            if self.waiting.len() < MOST_WAITING {
                *self.open.entry(id.clone()).or_default() += 1;
            }
        }
        if self.running.len() < AT_ONCE {
            self.running.push(Box::pin(self.daemon.clone().run(job)));
            return true;
        }
        let room = self.waiting.len() < MOST_WAITING;
        if room {
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
            Some(done) => {
                if let Some(job) = self.waiting.pop_front() {
                    self.running.push(Box::pin(self.daemon.clone().run(job)));
                }
                if let Done::Container { id, .. } = &done
                    && let Some(open) = self.open.get_mut(id)
                {
                    *open -= 1;
                    if *open == 0 {
                        self.open.remove(id);
                    }
                }
                done
            }
            None => std::future::pending().await,
        }
    }
}
