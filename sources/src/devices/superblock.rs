//! The uuid and label that a filesystem has of itself, from the first bytes of its device. Whoever made the filesystem wrote them.

/// How much of a device is looked at.
pub(crate) const LENGTH: usize = 65536 + 4096;

/// What a filesystem calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    /// In the form that `blkid` shows.
    pub(crate) uuid: String,
    pub(crate) label: String,
}

/// The name of the ext2, ext3, ext4, XFS, Btrfs, FAT, exFAT or swap that begins like this.
pub(crate) fn name(bytes: &[u8]) -> Option<Name> {
    let is = |at: usize, magic: &[u8]| bytes.get(at..at + magic.len()) == Some(magic);
    let named = |uuid: Option<String>, label: Option<String>| Some(Name { uuid: uuid?, label: label? });
    let (uuid, text) = (|at| uuid(bytes, at), |at, length| text(bytes, at, length));
    if is(1024 + 56, &[0x53, 0xEF]) {
        return named(uuid(1024 + 104), text(1024 + 120, 16));
    }
    if is(0, b"XFSB") {
        return named(uuid(32), text(108, 12));
    }
    if is(65536 + 64, b"_BHRfS_M") {
        return named(uuid(65536 + 32), text(65536 + 299, 256));
    }
    if is(4086, b"SWAPSPACE2") {
        return named(uuid(1024 + 12), text(1024 + 28, 16));
    }
    if is(3, b"EXFAT   ") {
        return named(serial(bytes, 100), Some(String::new()));
    }
    if is(510, &[0x55, 0xAA]) {
        // A label that was never set reads so.
        let label = |at| text(at, 11).map(|label| if label == "NO NAME" { String::new() } else { label });
        if is(82, b"FAT32") {
            return named(serial(bytes, 67), label(71));
        }
        if is(54, b"FAT1") {
            return named(serial(bytes, 39), label(43));
        }
    }
    None
}

fn uuid(bytes: &[u8], at: usize) -> Option<String> {
    let digits: String = bytes.get(at..at + 16)?.iter().map(|byte| format!("{byte:02x}")).collect();
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &digits[group]);
    Some(groups.join("-"))
}

/// FAT's four bytes.
fn serial(bytes: &[u8], at: usize) -> Option<String> {
    let number = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    Some(format!("{:04X}-{:04X}", number >> 16, number & 0xFFFF))
}

/// Up to the first NUL, without the blanks behind.
fn text(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let field = bytes.get(at..at + length)?;
    let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(field).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What the real tools make.
    #[test]
    fn reads_what_mkfs_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        let uuid = "12345678-9abc-4ef0-8234-56789abcdef0";
        let made = |command: &[&str]| {
            let image = std::fs::File::create(&file).unwrap();
            image.set_len(64 << 20).unwrap();
            let made = Command::new(command[0]).args(&command[1..]).arg(&file).output();
            let made = made.unwrap_or_else(|error| panic!("{} is needed (e2fsprogs, util-linux, dosfstools): {error}", command[0]));
            assert!(made.status.success(), "{made:?}");
            let mut bytes = std::fs::read(&file).unwrap();
            bytes.truncate(LENGTH);
            name(&bytes).unwrap()
        };
        let expected = |uuid: &str, label: &str| Name { uuid: uuid.into(), label: label.into() };
        assert_eq!(made(&["/sbin/mke2fs", "-q", "-t", "ext4", "-U", uuid, "-L", "data"]), expected(uuid, "data"));
        assert_eq!(made(&["/sbin/mkswap", "-U", uuid, "-L", "swapped"]), expected(uuid, "swapped"));
    }

    /// Offsets as the formats' own documents have them.
    #[test]
    fn knows_the_formats_that_the_tools_of_a_test_machine_do_not_make() {
        let image = |fields: &[(usize, &[u8])]| {
            let mut bytes = vec![0; LENGTH];
            fields.iter().for_each(|(at, field)| bytes[*at..at + field.len()].copy_from_slice(field));
            name(&bytes)
        };
        let (number, shown) = ([0x5A; 16], "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a");
        let named = |uuid: &str, label: &str| Some(Name { uuid: uuid.into(), label: label.into() });
        assert_eq!(image(&[(0, b"XFSB"), (32, &number), (108, b"pool")]), named(shown, "pool"));
        assert_eq!(image(&[(65600, b"_BHRfS_M"), (65568, &number), (65835, b"sub")]), named(shown, "sub"));
        let fat32: &[(usize, &[u8])] = &[(510, &[0x55, 0xAA]), (82, b"FAT32   "), (67, &[0xEF, 0xBE, 0xAD, 0xDE]), (71, b"STICK      ")];
        assert_eq!(image(fat32), named("DEAD-BEEF", "STICK"));
        assert_eq!(image(&[(510, &[0x55, 0xAA]), (54, b"FAT16   "), (39, &[1, 0, 0, 0]), (43, b"NO NAME    ")]), named("0000-0001", ""));
        assert_eq!(image(&[(3, b"EXFAT   "), (100, &[1, 2, 3, 4])]), named("0403-0201", ""));
        assert_eq!(image(&[]), None);
        assert_eq!(name(&[]), None);
    }
}
