//! The Thrift code, from our copy of osquery's IDL.

use std::{env, fs, process::Command};

use crate::{
    process::{self, Result, cargo, root},
    setup,
};

pub(crate) fn run() -> Result {
    setup::ensure(&[("thrift", &["thrift-compiler"])])?;
    let out = env::temp_dir().join(format!("mayfly-thrift-{}", std::process::id()));
    fs::create_dir_all(&out)?;
    process::run(Command::new("thrift").args(["--gen", "rs", "-out"]).arg(&out).arg("extension/thrift/osquery.thrift"))?;
    fs::copy(out.join("osquery.rs"), root().join("extension/src/thrift/generated.rs"))?;
    fs::remove_dir_all(&out)?;
    process::run(&mut cargo(&["fmt", "--package", "mayfly"]))
}
