//! What a source told in vain, until it tells all that exists once more.

use std::{
    future::poll_fn,
    task::{Poll, Waker},
};

use super::Feed;
use crate::time::{Nanos, now};

/// Without a loss for this long, one is over.
const OVER_AFTER: Nanos = 1_000_000_000;
/// A source is asked again only after this time: while losses go on, its answers would add to them.
const AGAIN_AFTER: Nanos = 10_000_000_000;

/// Losses of one feed that its source can mend.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// First and last that was lost since the source was last asked.
    missed: Option<(Nanos, Nanos)>,
    asked_ns: Option<Nanos>,
    /// The source is asked to tell all that exists; since when something is missing.
    wanted: Option<Nanos>,
    waker: Option<Waker>,
}

impl Losses {
    fn was_asked(&self, now_ns: Nanos) -> bool {
        self.asked_ns.is_some_and(|asked| is_soon(asked, now_ns, AGAIN_AFTER))
    }

    /// More is missing; it is asked for when that is over.
    fn miss(&mut self, since_ns: Nanos, now_ns: Nanos) {
        self.missed = Some((self.missed.map_or(since_ns, |(first, _)| first.min(since_ns)), now_ns));
    }

    fn ask(&mut self, since_ns: Nanos, now_ns: Nanos) {
        self.asked_ns = Some(now_ns);
        self.wanted = Some(self.wanted.map_or(since_ns, |since| since.min(since_ns)));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn is_soon(then_ns: Nanos, now_ns: Nanos, pause: Nanos) -> bool {
    (0..pause).contains(&now_ns.saturating_sub(then_ns))
}

impl Feed {
    /// Something was lost after the source had told it, so that what is known of its containers may be wrong.
    pub fn miss(&self, now_ns: Nanos) {
        self.losses().miss(now_ns, now_ns);
    }

    /// Asks the source for all that exists if something was lost, once that is over.
    pub(crate) fn mend(&self, now_ns: Nanos) {
        let mut losses = self.losses();
        if let Some((first, last)) = losses.missed
            && !is_soon(last, now_ns, OVER_AFTER)
            && !losses.was_asked(now_ns)
        {
            losses.missed = None;
            losses.ask(first, now_ns);
        }
    }

    /// Asks the source for all that exists, at once unless it was asked a moment ago: of what it told since then, something is missing.
    pub fn want_resync(&self, since_ns: Nanos) {
        let (mut losses, now_ns) = (self.losses(), now());
        if losses.was_asked(now_ns) {
            losses.miss(since_ns, now_ns);
        } else {
            losses.ask(since_ns, now_ns);
        }
    }

    /// Waits until what this source told was lost on its way; returns since when. The source then lists what exists, as after a gap of
    /// its own. For one task at a time; nothing is lost if the wait is given up.
    pub async fn resync_wanted(&self) -> Nanos {
        poll_fn(|context| {
            if let Some(since) = self.take_resync() {
                return Poll::Ready(since);
            }
            let mut losses = self.losses();
            losses.waker = Some(context.waker().clone());
            // It may have come in between.
            losses.wanted.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The same, for a source that looks now and then.
    pub fn take_resync(&self) -> Option<Nanos> {
        self.losses().wanted.take()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
        task::{Context, Wake},
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    const S: Nanos = 1_000_000_000;

    #[test]
    fn a_source_is_asked_once_what_was_lost_is_over_and_not_too_often() {
        let feed = Feed::new("docker", "");
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut context = Context::from_waker(&waker);
        let mut asked = pin!(feed.resync_wanted());
        let mut poll = || asked.as_mut().poll(&mut context);
        assert_eq!(poll(), Poll::Pending);
        feed.mend(99 * S);
        feed.miss(100 * S);
        feed.miss(102 * S);
        feed.mend(102 * S + S / 2);
        assert!(!woken.0.load(SeqCst), "it is not over yet");
        feed.mend(103 * S);
        assert!(woken.0.load(SeqCst));
        assert_eq!(poll(), Poll::Ready(100 * S));

        feed.miss(104 * S);
        feed.mend(106 * S);
        let mut asked = pin!(feed.resync_wanted());
        assert_eq!(asked.as_mut().poll(&mut context), Poll::Pending, "it was asked a moment ago");
        feed.mend(113 * S);
        assert_eq!(asked.as_mut().poll(&mut context), Poll::Ready(104 * S));
    }

    #[test]
    fn a_store_that_fails_again_and_again_asks_not_too_often() {
        let feed = Feed::new("docker", "");
        feed.want_resync(7);
        assert_eq!(feed.take_resync(), Some(7));
        feed.want_resync(8);
        feed.want_resync(9);
        assert_eq!(feed.take_resync(), None, "it was asked a moment ago");
        feed.mend(now() + AGAIN_AFTER);
        assert_eq!(feed.take_resync(), Some(8), "nothing is forgotten");
    }
}
