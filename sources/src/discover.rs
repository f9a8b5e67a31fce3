//! Finds the endpoints of runtimes, and sees when they appear or are replaced: inotify on their directories, no polling.
