//! osquery itself, as manager and as client.
