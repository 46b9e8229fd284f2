//! Access control lists, as Linux keeps them: they follow the permissions, and new inodes inherit them.

use rafs::Meta;

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: [u8; 4] = [2, 0, 0, 0];
const ENTRY: usize = 8;
const UNDEFINED: [u8; 4] = [0xff; 4];
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One entry: tag, permissions, whose.
type Entry = (u16, u16, [u8; 4]);

/// Gives a new inode what the default list of its directory asks for, unless it brings a list of its own.
pub(super) fn inherit(parent: &Meta, meta: &mut Meta, is_directory: bool) {
    let Some(default) = parent.xattrs.get(DEFAULT) else { return };
    meta.xattrs.entry(ACCESS.to_vec()).or_insert_with(|| default.clone());
    if is_directory {
        meta.xattrs.entry(DEFAULT.to_vec()).or_insert_with(|| default.clone());
    }
}

/// Brings the lists in line with the permissions, which were set last. A list that says no more than they do is none.
pub(super) fn settle(meta: &mut Meta) {
    if let Some(mut entries) = meta.xattrs.get(ACCESS).and_then(|value| parse(value)) {
        let is_more = entries.iter().any(|(tag, ..)| matches!(*tag, USER | GROUP | MASK));
        let has_mask = entries.iter().any(|(tag, ..)| *tag == MASK);
        for (tag, permissions, _) in &mut entries {
            let shift = match *tag {
                USER_OBJ => 6,
                MASK => 3,
                GROUP_OBJ if !has_mask => 3,
                OTHER => 0,
                _ => continue,
            };
            *permissions = meta.permissions >> shift & 7;
        }
        match is_more {
            true => meta.xattrs.insert(ACCESS.to_vec(), encode(&entries)),
            false => meta.xattrs.remove(ACCESS),
        };
    }
    if let Some(entries) = meta.xattrs.get(DEFAULT).and_then(|value| parse(value)) {
        match entries.is_empty() {
            true => meta.xattrs.remove(DEFAULT),
            false => meta.xattrs.insert(DEFAULT.to_vec(), encode(&entries)),
        };
    }
}

/// `None` for a value that is no list: the kernel would not have it, so it is nobody's to change.
fn parse(value: &[u8]) -> Option<Vec<Entry>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    let entries = value.strip_prefix(&VERSION)?;
    let (entries, []) = entries.as_chunks::<ENTRY>() else { return None };
    Some(
        entries
            .iter()
            .map(|[tag0, tag1, bits0, bits1, id @ ..]| {
                (u16::from_le_bytes([*tag0, *tag1]), u16::from_le_bytes([*bits0, *bits1]), *id)
            })
            .collect(),
    )
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut value = VERSION.to_vec();
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(if matches!(*tag, USER | GROUP) { id } else { &UNDEFINED });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        encode(&entries.iter().map(|(tag, bits, id)| (*tag, *bits, id.to_le_bytes())).collect::<Vec<_>>())
    }

    fn meta(permissions: u16, name: &[u8], value: Vec<u8>) -> Meta {
        Meta { permissions, xattrs: [(name.to_vec(), value)].into(), ..Meta::default() }
    }

    #[test]
    fn a_list_follows_the_permissions_and_a_plain_one_is_none() {
        let mut named = meta(
            0o640,
            ACCESS,
            list(&[(USER_OBJ, 7, 0), (USER, 7, 5), (GROUP_OBJ, 7, 0), (MASK, 7, 0), (OTHER, 7, 0)]),
        );
        settle(&mut named);
        let expected =
            list(&[(USER_OBJ, 6, 0), (USER, 7, 5), (GROUP_OBJ, 7, 0), (MASK, 4, 0), (OTHER, 0, 0)]);
        assert_eq!(named.xattrs[ACCESS], expected);
        let mut plain = meta(0o640, ACCESS, list(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 7, 0), (OTHER, 7, 0)]));
        settle(&mut plain);
        assert!(plain.xattrs.is_empty());
    }

    #[test]
    fn new_inodes_inherit_the_default_list_and_directories_pass_it_on() {
        let default = list(&[(USER_OBJ, 7, 0), (USER, 5, 9), (GROUP_OBJ, 5, 0), (MASK, 5, 0), (OTHER, 5, 0)]);
        let parent = meta(0o755, DEFAULT, default.clone());
        let (mut file, mut directory) = (Meta::default(), Meta { permissions: 0o755, ..Meta::default() });
        inherit(&parent, &mut file, false);
        inherit(&parent, &mut directory, true);
        settle(&mut file);
        settle(&mut directory);
        assert_eq!(file.xattrs.keys().collect::<Vec<_>>(), [ACCESS]);
        assert_eq!(
            file.xattrs[ACCESS],
            list(&[(USER_OBJ, 0, 0), (USER, 5, 9), (GROUP_OBJ, 5, 0), (MASK, 0, 0), (OTHER, 0, 0)])
        );
        assert_eq!((&directory.xattrs[ACCESS], &directory.xattrs[DEFAULT]), (&default, &default));
    }

    #[test]
    fn what_is_no_list_is_left_alone() {
        for value in [&b"x"[..], b"\x02\0\0\0abc", b"\x01\0\0\0"] {
            let mut odd = meta(0o600, ACCESS, value.to_vec());
            settle(&mut odd);
            assert_eq!(odd.xattrs[ACCESS], value);
        }
    }
}
