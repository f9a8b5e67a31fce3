//! The probes' integration tests on other kernels: Debian's, in qemu without hardware help, from an initramfs of our own.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    process::{self, Result, cargo, root, say},
    setup,
};

const NEEDS: &[(&str, &[&str])] = &[
    ("qemu-system-x86_64", &["qemu-system-x86"]),
    ("cpio", &["cpio"]),
    ("busybox", &["busybox-static"]),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", &["debian-archive-keyring"]),
];

/// Debian's releases whose kernels take the probes; `--suite` names others.
pub(crate) const SUITES: &[&str] = &["bookworm", "bookworm-backports", "trixie"];

/// Seconds for a kernel to start, run the tests and stop.
const PATIENCE: &str = "1200";

/// An old one is emulated best. Without `cx16`, which qemu does not emulate as one step, the kernel's allocator does without it.
const CPU: &str = "Nehalem,-cx16";

/// Boots of a kernel that did not come to the tests.
const TRIES: usize = 3;

/// What the virtual machine runs. The tests want a loopback, cgroups and tracefs; the tool that needs a user finds one. It has no Docker.
const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
ip link set lo up
echo "KERNEL $(uname -r)"
cd /tmp
echo "not run here: the tests of containers, which need Docker"
/test --nocapture --test-threads 1 --skip containers:: ARGUMENTS
echo "ENDED $?"
poweroff -f
"#;

/// Runs the tests on the kernels of these suites, or of [`SUITES`].
pub(crate) fn run(suites: &[String], filter: Option<&str>) -> Result {
    setup::ensure(NEEDS)?;
    let cache = root().join("target/vm");
    fs::create_dir_all(&cache)?;
    let suites: Vec<&str> = if suites.is_empty() { SUITES.to_vec() } else { suites.iter().map(String::as_str).collect() };
    let test = build()?;
    let initramfs = pack(&cache, &test, filter.unwrap_or_default())?;
    let mut failed = Vec::new();
    for suite in suites {
        let outcome = kernel(&cache, suite).and_then(|kernel| boot(&cache, suite, &kernel, &initramfs));
        match outcome {
            Ok(report) => say(&format!("\n{suite}: {report}")),
            Err(error) => {
                say(&format!("\n{suite}: {error}"));
                failed.push(suite);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("not passed on the kernel of {}", failed.join(", ")).into()) }
}

/// Builds the tests and returns their program.
fn build() -> Result<PathBuf> {
    let args = ["test", "--package", "mayfly-ebpf", "--test", "probes", "--no-run", "--message-format", "json"];
    let output = cargo(&args).current_dir(root()).stderr(Stdio::inherit()).output()?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut programs = messages.lines().filter_map(|line| line.split_once(r#""executable":""#)?.1.split_once('"')).map(|(path, _)| path);
    programs.next_back().map(PathBuf::from).ok_or_else(|| "the tests of mayfly-ebpf cannot be built".into())
}

/// Runs apt with lists of its own, so that the host's releases stay as they are.
fn apt(cache: &Path, suite: &str, program: &str, args: &[&str]) -> Result<String> {
    let folder = cache.join(suite);
    for below in ["lists/partial", "archives/partial", "sources"] {
        fs::create_dir_all(folder.join(below))?;
    }
    let source = format!(
        "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: {suite}\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    );
    fs::write(folder.join("sources/debian.sources"), source)?;
    let options = [
        "Dir::Etc::sourcelist=/dev/null".to_owned(),
        format!("Dir::Etc::sourceparts={}", folder.join("sources").display()),
        format!("Dir::State::lists={}", folder.join("lists").display()),
        format!("Dir::Cache={}", folder.display()),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let mut command = Command::new(program);
    for option in &options {
        command.args(["-o", option]);
    }
    let output = command.args(args).current_dir(&folder).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The newest kernel of a suite, fetched unless it is there.
fn kernel(cache: &Path, suite: &str) -> Result<PathBuf> {
    apt(cache, suite, "apt-get", &["update", "--quiet"])?;
    let depends = apt(cache, suite, "apt-cache", &["depends", "linux-image-cloud-amd64"])?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
        .ok_or("it has no kernel for virtual machines")?;
    let folder = cache.join(suite).join(package);
    let image = folder.join("boot").join(package.replacen("linux-image-", "vmlinuz-", 1));
    if !image.exists() {
        apt(cache, suite, "apt-get", &["download", package])?;
        let archive = fs::read_dir(cache.join(suite))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_"))))
            .ok_or("apt brought no package")?;
        process::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&folder))?;
        // Modules are not needed, and large.
        for modules in ["lib", "usr/lib"].map(|lib| folder.join(lib)).iter().filter(|lib| lib.exists()) {
            fs::remove_dir_all(modules)?;
        }
    }
    Ok(image)
}

/// Packs the tests, what they are linked with and read, and busybox.
fn pack(cache: &Path, test: &Path, filter: &str) -> Result<PathBuf> {
    let tree = cache.join("initramfs");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for folder in ["proc", "sys", "dev", "tmp", "etc", "bin", "usr"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755))?;
    fs::copy(busybox()?, tree.join("bin/busybox"))?;
    for applet in ["sh", "mount", "cat", "true", "false", "sleep", "poweroff", "ip", "uname"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet))?;
    }
    std::os::unix::fs::symlink("../bin", tree.join("usr/bin"))?;
    fs::copy(test, tree.join("test"))?;
    let linked = Command::new("ldd").arg(test).output()?;
    let linked = String::from_utf8(linked.stdout)?;
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    // The layout of the records, where the build left it.
    let folder = test.parent().and_then(Path::parent).ok_or("the tests have no folder")?.join("build");
    let layouts = fs::read_dir(folder)?.flatten().map(|entry| entry.path().join("out/layout.o")).filter(|path| path.exists());
    for path in libraries.chain(layouts) {
        let to = tree.join(path.strip_prefix("/")?);
        fs::create_dir_all(to.parent().ok_or("a file without a folder")?)?;
        fs::copy(&path, to)?;
    }
    let init = tree.join("init");
    fs::write(&init, INIT.replace("ARGUMENTS", filter))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let archive = cache.join("initramfs.cpio");
    let names = Command::new("find").current_dir(&tree).arg(".").stdout(Stdio::piped()).spawn()?;
    let status = Command::new("cpio")
        .args(["--create", "--format", "newc", "--quiet", "--owner", "0:0"])
        .current_dir(&tree)
        .stdin(names.stdout.ok_or("find has no output")?)
        .stdout(File::create(&archive)?)
        .status()?;
    if status.success() { Ok(archive) } else { Err(format!("cpio: {status}").into()) }
}

fn busybox() -> Result<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists()).ok_or_else(|| "no busybox".into())
}

