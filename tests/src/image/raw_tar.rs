//! Tars written byte by byte, so that they can be as odd as tars in the world are.

const RECORD: usize = 512;

/// One entry, as it is to stand in the tar.
#[derive(Debug, Clone, Default)]
pub struct RawEntry {
    /// Name, any bytes.
    pub name: Vec<u8>,
    /// Type byte.
    pub kind: u8,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// Stored bytes.
    pub content: Vec<u8>,
    /// More PAX records.
    pub pax: Vec<(String, Vec<u8>)>,
    /// Long names in GNU's way, not in that of PAX.
    pub is_gnu: bool,
}

impl RawEntry {
    /// The bytes of the entry with all that stands before it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut pax: Vec<(String, Vec<u8>)> = self.pax.clone();
        for (key, kind, value) in [("path", b'L', &self.name), ("linkpath", b'K', &self.link)] {
            match value.len() > 100 {
                true if self.is_gnu => out.extend(long(kind, value)),
                true => pax.push((key.into(), value.clone())),
                false => {}
            }
        }
        let (seconds, nanos) = self.mtime;
        if nanos != 0 || !(0..1 << 33).contains(&seconds) {
            pax.push(("mtime".into(), decimal(seconds, nanos).into_bytes()));
        }
        for (name, value) in &self.xattrs {
            pax.push((format!("SCHILY.xattr.{name}"), value.clone()));
        }
        if !pax.is_empty() {
            out.extend(header(b"PaxHeaders/x", b'x', records(&pax).len(), |_| {}));
            out.extend(padded(&records(&pax)));
        }
        out.extend(header(&self.name, self.kind, self.content.len(), |record| self.fill(record)));
        out.extend(padded(&self.content));
        out
    }

    fn fill(&self, record: &mut [u8; RECORD]) {
        number(&mut record[100..108], self.mode.into());
        number(&mut record[108..116], self.owner.0.into());
        number(&mut record[116..124], self.owner.1.into());
        number(&mut record[136..148], u64::try_from(self.mtime.0).unwrap_or(0));
        let len = self.link.len().min(100);
        record[157..157 + len].copy_from_slice(&self.link[..len]);
        if self.is_gnu {
            record[257..265].copy_from_slice(b"ustar  \0");
        }
        number(&mut record[329..337], self.device.0.into());
        number(&mut record[337..345], self.device.1.into());
    }
}

/// The two empty records at the end.
#[must_use]
pub fn end() -> Vec<u8> {
    vec![0; 2 * RECORD]
}

fn header(name: &[u8], kind: u8, size: usize, fill: impl FnOnce(&mut [u8; RECORD])) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let len = name.len().min(100);
    record[..len].copy_from_slice(&name[..len]);
    record[257..265].copy_from_slice(b"ustar\x0000");
    number(&mut record[124..136], size as u64);
    record[156] = kind;
    fill(&mut record);
    record[148..156].fill(b' ');
    let sum: u32 = record.iter().map(|byte| u32::from(*byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}

/// Octal where it fits, and binary where not.
fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() == digits {
        field[..digits].copy_from_slice(text.as_bytes());
        return;
    }
    field.fill(0);
    field[0] = 0x80;
    let bytes = value.to_be_bytes();
    let kept = (field.len() - 1).min(bytes.len());
    let begin = field.len() - kept;
    field[begin..].copy_from_slice(&bytes[bytes.len() - kept..]);
}

fn long(kind: u8, value: &[u8]) -> Vec<u8> {
    let value = [value, b"\0"].concat();
    let mut out = header(b"././@LongLink", kind, value.len(), |record| {
        record[257..265].copy_from_slice(b"ustar  \0");
    })
    .to_vec();
    out.extend(padded(&value));
    out
}

/// PAX records: each begins with its own length.
fn records(pairs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut len = body.len();
        while len != body.len() + len.to_string().len() {
            len = body.len() + len.to_string().len();
        }
        out.extend(len.to_string().bytes());
        out.extend(body);
    }
    out
}

fn decimal(seconds: i64, nanos: u32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000)
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(bytes.len().next_multiple_of(RECORD), 0);
    out
}
