//! Frames: a length, then a message; after the message that announces a piece, its bytes.

use std::{io, ops::Range, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use p2p_api::peer::{Body, Message, Piece};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

use super::{Closed, Outgoing, Refused};
use crate::{
    PieceLayout, TaskId,
    rate::{STEP, Share},
};

/// Longest message in bytes.
const LONGEST: usize = 1 << 20;
/// A frame that only says that its sender lives.
pub(super) const ALIVE: Bytes = Bytes::from_static(&[0; 4]);
/// How much is read of a piece before room is made for more: its announcement alone costs no memory.
const ROOM: usize = 256 << 10;
/// A connection is over when nothing came for so long.
pub(super) const SILENT: Duration = Duration::from_mins(1);
/// How the network tells that the other side is gone.
const ENDS: [io::ErrorKind; 3] =
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];

/// What a frame holds.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    /// Nothing that is to be told.
    Alive,
    Message(Body),
    /// Bytes of a piece follow.
    Piece(Announced),
}

/// A part of a piece, which may be all of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Announced {
    pub(super) task: TaskId,
    pub(super) piece: u32,
    /// Bytes that follow.
    pub(super) length: usize,
    /// Bytes that went before.
    pub(super) offset: usize,
    /// Bytes that come later.
    pub(super) rest: usize,
}

pub(super) fn encode(body: Body) -> Result<Bytes, Refused> {
    let message = Message::from(body);
    let len = message.encoded_len();
    let header = u32::try_from(len).ok().filter(|_| len <= LONGEST).ok_or(Refused::TooLong)?;
    let mut frame = BytesMut::with_capacity(4 + len);
    frame.put_u32(header);
    message.encode(&mut frame).expect("there is room for it");
    Ok(frame.freeze())
}

/// What goes before these bytes of a piece.
pub(super) fn announce(piece: &Outgoing, part: &Range<usize>) -> Result<Bytes, Refused> {
    let most = |len: usize| u32::try_from(len).ok().filter(|len| *len <= PieceLayout::MAX_SIZE);
    let len = most(piece.bytes.len()).ok_or(Refused::TooLong)?;
    let offset = most(part.start).ok_or(Refused::TooLong)?;
    let length = most(part.len()).ok_or(Refused::TooLong)?;
    let (task, rest) = (Bytes::copy_from_slice(piece.task.as_bytes()), len.saturating_sub(offset + length));
    encode(Body::Piece(Piece { task, piece: piece.piece, length, offset, rest }))
}

/// Reads a frame.
pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Frame, Closed> {
    let mut header = [0; 4];
    // Between frames an end is an end, however abrupt.
    let begun = match progress(reader.read(&mut header)).await? {
        Ok(0) => return Err(Closed::There),
        Err(error) if ENDS.contains(&error.kind()) => return Err(Closed::There),
        begun => begun.map_err(failed)?,
    };
    progress(reader.read_exact(&mut header[begun..])).await?.map_err(failed)?;
    let len = u32::from_be_bytes(header) as usize;
    if len > LONGEST {
        return Err(Closed::Broken(format!("a message of {len} bytes")));
    }
    let mut bytes = BytesMut::new();
    read_bytes(reader, &mut bytes, len, None).await?;
    decode(bytes.freeze())
}

fn decode(bytes: Bytes) -> Result<Frame, Closed> {
    let message = Message::decode(bytes).map_err(|error| Closed::Broken(error.to_string()))?;
    match message.body {
        // Empty, or of a version to come.
        None => Ok(Frame::Alive),
        Some(Body::Piece(Piece { task, piece, length, offset, rest })) => {
            let task = task.as_ref().try_into().map_err(|_| Closed::Broken("a task's name".to_owned()))?;
            let len = u64::from(length) + u64::from(offset) + u64::from(rest);
            if len > u64::from(PieceLayout::MAX_SIZE) {
                return Err(Closed::Broken(format!("a piece of {len} bytes")));
            }
            let [length, offset, rest] = [length, offset, rest].map(|bytes| bytes as usize);
            Ok(Frame::Piece(Announced { task: TaskId::from_bytes(task), piece, length, offset, rest }))
        }
        Some(body) => Ok(Frame::Message(body)),
    }
}

