//! The documentation of the tables, which the binary makes from their declarations.

use std::{collections::BTreeMap, fs, io, path::Path, process::Command};

use crate::process::{self, Result, cargo, root, target};

/// Writes `docs/tables/*.md` and `docs/schema.json`; with `check`, fails where they differ from what would be written.
pub(crate) fn run(check: bool) -> Result {
    process::run(&mut cargo(&["build", "--quiet", "--package", "mayfly"]))?;
    let wanted = pages(&schema("markdown")?)?.into_iter().chain([("schema.json".to_owned(), schema("json")?)]);
    let docs = root().join("docs");
    let mut wanted: BTreeMap<_, _> = wanted.map(|(name, text)| (docs.join(name), text)).collect();
    for page in list(&docs.join("tables"))? {
        // A page of a table that is no more: to be removed.
        wanted.entry(page).or_default();
    }
    let differs = |path: &Path, text: &str| fs::read_to_string(path).unwrap_or_default() != text;
    let stale: Vec<_> = wanted.iter().filter(|(path, text)| differs(path, text)).collect();
    if check {
        return match stale.first() {
            None => Ok(()),
            Some((path, _)) => Err(format!("{} is not what the declarations say: run `cargo xtask docs`", path.display()).into()),
        };
    }
    fs::create_dir_all(docs.join("tables"))?;
    for (path, text) in stale {
        process::say(&format!("{}", path.display()));
        if text.is_empty() { fs::remove_file(path)? } else { fs::write(path, text)? }
    }
    Ok(())
}

fn schema(format: &str) -> Result<String> {
    let output = Command::new(target().join("debug/mayfly")).args(["schema", "--format", format]).output()?;
    if output.status.success() { Ok(String::from_utf8(output.stdout)?) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

/// One page a table: each begins with its name as a heading of the first level.
fn pages(markdown: &str) -> Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    for page in format!("\n{markdown}").split("\n# ").filter(|page| !page.trim().is_empty()) {
        let name = page.lines().next().unwrap_or_default().trim().trim_matches('`');
        if name.is_empty() || name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            return Err(format!("`mayfly schema` begins a page with {name:?}, which is no table").into());
        }
        pages.insert(format!("tables/{name}.md"), format!("# {}\n", page.trim_end()));
    }
    Ok(pages)
}

fn list(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
