//! A body whose last bytes wait until all of it is known to be right.

use std::io;

use axum::body::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use ring::digest::{Context, SHA256};

/// A body on its way, with the bytes that came last held back.
struct Hashed<S> {
    body: stream::Fuse<S>,
    hash: Context,
    digest: [u8; 32],
    held: Option<Bytes>,
}

impl<S, E> Hashed<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    /// The bytes before those that come now; at the end all, if they are those of the digest.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.body.next().await {
                Some(bytes) => {
                    let bytes = bytes.map_err(io::Error::other)?;
                    self.hash.update(&bytes);
                    if let Some(before) = self.held.replace(bytes).filter(|before| !before.is_empty()) {
                        return Ok(Some(before));
                    }
                }
                None if self.hash.clone().finish().as_ref() == self.digest => return Ok(self.held.take()),
                None => return Err(io::Error::other("the bytes are not those of the digest")),
            }
        }
    }
}

/// The same body, which breaks off before its last bytes where it is not what SHA-256 `digest` says.
pub(in crate::local) fn hashed<S, E>(body: S, digest: [u8; 32]) -> impl Stream<Item = io::Result<Bytes>>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    let all = Hashed { body: body.fuse(), hash: Context::new(&SHA256), digest, held: None };
    stream::try_unfold(all, |mut all| async move { Ok(all.next().await?.map(|bytes| (bytes, all))) })
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use sha2::{Digest as _, Sha256};

    use super::*;

    async fn passed(parts: &[&'static str], digest_of: &str) -> (String, bool) {
        let parts: Vec<_> =
            parts.iter().map(|part| io::Result::Ok(Bytes::from_static(part.as_bytes()))).collect();
        let mut body = Box::pin(hashed(stream::iter(parts), Sha256::digest(digest_of).into()));
        let mut came = String::new();
        loop {
            match body.try_next().await {
                Ok(Some(bytes)) => came += std::str::from_utf8(&bytes).unwrap(),
                Ok(None) => return (came, true),
                Err(_) => return (came, false),
            }
        }
    }

    #[tokio::test]
    async fn a_right_body_comes_whole_and_a_wrong_one_breaks_off_before_its_end() {
        assert_eq!(passed(&["ab", "", "cd"], "abcd").await, ("abcd".to_owned(), true));
        assert_eq!(passed(&[], "").await, (String::new(), true));
        assert_eq!(passed(&["ab", "cd"], "abcx").await, ("ab".to_owned(), false));
        assert_eq!(passed(&["abcd"], "abcx").await, (String::new(), false));
        assert_eq!(passed(&["ab", "cd"], "abcdef").await, ("ab".to_owned(), false));
    }
}
