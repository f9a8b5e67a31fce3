//! The binary; see `mayfly --help`.

fn main() {}
