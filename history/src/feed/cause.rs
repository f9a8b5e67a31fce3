//! Why a source was blind: the values of `recorder_gaps.cause`.

/// Nothing recorded.
pub const RECORDER_DOWN: &str = "recorder_down";
/// What the source listens to was not there.
pub const DAEMON_DOWN: &str = "daemon_down";
/// Events came faster than they were read.
pub const RING_FULL: &str = "ring_full";
/// The source lost its place in what it listens to.
pub const STREAM_LAGGED: &str = "stream_lagged";
/// The source failed by a defect.
pub const PANICKED: &str = "panicked";
/// The store did not take what was seen.
pub const STORE_FAILED: &str = "store_failed";
/// What was stored cannot be read any more.
pub const DAMAGED_BLOCK: &str = "damaged_block";
/// osquery was not there to be asked.
pub const OSQUERY_DOWN: &str = "osquery_down";
/// The extension was not there to ask.
pub const EXTENSION_DOWN: &str = "extension_down";
/// The extension registered with osquery again, since there were other tables to follow.
pub const REGISTERED_AGAIN: &str = "registered_again";
/// osquery no longer has the table, or the configuration no longer names it.
pub const NOT_FOLLOWED: &str = "not_followed";
/// The table could not be captured.
pub const CAPTURE_FAILED: &str = "capture_failed";
/// Nobody looked yet, or it expired.
pub const BEFORE_FIRST_RECORD: &str = "before_first_record";
/// It expired before a reader had it.
pub const EXPIRED_UNDELIVERED: &str = "expired_undelivered";

/// All of them.
pub const ALL: [&str; 14] = [
    RECORDER_DOWN,
    DAEMON_DOWN,
    RING_FULL,
    STREAM_LAGGED,
    PANICKED,
    STORE_FAILED,
    DAMAGED_BLOCK,
    OSQUERY_DOWN,
    EXTENSION_DOWN,
    REGISTERED_AGAIN,
    NOT_FOLLOWED,
    CAPTURE_FAILED,
    BEFORE_FIRST_RECORD,
    EXPIRED_UNDELIVERED,
];
