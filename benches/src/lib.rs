//! Every claim of speed, measured beside its alternative: see `benches/`.

pub mod fleet;
pub mod measure;
