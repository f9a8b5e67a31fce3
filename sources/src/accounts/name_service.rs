//! Users and groups that no file names (SSSD, systemd-homed, DynamicUser): the system's name service is asked for an id when an event shows it.
//!
//! Nobody tells when such an account comes or goes. It is there from the event that showed it first, it is asked for again while it is
//! seen and now and then, and what it is no longer ends, as `unknown`, when that is noticed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, btree_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mayfly_history::{Change, Nanos, chain, now, recorder::SeenId};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    AccountsConfig,
    asked::Asked,
    book::Book,
    getent::{self, Silent},
    root::Root,
};
use crate::supervise::Site;

/// Who said what is told here.
const EVIDENCE: &str = "nss";
/// Programs that ask at once; one that hangs takes its place until it ends.
const MOST_AT_ONCE: usize = 2;
/// Least time between the starts of two of them.
const BETWEEN: Duration = Duration::from_millis(50);
/// How often one is asked for that got no answer, with such a pause in between.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Ids that wait to be asked for.
const MOST_WAITING: usize = 256;
/// Accounts that the name service may have given at a time.
const MOST_NAMED: usize = 1024;
/// Ids that are remembered as nobody's, and how long.
const MOST_UNNAMED: usize = 4096;
const UNNAMED_FOR: Duration = Duration::from_secs(600);
/// One that is not seen is asked for again after so long.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(900);
/// Where the program is, on this system or another.
const PROGRAMS: [&str; 3] = ["/usr/bin/getent", "/bin/getent", "/run/current-system/sw/bin/getent"];

/// What the name service said so far of users, or of groups.
#[derive(Debug)]
pub(crate) struct NameService<A: Asked> {
    site: Site,
    root: PathBuf,
    /// `None`: there is nobody to be asked.
    program: Option<Arc<Path>>,
    named: BTreeMap<u32, Named<A>>,
    unnamed: HashMap<u32, Instant>,
    waiting: VecDeque<Question>,
    asking: JoinSet<Answer<A>>,
    /// The ids that those are about.
    asked: BTreeSet<u32>,
    next_start: Instant,
    /// Nothing that is told now began before: something ended then.
    not_before: Nanos,
}

#[derive(Debug)]
struct Named<A> {
    account: A,
    asked: Instant,
}

/// An id to be asked for. `at_ns`: when an event showed it; `None`: it is time to.
#[derive(Clone, Copy, Debug)]
struct Question {
    id: u32,
    at_ns: Option<Nanos>,
}

#[derive(Debug)]
pub(crate) struct Answer<A> {
    question: Question,
    /// `None`: nobody, or one whom a file names.
    outcome: Result<Option<A>, Silent>,
}

impl<A: Asked> NameService<A> {
    pub(crate) fn new(site: Site, config: &AccountsConfig) -> Self {
        // Below another root is another system, whose name service cannot be asked from here.
        let usual = || PROGRAMS.into_iter().map(PathBuf::from).find(|path| config.root == Path::new("/") && path.exists());
        let program = config.getent.clone().or_else(usual).filter(|_| config.name_service);
        Self {
            site,
            root: config.root.clone(),
            program: program.map(Into::into),
            named: BTreeMap::new(),
            unnamed: HashMap::new(),
            waiting: VecDeque::new(),
            asking: JoinSet::new(),
            asked: BTreeSet::new(),
            next_start: Instant::now(),
            not_before: 0,
        }
    }

    pub(crate) fn can_be_asked(&self) -> bool {
        self.program.is_some()
    }

    /// Ends what the recorder before this one knew: nobody can tell whether it still holds before it is seen again.
    pub(crate) fn begin(&mut self) {
        let Some(blind_since) = self.site.recorder.blind_since().filter(|_| self.not_before == 0) else { return };
        self.not_before = now();
        let group = A::stranger().group().into_owned();
        let taken_ns = self.not_before;
        self.push(Change::Present { group, facts: Vec::new(), taken_ns, blind_since: Some(blind_since), evidence: EVIDENCE });
    }

    /// Takes the ids that events showed. `book`: whom the files name.
    pub(crate) fn look(&mut self, book: &Book) {
        for SeenId { id, at_ns } in A::seen(&self.site.recorder).take() {
            if A::is_named(book, id) {
                self.end(id, at_ns, "changed");
            } else if self.unnamed.get(&id).is_none_or(|asked| asked.elapsed() >= UNNAMED_FOR) {
                self.want(Question { id, at_ns: Some(at_ns) });
            }
        }
        self.start();
    }

    /// Asks again for those who were not asked for in a long while.
    pub(crate) fn look_again(&mut self, now: Instant) {
        // Their next time is counted from now, however long the answer takes, and whether or not there is room for the question.
        let is_due = |named: &Named<A>| now.saturating_duration_since(named.asked) >= ASK_AGAIN_AFTER;
        let renew = |(id, named): (&u32, &mut Named<A>)| {
            named.asked = now;
            *id
        };
        let due: Vec<_> = self.named.iter_mut().filter(|(_, named)| is_due(named)).map(renew).collect();
        due.into_iter().for_each(|id| self.want(Question { id, at_ns: None }));
        self.start();
    }

