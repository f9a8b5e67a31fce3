//! What the kernel says when a device comes, goes or changes.

/// Longest message: the kernel's own buffer and the path before it.
const LONGEST: usize = 8 << 10;

/// One message; its texts are as the kernel wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uevent<'b> {
    pub(crate) action: &'b str,
    /// The device's folder below `/sys`, from `/devices/` on.
    pub(crate) path: &'b str,
    pub(crate) subsystem: &'b str,
    /// `disk`, `partition`, `usb_device`, ….
    pub(crate) kind: &'b str,
    /// Below `/dev`.
    pub(crate) name: &'b str,
    /// `MAJOR:MINOR`.
    pub(crate) number: Option<String>,
    pub(crate) disk_sequence: Option<i64>,
    /// Of all messages of this kernel, to whomever they went.
    pub(crate) sequence: Option<u64>,
}

/// Why a message cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("a message about a device has {0} bytes")]
    Long(usize),
    #[error("a message about a device is not of the kernel's form")]
    Form,
    #[error("a message about a device names the folder {0:?}")]
    Path(String),
}

/// `ACTION@PATH`, then `KEY=VALUE`, each up to a NUL.
pub(crate) fn parse(bytes: &[u8]) -> Result<Uevent<'_>, Unusable> {
    if bytes.len() > LONGEST {
        return Err(Unusable::Long(bytes.len()));
    }
    let mut fields = bytes.split(|byte| *byte == 0).map(|field| std::str::from_utf8(field).ok());
    let (action, path) = fields.next().flatten().and_then(|head| head.split_once('@')).ok_or(Unusable::Form)?;
    if !path.starts_with("/devices/") || path.split('/').any(|part| part == "..") {
        return Err(Unusable::Path(path.chars().take(200).collect()));
    }
    let mut event = Uevent { action, path, ..Uevent::default() };
    let (mut major, mut minor) = (None, None);
    // A value that is no text is not one of these.
    for (key, value) in fields.flatten().filter_map(|field| field.split_once('=')) {
        match key {
            "SUBSYSTEM" => event.subsystem = value,
            "DEVTYPE" => event.kind = value,
            "DEVNAME" => event.name = value,
            "MAJOR" => major = value.parse::<u32>().ok(),
            "MINOR" => minor = value.parse::<u32>().ok(),
            "DISKSEQ" => event.disk_sequence = value.parse().ok(),
            "SEQNUM" => event.sequence = value.parse().ok(),
            _ => {}
        }
    }
    event.number = major.zip(minor).map(|(major, minor)| format!("{major}:{minor}"));
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel of a test machine sent it.
    const ADDED: &[u8] = b"add@/devices/virtual/block/zram1\0ACTION=add\0DEVPATH=/devices/virtual/block/zram1\0SUBSYSTEM=block\0\
        MAJOR=253\0MINOR=1\0DEVNAME=zram1\0DEVTYPE=disk\0DISKSEQ=27\0SEQNUM=1802\0";

    #[test]
    fn reads_what_the_kernel_sends() {
        let expected = Uevent {
            action: "add",
            path: "/devices/virtual/block/zram1",
            subsystem: "block",
            kind: "disk",
            name: "zram1",
            number: Some("253:1".into()),
            disk_sequence: Some(27),
            sequence: Some(1802),
        };
        assert_eq!(parse(ADDED), Ok(expected));
    }

    #[test]
    fn refuses_what_is_not_the_kernels_and_paths_that_lead_elsewhere() {
        assert_eq!(parse(b"libudev\0\xFE\xED\xCA\xFE"), Err(Unusable::Form), "udev's own messages");
        assert_eq!(parse(b""), Err(Unusable::Form));
        assert_eq!(parse(&[b'a'; LONGEST + 1]), Err(Unusable::Long(LONGEST + 1)));
        for path in ["/etc/passwd", "/devices/../../etc", "devices/x"] {
            assert_eq!(parse(format!("add@{path}\0SEQNUM=1\0").as_bytes()), Err(Unusable::Path(path.into())));
        }
        let odd = parse(b"change@/devices/x\0\xFF=\xFF\0MAJOR=-1\0MINOR=2\0SEQNUM=\0DISKSEQ=z\0novalue\0").unwrap();
        assert_eq!(odd, Uevent { action: "change", path: "/devices/x", ..Uevent::default() });
    }
}
