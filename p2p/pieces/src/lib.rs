//! How a blob is cut into pieces, the unit of transfer between nodes, and the list of digests that vouches for them.
//!
//! Values and bytes only: the piece network checks pieces by such a list, the converter writes one for each blob.

mod bitmap;
mod layout;
mod list;

pub use bitmap::{BitmapError, PieceBitmap};
pub use layout::{LayoutError, PieceIndex, PieceLayout};
pub use list::{ListError, PieceList, PieceLister};
