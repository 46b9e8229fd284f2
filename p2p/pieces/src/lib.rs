//! How a blob is cut into pieces, the unit of transfer between nodes, and the lists that vouch for them.
//!
//! Values and bytes only: the piece network checks pieces by such a list. The converter writes one of the pieces of each
//! blob; nydusd makes one of the chunks of a blob whose image has none.

mod bitmap;
mod chunk_list;
mod layout;
mod list;
mod number;

pub use bitmap::{BitmapError, PieceBitmap};
pub use chunk_list::{ChunkList, ChunkListError, Codec, ListedChunk};
pub use layout::{LayoutError, PieceLayout};
pub use list::{ListError, PieceList, PieceLister};
pub use number::{PieceCount, PieceIndex};
