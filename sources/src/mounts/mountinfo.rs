//! The lines of `/proc/PID/mountinfo`.

use std::collections::BTreeMap;

/// One mount, as its line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) id: i64,
    /// The mount that it lies on.
    pub(crate) parent: i64,
    /// `MAJOR:MINOR`.
    pub(crate) number: String,
    pub(crate) root: String,
    pub(crate) path: String,
    pub(crate) fs_type: String,
    pub(crate) device: String,
    /// As `/proc/mounts` shows them, but the mount's own first.
    pub(crate) flags: String,
    /// Overlay's upper folder, or else its first lower one.
    pub(crate) layer: Option<String>,
}

/// What a line is made of, without the kernel's escapes but in the options.
#[derive(Debug)]
pub(super) struct Texts<'t> {
    pub(super) id: i64,
    pub(super) parent: i64,
    pub(super) number: String,
    pub(super) root: String,
    pub(super) path: String,
    pub(super) fs_type: String,
    pub(super) device: String,
    /// Options of the mount, and of the filesystem.
    pub(super) own: &'t str,
    pub(super) shared: &'t str,
}

impl Line {
    pub(super) fn of(texts: Texts<'_>) -> Self {
        let Texts { id, parent, number, root, path, fs_type, device, own, shared } = texts;
        Self { id, parent, number, root, path, fs_type, device, flags: flags(own, shared), layer: layer(shared) }
    }
}

/// All mounts of a namespace by id, in the order of ids; and how many lines were none, or too many.
pub(crate) fn parse(text: &str, most: usize) -> (BTreeMap<i64, Line>, u64) {
    let (mut mounts, mut rejected) = (BTreeMap::new(), 0);
    for line in text.lines() {
        match line_of(line).filter(|_| mounts.len() < most) {
            Some(mount) => drop(mounts.insert(mount.id, mount)),
            None => rejected += 1,
        }
    }
    (mounts, rejected)
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`, with any number of fields before the dash.
fn line_of(line: &str) -> Option<Line> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let [id, parent, number, root, path, own] = [(); 6].map(|()| mount.next());
    // A file system without a name of its device has an empty field.
    let mut filesystem = filesystem.splitn(3, ' ');
    let [fs_type, device, shared] = [(); 3].map(|()| filesystem.next());
    Some(Line::of(Texts {
        id: id?.parse().ok()?,
        parent: parent?.parse().ok()?,
        number: number?.to_owned(),
        root: unescape(root?),
        path: unescape(path?),
        fs_type: unescape(fs_type?),
        device: unescape(device?),
        own: own?,
        shared: shared.unwrap_or_default(),
    }))
}

fn flags(own: &str, shared: &str) -> String {
    let all = || own.split(',').chain(shared.split(','));
    let mode = if all().any(|flag| flag == "ro") { "ro" } else { "rw" };
    let rest = all().filter(|flag| !matches!(*flag, "ro" | "rw" | ""));
    unescape(&std::iter::once(mode).chain(rest).collect::<Vec<_>>().join(","))
}

fn layer(shared: &str) -> Option<String> {
    let option = |name: &str| shared.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    let first_lower = || option("lowerdir").or_else(|| option("lowerdir+")).and_then(|all| all.split(':').find(|one| !one.is_empty()));
    option("upperdir").or_else(first_lower).map(unescape)
}

/// The kernel writes blanks, line ends and backslashes as `\` and three octal digits.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        let value = octal.and_then(|d| u8::try_from(d.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'))).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = "36 35 98:0 /mnt1 /mnt\\040two rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue\n\
            40 36 0:51 / /a ro,nosuid - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/var/up,workdir=/w\n\
            41 36 0:52 / /b rw - tmpfs  rw\nnonsense\n42 36 x - \n";
        let (mounts, rejected) = parse(text, 100);
        assert_eq!((mounts.len(), rejected), (3, 2));
        let first = &mounts[&36];
        assert_eq!((first.parent, first.root.as_str(), first.path.as_str()), (35, "/mnt1", "/mnt two"));
        assert_eq!(
            (first.device.as_str(), first.fs_type.as_str(), first.flags.as_str()),
            ("/dev/root", "ext3", "rw,noatime,errors=continue")
        );
        assert_eq!(mounts[&40].layer.as_deref(), Some("/var/up"));
        assert_eq!(mounts[&40].flags, "ro,nosuid,lowerdir=/l1:/l2,upperdir=/var/up,workdir=/w");
        assert_eq!((mounts[&41].device.as_str(), mounts[&41].fs_type.as_str()), ("", "tmpfs"));
        assert_eq!(parse(text, 1).1, 4);
    }

    #[test]
    fn reads_every_line_of_this_machine() {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let (mounts, rejected) = parse(&text, usize::MAX);
        assert_eq!((mounts.len(), rejected), (text.lines().count(), 0));
    }

    #[test]
    fn takes_back_the_kernels_escapes_and_leaves_the_rest() {
        assert_eq!(unescape(r"a\040b\134c\012"), "a b\\c\n");
        assert_eq!(unescape(r"\9\04\777x"), r"\9\04\777x");
    }
}
