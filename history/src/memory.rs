//! Memory that was freed goes back to the system.

/// Gives back what the allocator keeps. glibc returns only what lies at the end of a heap, so that after a storm the process would stay as large
/// as it ever was; other allocators do this by themselves. Takes milliseconds.
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
