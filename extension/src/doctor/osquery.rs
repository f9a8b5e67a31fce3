//! Whether osqueryd will load the extension, and flags of it that defeat the delivery of events.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::{Finding, Verdict};

/// Flags that lose events, each with why. A flag without value means true.
const HARMFUL: [(&str, &str, &str); 3] = [
    ("enable_numeric_monitoring", "true", "osquery then does not say which scheduled query runs, so that events come in each answer again"),
    ("events_optimize", "false", "osquery then asks for all events in each answer"),
    ("disable_extensions", "true", "osqueryd then loads no extension"),
];

/// Looks below `root` (`/`, or a tree in a test) at osquery's files. Empty where osquery is not installed.
pub(super) fn examine(root: &Path) -> Vec<Finding> {
    let directory = root.join("etc/osquery");
    if !directory.is_dir() {
        let detail = "no /etc/osquery here; mayfly query and mayfly shell work without it";
        return vec![Finding::new(Verdict::Ok, "osquery", detail, "")];
    }
    let mut findings = flags(&directory.join("osquery.flags"));
    findings.push(autoload(root, &directory.join("extensions.load")));
    findings
}

fn flags(file: &Path) -> Vec<Finding> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let set = |line: &str| {
        let flag = line.trim().strip_prefix("--")?;
        let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
        Some((name.to_owned(), value.to_owned()))
    };
    let flags: Vec<_> = text.lines().filter_map(set).collect();
    let is = |name: &str, value: &str| flags.iter().any(|(n, v)| n == name && v == value);
    let mut findings: Vec<_> = HARMFUL
        .iter()
        .filter(|(name, value, _)| is(name, value))
        .map(|(name, value, why)| {
            let remedy = format!("remove --{name}={value} from {}", file.display());
            Finding::new(Verdict::Warn, "osquery flag", format!("--{name}={value}: {why}"), remedy)
        })
        .collect();
    let no_processes = flags.iter().any(|(n, v)| n == "disable_tables" && v.split(',').any(|t| t.trim() == "processes"));
    if no_processes {
        let detail = "--disable_tables names processes, by which osqueryd's watchdog supervises itself and its extensions";
        findings.push(Finding::new(Verdict::Warn, "osquery flag", detail, "leave the processes table enabled"));
    }
    findings
}

fn autoload(root: &Path, file: &Path) -> Finding {
    let what = "osquery autoload";
    let text = fs::read_to_string(file).unwrap_or_default();
    let Some(binary) = text.lines().map(str::trim).find(|l| l.contains("mayfly") && !l.starts_with('#')) else {
        let remedy = format!("echo /usr/lib/osquery/mayfly.ext >> {}", file.display());
        return Finding::new(Verdict::Warn, what, format!("{} does not name mayfly.ext", file.display()), remedy);
    };
    let path = root.join(binary.trim_start_matches('/'));
    let refuse = |detail: String, remedy: String| Finding::new(Verdict::Warn, what, detail, remedy);
    match fs::metadata(&path) {
        Err(error) => refuse(format!("{binary}: {error}"), "install it there, or correct the line".into()),
        Ok(_) if !binary.ends_with(".ext") => refuse(format!("{binary} does not end in .ext"), "osqueryd refuses it; rename it".into()),
        Ok(meta) if meta.uid() != 0 => refuse(format!("{binary} is not owned by root"), format!("chown root {binary}")),
        Ok(meta) if meta.mode() & 0o002 != 0 => refuse(format!("{binary} is writable for everybody"), format!("chmod o-w {binary}")),
        Ok(_) => Finding::new(Verdict::Ok, what, binary, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(flags: &str, load: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/osquery");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("osquery.flags"), flags).unwrap();
        fs::write(directory.join("extensions.load"), load).unwrap();
        root
    }

    #[test]
    fn names_each_flag_that_defeats_delivery() {
        let root = tree("--enable_numeric_monitoring\n--events_optimize=false\n--disable_tables=foo,processes\n--verbose\n", "");
        let texts: Vec<_> = examine(root.path()).into_iter().map(|f| f.detail).collect();
        for flag in ["enable_numeric_monitoring", "events_optimize", "processes"] {
            assert!(texts.iter().any(|t| t.contains(flag)), "{flag} in {texts:?}");
        }
    }

    #[test]
    fn accepts_only_what_osqueryd_would_load() {
        let root = tree("", "/opt/mayfly.ext\n");
        assert!(examine(root.path()).iter().any(|f| f.verdict == Verdict::Warn), "the file is missing");
        fs::create_dir_all(root.path().join("opt")).unwrap();
        fs::write(root.path().join("opt/mayfly.ext"), "").unwrap();
        let owned_by_root = fs::metadata(root.path().join("opt/mayfly.ext")).unwrap().uid() == 0;
        assert_eq!(examine(root.path()).iter().all(|f| f.verdict == Verdict::Ok), owned_by_root);
    }
}
