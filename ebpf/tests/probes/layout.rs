//! The layout of every record, in C and in Rust: compared through the BTF that clang wrote of `bpf/event.h`.

use std::{collections::BTreeMap, mem::offset_of};

use mayfly_ebpf::records::{CgroupChange, Cgroups, Exec, Exit, Fork, Header, MountCall, OomKill, SocketChange};
use object::{Object, ObjectSection};

/// Name → (size, members and their byte offsets).
type Structs = BTreeMap<String, (u32, BTreeMap<String, u32>)>;

const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNCTION_PROTOTYPE: u32 = 13;
const VARIABLE: u32 = 14;
const SECTION: u32 = 15;
const DECLARATION_TAG: u32 = 17;
const ENUM64: u32 = 19;

/// Reads the structures of a BTF section (kernel documentation, `bpf/btf.rst`).
fn structs(btf: &[u8]) -> Structs {
    let word = |at: usize| u32::from_le_bytes(btf[at..at + 4].try_into().unwrap());
    let header = word(4) as usize;
    let (types, types_size) = (header + word(8) as usize, word(12) as usize);
    let strings = &btf[header + word(16) as usize..];
    let string = |at: u32| {
        let text = &strings[at as usize..];
        String::from_utf8(text[..text.iter().position(|&b| b == 0).unwrap()].into()).unwrap()
    };
    let mut found = Structs::new();
    let mut at = types;
    while at < types + types_size {
        let (name, info, size) = (string(word(at)), word(at + 4), word(at + 8));
        let (kind, entries) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        at += 12;
        if kind == STRUCT {
            let members = (0..entries).map(|i| (string(word(at + 12 * i)), (word(at + 12 * i + 8) & 0x00ff_ffff) / 8)).collect();
            found.insert(name, (size, members));
        }
        at += match kind {
            INT | VARIABLE | DECLARATION_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | SECTION | ENUM64 => 12 * entries,
            ENUM | FUNCTION_PROTOTYPE => 8 * entries,
            _ => 0,
        };
    }
    found
}

/// Size and offsets of a Rust structure, with the name of its twin.
macro_rules! layout {
    ($c:literal, $rust:ty, $($field:ident),+) => {
        ($c.to_owned(), (size_of::<$rust>() as u32, BTreeMap::from([$((stringify!($field).to_owned(), offset_of!($rust, $field) as u32)),+])))
    };
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "sizes of small structures")]
fn records_are_laid_out_alike_in_c_and_in_rust() {
    let file = std::fs::read(concat!(env!("OUT_DIR"), "/layout.o")).unwrap();
    let object = object::File::parse(&*file).unwrap();
    let in_c = structs(object.section_by_name(".BTF").unwrap().data().unwrap());
    let in_rust = Structs::from([
        layout!("cgroups", Cgroups, unified, legacy),
        layout!("event_header", Header, kind, size, boot_ns, cgroups, pid, ns_pid, parent, uid, gid, euid, auid, pid_ns, net_ns, mnt_ns),
        layout!("exec", Exec, header, cwd_size, file_size, path_size, args_size, args_whole),
        layout!("exit", Exit, header, started_boot_ns, status, reserved, comm),
        layout!("fork", Fork, header),
        layout!("cgroup_change", CgroupChange, header, id, hierarchy, path_size),
        layout!("socket_change", SocketChange, header, local, remote, local_port, remote_port, family, protocol, action, failed),
        layout!(
            "mount_call",
            MountCall,
            header,
            flags,
            result,
            action,
            source_size,
            source_base_size,
            target_size,
            target_base_size,
            type_size
        ),
        layout!("oom_kill", OomKill, header, total_vm_pages, rss_pages, comm),
    ]);
    assert_eq!(in_c, in_rust);
}
