//! Where the fields of a tracepoint are, as tracefs tells.

use std::{fs, io, path::Path};

/// Where tracefs is mounted, below `/sys`.
const MOUNTS: [&str; 2] = ["kernel/tracing", "kernel/debug/tracing"];

/// The `format` of a tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format(String);

impl Format {
    /// Reads it. `sysfs`: `/sys`.
    pub(crate) fn read(sysfs: &Path, category: &str, name: &str) -> io::Result<Self> {
        let read = |mount| fs::read_to_string(sysfs.join(mount).join("events").join(category).join(name).join("format"));
        read(MOUNTS[0]).or_else(|_| read(MOUNTS[1])).map(Self)
    }

    /// Bytes in front of a field: `\tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;`.
    pub(crate) fn offset(&self, field: &str) -> Option<u32> {
        self.0.lines().find_map(|line| {
            let (declaration, rest) = line.trim_start().strip_prefix("field:")?.split_once(';')?;
            // An array's length stands behind its name.
            let name = declaration.rsplit(' ').next()?.split('[').next()?;
            let offset = rest.trim_start().strip_prefix("offset:")?.split(';').next()?.parse().ok()?;
            (name == field).then_some(offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a 6.18.
    const FORMAT: &str = "name: inet_sock_set_state\nID: 1466\nformat:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:__u8 saddr[4];\toffset:32;\tsize:4;\tsigned:0;
\tfield:__u8 saddr_v6[16];\toffset:40;\tsize:16;\tsigned:0;
\tfield:__data_loc char[] path;\toffset:56;\tsize:4;\tsigned:0;

print fmt: \"field:int saddr; offset:99;\"
";

    #[test]
    fn finds_each_field_by_its_name() {
        let format = Format(FORMAT.into());
        let found = ["skaddr", "saddr", "saddr_v6", "path", "common_pid", "nothing", "char"].map(|field| format.offset(field));
        assert_eq!(found, [Some(8), Some(32), Some(40), Some(56), Some(4), None, None]);
    }

    #[test]
    fn says_that_tracefs_is_not_mounted() {
        assert_eq!(Format::read(Path::new("/nonexistent"), "sched", "sched_process_exec").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