/// Boots a kernel into the tests. Returns what they said in the end; the whole lies beside the kernel. A kernel that dies of its
/// emulation before the tests begin gets another try.
fn boot(cache: &Path, suite: &str, kernel: &Path, initramfs: &Path) -> Result<String> {
    let log = cache.join(suite).join("console.log");
    say(&format!("\n{suite}: {} boots; its console goes to {}", kernel.display(), log.display()));
    let mut console = String::new();
    for _ in 0..TRIES {
        console = emulate(kernel, initramfs, &log)?;
        if console.contains("KERNEL ") {
            break;
        }
    }
    let after = |start: &str| console.lines().find_map(|line| line.split_once(start)).map_or("?", |(_, rest)| rest).to_owned();
    let not_run: Vec<_> = console.lines().filter_map(|line| line.split_once("not run here: ")).map(|(_, why)| why).collect();
    let mut report = format!("kernel {}: {}", after("KERNEL "), after("test result: "));
    for why in &not_run {
        report.push_str("\n    not run there: ");
        report.push_str(why);
    }
    if after("ENDED ") == "0" {
        return Ok(report);
    }
    for line in console.lines().filter(|line| line.contains("panicked") || line.contains("Kernel panic")) {
        report.push_str("\n    ");
        report.push_str(line);
    }
    Err(report.into())
}

/// Runs the machine until it stops; what its console said.
fn emulate(kernel: &Path, initramfs: &Path, log: &Path) -> Result<String> {
    Command::new("timeout")
        .args([PATIENCE, "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", CPU, "-m", "1024", "-smp", "2"])
        .args(["-nographic", "-no-reboot", "-append", "console=ttyS0 quiet panic=-1", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(File::create(log)?)
        .status()?;
    Ok(String::from_utf8_lossy(&fs::read(log)?).replace('\r', ""))
}
