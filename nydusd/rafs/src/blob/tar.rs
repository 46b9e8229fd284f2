//! The tar headers of a blob file. They follow what they describe, so that a reader can walk from the end.

/// Length of a header in bytes.
pub(super) const LEN: usize = 512;

const SIZE_DIGITS: usize = 11;
const CHECKSUM_AT: usize = 148;
const MAGIC_AT: usize = 257;

/// The header of part `name` of `size` bytes, or `None` where eleven octal digits do not hold the size.
pub(super) fn header(name: &str, size: u64) -> Option<[u8; LEN]> {
    let digits = format!("{size:011o}");
    if digits.len() > SIZE_DIGITS {
        return None;
    }
    let mut to = [0; LEN];
    to[..name.len()].copy_from_slice(name.as_bytes());
    to[124..124 + SIZE_DIGITS].copy_from_slice(digits.as_bytes());
    to[136..147].copy_from_slice(b"00000000000");
    to[156] = b'0';
    to[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(b"ustar  \0");
    let sum = checksum(&to);
    to[CHECKSUM_AT..CHECKSUM_AT + 7].copy_from_slice(format!("{sum:07o}").as_bytes());
    Some(to)
}

/// Size that a header states, if it is one of `name`.
pub(super) fn size_of(header: &[u8; LEN], name: &str) -> Option<u64> {
    let (start, rest) = header.split_at(name.len());
    let named = start == name.as_bytes() && rest[0] == 0 && header[MAGIC_AT..].starts_with(b"ustar");
    let sound = octal(&header[CHECKSUM_AT..CHECKSUM_AT + 8]) == Some(checksum(header));
    if named && sound { octal(&header[124..136]) } else { None }
}

/// Sum of all bytes, those of the checksum counted as spaces.
fn checksum(header: &[u8; LEN]) -> u64 {
    let field = CHECKSUM_AT..CHECKSUM_AT + 8;
    let counted =
        |(at, byte): (usize, &u8)| if field.contains(&at) { u64::from(b' ') } else { u64::from(*byte) };
    header.iter().enumerate().map(counted).sum()
}

/// Octal digits up to the first byte that is none.
fn octal(field: &[u8]) -> Option<u64> {
    let end = field.iter().position(|b| !b.is_ascii_digit()).unwrap_or(field.len());
    u64::from_str_radix(std::str::from_utf8(&field[..end]).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_its_size_to_one_who_knows_the_name() {
        let header = header("image.boot", 0o1234).unwrap();
        assert_eq!(size_of(&header, "image.boot"), Some(0o1234));
        assert_eq!(size_of(&header, "image.blob"), None);
        assert_eq!(size_of(&header, "image"), None);
    }

    #[test]
    fn a_flipped_byte_is_seen() {
        let end_of_checksum = CHECKSUM_AT + 7;
        for at in (0..LEN).filter(|at| *at != end_of_checksum) {
            let mut header = header("image.boot", 512).unwrap();
            header[at] ^= 1;
            assert!(size_of(&header, "image.boot").is_none(), "byte {at}");
        }
    }

    #[test]
    fn a_size_of_twelve_digits_has_no_header() {
        assert!(header("x", 8 << 30).is_none());
        assert!(header("x", (8 << 30) - 1).is_some());
    }
}
