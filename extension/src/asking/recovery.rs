//! Work that goes on after it broke down by a defect of ours.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use crate::line::Line;

/// The pauses before it begins anew, from the first to the longest: what broke down is likely to do so again.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60 * 60));

/// Runs `work` until it ends by itself. Where it panics, `say` is told why and what is done about it, and it begins anew after a pause, until the
/// process ends. It must keep nothing that a panic leaves half done.
pub(super) fn recovering(line: &Line, pauses: (Duration, Duration), mut say: impl FnMut(String, String), mut work: impl FnMut()) {
    let mut pause = pauses.0;
    while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut work)) {
        let is_over = line.is_hung_up();
        let name = thread::current().name().unwrap_or_default().to_owned();
        let why = format!("the thread {name} panicked: {}", words(&*panic));
        tracing::error!(thread = name, why, "a thread failed in a way that it should not");
        say(why, format!("begins anew in {} s; report it with its log", pause.as_secs()));
        if is_over {
            return;
        }
        line.wait_for_end(Instant::now() + pause);
        pause = (pause * 2).min(pauses.1);
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_down_says_so_and_begins_anew_until_it_ends_by_itself() {
        let (mut runs, mut said) = (0, Vec::new());
        let work = || {
            runs += 1;
            assert!(runs > 2, "run {runs} breaks down");
        };
        recovering(&Line::new("/nowhere"), (Duration::ZERO, Duration::ZERO), |why, _| said.push(why), work);
        assert_eq!(runs, 3);
        assert!(said.len() == 2 && said[0].ends_with("panicked: run 1 breaks down"), "{said:?}");
    }

    #[test]
    fn what_breaks_down_at_the_end_of_the_process_does_not_hold_it_up() {
        let line = Line::new("/nowhere");
        line.hang_up();
        let mut said = Vec::new();
        recovering(&line, PAUSES, |why, _| said.push(why), || panic!("as the test wants it"));
        assert_eq!(said.len(), 1);
    }
}