    /// When [`Self::look_again`] has something to do; `None`: never.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.program.as_ref()?;
        self.named.values().map(|named| named.asked + ASK_AGAIN_AFTER).min()
    }

    /// Waits for an answer, for ever where nothing was asked.
    pub(crate) async fn answer(&mut self) -> Answer<A> {
        loop {
            match self.asking.join_next().await {
                Some(Ok(answer)) => return answer,
                Some(Err(error)) => {
                    tracing::warn!(%error, "an answer of the name service was lost");
                    self.asked.clear();
                }
                None => std::future::pending().await,
            }
        }
    }

    fn want(&mut self, question: Question) {
        // Of one that is on its way already the earlier time counts; what finds no room is seen again.
        let is_under_way = self.asked.contains(&question.id) || self.waiting.iter().any(|waiting| waiting.id == question.id);
        if self.waiting.len() < MOST_WAITING && !is_under_way {
            self.waiting.push_back(question);
        }
    }

    fn start(&mut self) {
        let Some(program) = &self.program else {
            self.waiting.clear();
            return;
        };
        while self.asking.len() < MOST_AT_ONCE
            && let Some(question) = self.waiting.pop_front()
        {
            let at = self.next_start.max(Instant::now());
            self.next_start = at + BETWEEN;
            let (program, root) = (Arc::clone(program), self.root.clone());
            self.asked.insert(question.id);
            self.asking.spawn(async move {
                sleep_until(at).await;
                Answer { question, outcome: ask(program, root, question.id).await }
            });
        }
    }

    /// Takes what was answered.
    pub(crate) fn take(&mut self, Answer { question: Question { id, at_ns }, outcome }: Answer<A>) {
        self.asked.remove(&id);
        let at_ns = at_ns.unwrap_or_else(now).max(self.not_before);
        match outcome {
            Ok(Some(account)) => self.hold(id, account, at_ns),
            Ok(None) => {
                self.end(id, at_ns, "unknown");
                self.note_unnamed(id);
            }
            Err(silent) => {
                self.site.feed.complain(chain(&silent));
                if silent.is_for_good() {
                    tracing::warn!(error = chain(&silent), "the name service is not asked any more");
                    self.program = None;
                }
                // What was known is asked for again in its time, not at once.
                self.named.entry(id).and_modify(|named| named.asked = Instant::now());
            }
        }
        self.start();
    }

    fn hold(&mut self, id: u32, account: A, at_ns: Nanos) {
        self.unnamed.remove(&id);
        let is_renamed = |named: &Named<A>| named.account.scope() != account.scope();
        if self.named.get(&id).is_some_and(is_renamed) {
            self.end(id, at_ns, "unknown");
        }
        let is_full = self.named.len() >= MOST_NAMED;
        let asked = Instant::now();
        match self.named.entry(id) {
            Entry::Occupied(mut known) => {
                let is_same = std::mem::replace(known.get_mut(), Named { account: account.clone(), asked }).account == account;
                if is_same {
                    return;
                }
            }
            Entry::Vacant(_) if is_full => {
                self.site.feed.complain(format!("the name service gave {MOST_NAMED} accounts: {} {id} is left out", A::ID));
                return;
            }
            Entry::Vacant(room) => drop(room.insert(Named { account: account.clone(), asked })),
        }
        self.push(Change::Holds { fact: account, at_ns, evidence: EVIDENCE });
    }

    fn end(&mut self, id: u32, at_ns: Nanos, reason: &'static str) {
        let Some(Named { account, .. }) = self.named.remove(&id) else { return };
        self.not_before = self.not_before.max(at_ns);
        let (key, scope) = (account.key().into_owned(), account.scope().into_owned());
        self.push(Change::Ended { key, scope, at_ns, reason, evidence: EVIDENCE });
    }

    fn note_unnamed(&mut self, id: u32) {
        if self.unnamed.len() >= MOST_UNNAMED {
            self.unnamed.retain(|_, asked| asked.elapsed() < UNNAMED_FOR);
        }
        if self.unnamed.len() < MOST_UNNAMED {
            self.unnamed.insert(id, Instant::now());
        }
    }

    fn push(&self, change: Change<A>) {
        self.site.recorder.sinks().of().push(&self.site.feed, change);
    }
}

/// The account of that id, if it is the name service alone that has one: one that was added a moment ago is in a file that is yet to be read.
pub(super) async fn ask<A: Asked>(program: Arc<Path>, root: PathBuf, id: u32) -> Result<Option<A>, Silent> {
    let mut answer = getent::ask::<A>(Arc::clone(&program), id).await;
    for _ in 1..ATTEMPTS {
        if let Err(Silent::Answer { .. } | Silent::Failed { .. }) = answer {
            sleep(PAUSE).await;
            answer = getent::ask(Arc::clone(&program), id).await;
        }
    }
    let Some(account) = answer? else { return Ok(None) };
    let told = account.clone();
    let is_in_file = move || {
        let root = Root::Host(root);
        root.open().and_then(|etc| root.read(&etc)).is_ok_and(|look| told.is_in(&look.book))
    };
    let is_in_file = tokio::task::spawn_blocking(is_in_file).await.unwrap_or(false);
    Ok((!is_in_file).then_some(account))
}