/// Reads exactly `len` further bytes, as fast as `limit` lets them come.
pub(super) async fn read_bytes(
    reader: &mut (impl AsyncRead + Unpin),
    bytes: &mut BytesMut,
    len: usize,
    limit: Option<&Share>,
) -> Result<(), Closed> {
    let end = bytes.len() + len;
    while bytes.len() < end {
        let missing = end - bytes.len();
        if bytes.len() == bytes.capacity() {
            bytes.reserve(missing.min(bytes.len().max(ROOM)));
        }
        let most = limit.map_or(missing, |_| missing.min(STEP as usize));
        let mut part = (&mut *reader).take(most as u64);
        let read = progress(part.read_buf(bytes)).await?.map_err(failed)?;
        if read == 0 {
            return Err(Closed::Failed("ended in the middle of a frame".to_owned()));
        }
        if let Some(limit) = limit {
            limit.take(u32::try_from(read).unwrap_or(STEP)).await;
        }
    }
    Ok(())
}

async fn progress<T>(reading: impl Future<Output = T>) -> Result<T, Closed> {
    timeout(SILENT, reading).await.map_err(|_| Closed::Silent)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn failed(error: io::Error) -> Closed {
    Closed::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use p2p_api::peer::Have;
    use proptest::prelude::*;

    use super::*;
    use crate::transport::Lane;

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    fn outgoing(len: usize) -> Outgoing {
        let bytes = vec![7; len].into();
        Outgoing {
            task: TaskId::from_bytes([1; 32]),
            piece: 9,
            bytes,
            lane: Lane::Urgent,
            limit: None,
            pace: None,
        }
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let have = Body::Have(Have { task: vec![1; 32].into(), pieces: vec![1, 2] });
        let mut wire = encode(have.clone()).unwrap().to_vec();
        wire.extend(ALIVE);
        wire.extend(announce(&outgoing(300_000), &(100..200_100)).unwrap());
        wire.extend(vec![7; 200_000]);
        let mut rest = wire.as_slice();
        assert_eq!(now(read(&mut rest)), Ok(Frame::Message(have)));
        assert_eq!(now(read(&mut rest)), Ok(Frame::Alive));
        let task = TaskId::from_bytes([1; 32]);
        let part = Announced { task, piece: 9, length: 200_000, offset: 100, rest: 99_900 };
        assert_eq!(now(read(&mut rest)), Ok(Frame::Piece(part)));
        let mut bytes = BytesMut::from([7; 100].as_slice());
        now(read_bytes(&mut rest, &mut bytes, 200_000, None)).unwrap();
        assert_eq!(bytes, vec![7; 200_100]);
        assert_eq!(now(read(&mut rest)), Err(Closed::There));
    }

    #[test]
    fn what_is_too_long_is_refused_by_either_side() {
        let have = Body::Have(Have { task: Bytes::new(), pieces: vec![u32::MAX; 1 << 18] });
        assert_eq!(encode(have), Err(Refused::TooLong));
        assert_eq!(announce(&outgoing((16 << 20) + 1), &(0..1)), Err(Refused::TooLong));
        let long = [0, 0x10, 0, 1];
        assert!(matches!(now(read(&mut long.as_slice())), Err(Closed::Broken(_))));
        for piece in [
            Piece { task: vec![1; 32].into(), length: PieceLayout::MAX_SIZE + 1, ..Piece::default() },
            Piece { task: vec![1; 32].into(), length: 1, offset: u32::MAX, rest: u32::MAX, piece: 0 },
            Piece { task: vec![1; 31].into(), length: 1, ..Piece::default() },
        ] {
            let frame = encode(Body::Piece(piece)).unwrap();
            assert!(matches!(now(read(&mut frame.as_ref())), Err(Closed::Broken(_))));
        }
    }

    #[test]
    fn an_end_in_the_middle_is_a_failure() {
        let frame = announce(&outgoing(1), &(0..1)).unwrap();
        for end in 1..frame.len() {
            assert!(matches!(now(read(&mut &frame[..end])), Err(Closed::Failed(_))), "{end}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_frames_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut rest = bytes.as_slice();
            let mut frames = 0;
            while now(read(&mut rest)).is_ok() {
                frames += 1;
            }
            prop_assert!(frames * 4 <= bytes.len());
        }
    }
}
