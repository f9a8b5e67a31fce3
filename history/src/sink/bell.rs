//! How the recorder is woken.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

/// Wakes the recorder; one for all rings of a recorder.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    /// Wakes whoever waits, now or next.
    pub fn ring(&self) {
        let mut rung = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !*rung {
            *rung = true;
            self.0.1.notify_one();
        }
    }

    /// Waits until the bell rings (true) or the deadline passes; `None` waits for ever.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut rung = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            rung = match deadline {
                None => self.0.1.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.0.1.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        std::mem::take(&mut *rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_wakes_who_waits_and_who_comes_later() {
        let bell = Bell::default();
        bell.ring();
        assert!(bell.wait(None));
        let begun = Instant::now();
        assert!(!bell.wait(Some(begun + std::time::Duration::from_millis(1))));
        assert!(begun.elapsed() >= std::time::Duration::from_millis(1));
        let (waiter, ringer) = (bell.clone(), bell);
        let thread = std::thread::spawn(move || waiter.wait(None));
        ringer.ring();
        assert!(thread.join().unwrap());
    }
}
