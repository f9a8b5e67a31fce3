//! The uuid and label that a filesystem has of itself, from the first bytes of its device. Whoever made the filesystem wrote them.

/// How much of a device is looked at.
pub(crate) const LENGTH: usize = 65536 + 4096;

/// What a filesystem, or an encrypted or logical volume, calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    /// As `blkid` calls it.
    pub(crate) kind: String,
    /// In the form that `blkid` shows.
    pub(crate) uuid: String,
    pub(crate) label: String,
}

/// The name of what begins like this: ext2 to ext4, XFS, Btrfs, FAT, exFAT, NTFS, ISO 9660, squashfs, swap, LUKS or LVM.
pub(crate) fn name(bytes: &[u8]) -> Option<Name> {
    let is = |at: usize, magic: &[u8]| bytes.get(at..at + magic.len()) == Some(magic);
    let named = |kind: &str, uuid: Option<String>, label: Option<String>| Some(Name { kind: kind.into(), uuid: uuid?, label: label? });
    let (uuid, text) = (|at| uuid(bytes, at), |at, length| text(bytes, at, length));
    let nothing = || Some(String::new());
    if is(0, b"LUKS\xBA\xBE") {
        // The first version has the name of its cipher there.
        return named("crypto_LUKS", text(168, 40), if is(6, &[0, 2]) { text(24, 48) } else { nothing() });
    }
    if let Some(at) = (0..4).map(|sector| sector * 512).find(|at| is(*at, b"LABELONE") && is(at + 24, b"LVM2 001")) {
        return named("LVM2_member", text(at + 32, 32).as_deref().and_then(volume), nothing());
    }
    if is(1024 + 56, &[0x53, 0xEF]) {
        return named(extended(bytes)?, uuid(1024 + 104), text(1024 + 120, 16));
    }
    if is(0, b"XFSB") {
        return named("xfs", uuid(32), text(108, 12));
    }
    if is(65536 + 64, b"_BHRfS_M") {
        return named("btrfs", uuid(65536 + 32), text(65536 + 299, 256));
    }
    if is(4086, b"SWAPSPACE2") {
        return named("swap", uuid(1024 + 12), text(1024 + 28, 16));
    }
    if is(32769, b"CD001") {
        return named("iso9660", date(bytes, 32768 + 830).or_else(|| date(bytes, 32768 + 813)).or_else(nothing), text(32768 + 40, 32));
    }
    if is(0, b"hsqs") {
        return named("squashfs", nothing(), nothing());
    }
    if is(3, b"EXFAT   ") {
        return named("exfat", serial(bytes, 100), nothing());
    }
    if is(3, b"NTFS    ") {
        return named("ntfs", bytes.get(72..80)?.try_into().ok().map(|number| format!("{:016X}", u64::from_le_bytes(number))), nothing());
    }
    if is(510, &[0x55, 0xAA]) {
        // A label that was never set reads so.
        let label = |at| text(at, 11).map(|label| if label == "NO NAME" { String::new() } else { label });
        if is(82, b"FAT32") {
            return named("vfat", serial(bytes, 67), label(71));
        }
        if is(54, b"FAT1") {
            return named("vfat", serial(bytes, 39), label(43));
        }
    }
    None
}

/// Which of the three it is, by what a driver of the older ones would have to know.
fn extended(bytes: &[u8]) -> Option<&'static str> {
    let features = |at: usize| bytes.get(1024 + at..1024 + at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (compatible, incompatible, read_only) = (features(92)?, features(96)?, features(100)?);
    const JOURNAL: u32 = 0x4;
    // File types, a journal to be replayed, metadata groups; sparse superblocks, large files, hashed folders.
    let is_old = incompatible & !(0x2 | 0x4 | 0x10) == 0 && read_only & !0x7 == 0;
    Some(if !is_old {
        "ext4"
    } else if compatible & JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    })
}

/// An LVM identifier, as its tools group it.
fn volume(text: &str) -> Option<String> {
    let groups = [0..6, 6..10, 10..14, 14..18, 18..22, 22..26, 26..32].map(|group| text.get(group));
    groups.into_iter().collect::<Option<Vec<_>>>().map(|groups| groups.join("-"))
}

/// When the image of a disc was made, which stands for its uuid.
fn date(bytes: &[u8], at: usize) -> Option<String> {
    let digits = std::str::from_utf8(bytes.get(at..at + 16)?).ok()?;
    let is_set = digits.bytes().all(|digit| digit.is_ascii_digit()) && digits.bytes().any(|digit| digit != b'0');
    is_set.then(|| [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16].map(|part| &digits[part]).join("-"))
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
        let expected = |kind: &str, label: &str| Name { kind: kind.into(), uuid: uuid.into(), label: label.into() };
        assert_eq!(made(&["/sbin/mke2fs", "-q", "-t", "ext4", "-U", uuid, "-L", "data"]), expected("ext4", "data"));
        assert_eq!(made(&["/sbin/mke2fs", "-q", "-t", "ext3", "-U", uuid]), expected("ext3", ""));
        assert_eq!(made(&["/sbin/mke2fs", "-q", "-t", "ext2", "-U", uuid]), expected("ext2", ""));
        assert_eq!(made(&["/sbin/mkswap", "-U", uuid, "-L", "swapped"]), expected("swap", "swapped"));
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
        let named = |kind: &str, uuid: &str, label: &str| Some(Name { kind: kind.into(), uuid: uuid.into(), label: label.into() });
        assert_eq!(image(&[(0, b"XFSB"), (32, &number), (108, b"pool")]), named("xfs", shown, "pool"));
        assert_eq!(image(&[(65600, b"_BHRfS_M"), (65568, &number), (65835, b"sub")]), named("btrfs", shown, "sub"));
        let fat32: &[(usize, &[u8])] = &[(510, &[0x55, 0xAA]), (82, b"FAT32   "), (67, &[0xEF, 0xBE, 0xAD, 0xDE]), (71, b"STICK      ")];
        assert_eq!(image(fat32), named("vfat", "DEAD-BEEF", "STICK"));
        assert_eq!(
            image(&[(510, &[0x55, 0xAA]), (54, b"FAT16   "), (39, &[1, 0, 0, 0]), (43, b"NO NAME    ")]),
            named("vfat", "0000-0001", "")
        );
        assert_eq!(image(&[(3, b"EXFAT   "), (100, &[1, 2, 3, 4])]), named("exfat", "0403-0201", ""));
        let luks = |version: u8| image(&[(0, b"LUKS\xBA\xBE\0"), (7, &[version]), (24, b"vault"), (168, shown.as_bytes())]);
        assert_eq!((luks(1), luks(2)), (named("crypto_LUKS", shown, ""), named("crypto_LUKS", shown, "vault")));
        let lvm: &[(usize, &[u8])] = &[(512, b"LABELONE"), (536, b"LVM2 001"), (544, b"abcdefghijklmnopqrstuvwxyz012345")];
        assert_eq!(image(lvm), named("LVM2_member", "abcdef-ghij-klmn-opqr-stuv-wxyz-012345", ""));
        let disc: &[(usize, &[u8])] = &[(32769, b"CD001"), (32808, b"Debian 12  "), (33598, b"2023061012345600")];
        assert_eq!(image(disc), named("iso9660", "2023-06-10-12-34-56-00", "Debian 12"));
        assert_eq!(image(&[(3, b"NTFS    "), (72, &[0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 1])]), named("ntfs", "0123456789ABCDEF", ""));
        assert_eq!(image(&[]), None);
        assert_eq!(name(&[]), None);
    }
}
