//! Small images of made-up files, for tests that need no program in them.

use std::{fs, path::Path};

use anyhow::Result;

use super::{Layout, layer, layout::Form};

/// Bytes that no compressor makes smaller, the same for the same seed.
#[must_use]
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// An image of one layer with `count` files of noise, named by their numbers, each of `len` bytes.
///
/// # Errors
/// Where it cannot be written.
pub fn files(dir: &Path, count: u64, len: usize) -> Result<Layout> {
    let tree = dir.join("tree");
    fs::create_dir_all(&tree)?;
    for number in 0..count {
        fs::write(tree.join(number.to_string()), noise(number, len))?;
    }
    let layout = Layout::create(&dir.join("layout"))?;
    let layer = layout.add_layer(Form::Gzip, |out| layer::write(&tree, out))?;
    layout.finish(&[layer], &["/0"])?;
    Ok(layout)
}
