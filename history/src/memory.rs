//! Memory that was freed goes back to the system. glibc keeps most of it, so that after a storm the process would stay as large as it ever
//! was; other allocators do this by themselves.

/// From this size on, a piece of memory is the system's own again as soon as it is freed, and so is what is free at the end of a heap.
#[cfg(target_env = "gnu")]
const LARGE: std::ffi::c_int = 1 << 20;

/// Lets the allocator keep no large pieces, and threads share one heap: what one of them makes, another keeps a little of, so that a heap for
/// each holds on to all of its pages. To be called once, before there is much: glibc would raise its bounds with each large piece that is freed.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "a call of glibc that the standard library does not have")]
    {
        const M_TRIM_THRESHOLD: std::ffi::c_int = -1;
        const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
        const M_ARENA_MAX: std::ffi::c_int = -8;
        unsafe extern "C" {
            fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        // SAFETY: all take numbers, and set bounds of the allocator under its own locks.
        unsafe {
            mallopt(M_TRIM_THRESHOLD, LARGE);
            mallopt(M_MMAP_THRESHOLD, LARGE / 2);
            mallopt(M_ARENA_MAX, 1);
        }
    }
}

/// Gives memory back once more of it is resident than was after the last time.
#[derive(Debug, Default)]
pub(crate) struct Frugality {
    /// Bytes that were resident then.
    resident: usize,
}

/// Growth that is worth the work.
const WORTH: usize = 1 << 20;

impl Frugality {
    /// Whether there may be something to give back: what is in use, or was freed and kept, has grown.
    pub(crate) fn is_due(&self, resident: usize) -> bool {
        resident > self.resident + WORTH
    }

    /// Gives back the pages between what is in use, and remembers what is `resident` after it. Takes milliseconds.
    pub(crate) fn give_back(&mut self, resident: impl FnOnce() -> usize) {
        trim();
        self.resident = resident();
    }
}

/// Bytes of this process that are in memory; 0 where nobody says.
pub(crate) fn resident() -> usize {
    let told = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = told.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size()
}

fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "a call of glibc that the standard library does not have")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: it takes a number, touches only memory that is free, and takes the allocator's locks itself.
        unsafe { malloc_trim(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_once_after_memory_grew() {
        let mut frugality = Frugality::default();
        assert!(frugality.is_due(10 * WORTH), "what the start needed");
        frugality.give_back(|| 9 * WORTH);
        assert!(!frugality.is_due(10 * WORTH));
        assert!(frugality.is_due(10 * WORTH + 1));
        frugality.give_back(|| 20 * WORTH);
        assert!(!frugality.is_due(15 * WORTH), "it is in use, and stays");
    }

    #[test]
    fn the_system_says_what_is_resident() {
        let grown = vec![1u8; 64 << 20];
        assert!(resident() > 32 << 20 && grown.iter().all(|byte| *byte == 1));
    }
}
