//! Bytes of a blob, exactly as many as its descriptor says.

use std::io::{self, Read};

/// Reads as many bytes as were promised, and fails where there are fewer or more: else a source could send for ever.
pub(super) struct Exact<R> {
    from: R,
    size: u64,
    left: u64,
}

impl<R: Read> Exact<R> {
    pub(super) fn new(from: R, size: u64) -> Self {
        Self { from, size, left: size }
    }
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let wrong = |kind, problem| {
            io::Error::new(kind, format!("{problem} than the {} bytes of its descriptor", self.size))
        };
        if self.left == 0 {
            return match self.from.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(wrong(io::ErrorKind::InvalidData, "there are more")),
            };
        }
        let want = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let n = self.from.read(&mut buf[..want])?;
        if n == 0 {
            return Err(wrong(io::ErrorKind::UnexpectedEof, "there are fewer"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], size: u64) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        let read = Exact::new(bytes, size).read_to_end(&mut all);
        read.map(|_| all).map_err(|error| error.to_string())
    }

    #[test]
    fn fewer_or_more_bytes_than_promised_are_refused() {
        assert_eq!(read(b"seven b", 7).unwrap(), b"seven b");
        assert_eq!(read(b"", 0).unwrap(), b"");
        assert!(read(b"seven b", 8).unwrap_err().contains("fewer than the 8 bytes"));
        assert!(read(b"seven b", 6).unwrap_err().contains("more than the 6 bytes"));
        assert!(Exact::new(io::repeat(0), 1 << 20).read_to_end(&mut Vec::new()).is_err(), "it ends");
    }
}
