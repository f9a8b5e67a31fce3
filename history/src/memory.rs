//! Memory that was freed goes back to the system. glibc keeps most of it, so that after a storm the process would stay as large as it ever
//! was; other allocators do this by themselves.

/// From this size on, a piece of memory is the system's own again as soon as it is freed, and so is what is free at the end of a heap.
#[cfg(target_env = "gnu")]
const LARGE: std::ffi::c_int = 1 << 20;

/// Lets the allocator keep no large pieces. To be called once, before there are any: glibc would raise its bounds with each that is freed.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "a call of glibc that the standard library does not have")]
    {
        const M_TRIM_THRESHOLD: std::ffi::c_int = -1;
        const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
        unsafe extern "C" {
            fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        // SAFETY: both take numbers, and set bounds of the allocator under its own locks.
        unsafe {
            mallopt(M_TRIM_THRESHOLD, LARGE);
            mallopt(M_MMAP_THRESHOLD, LARGE / 2);
        }
    }
}

/// Gives back the pages between what is in use. Takes milliseconds.
pub(crate) fn give_back() {
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
