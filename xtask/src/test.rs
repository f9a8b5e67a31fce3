//! Everything that CI runs, cheapest first.

use crate::{
    docs,
    process::{self, Result, cargo, installed, say},
};

pub(crate) fn run() -> Result {
    process::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    process::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    docs::run(true)?;
    if installed("cargo-deny") {
        process::run(&mut cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"]))?;
    } else {
        say("\ncargo-deny is not installed: licences are not checked (`cargo install cargo-deny`)");
    }
    // The behaviours last: they take minutes. Built apart, they would build the dependencies with other features.
    process::run(&mut cargo(&["test", "--workspace", "--no-fail-fast"]))?;
    say("\nall passed");
    Ok(())
}

/// The figures of the behaviours, as a user gets them: a release build, full load.
pub(crate) fn prove(filter: Option<&str>) -> Result {
    let mut test = cargo(&["test", "--release", "--package", "mayfly-tests", "--test", "behaviours", "--", "--test-threads", "1"]);
    if let Some(filter) = filter {
        test.arg(filter);
    }
    process::run(test.env("MAYFLY_PROVE", "1"))
}
