//! A layout directory packed into one tar file.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use super::super::work;

/// Packs `layout` into `file`, which appears whole or not at all. The same layout gives the same bytes.
pub(super) fn pack(layout: &Path, file: &Path) -> io::Result<()> {
    let directory =
        file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let temporary = work::file_in(directory)?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(256 << 10, temporary.as_file()));
    for name in ["oci-layout", "index.json"] {
        append(&mut tar, layout, name)?;
    }
    let mut blobs = std::fs::read_dir(layout.join("blobs/sha256"))?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    blobs.sort();
    for hex in blobs {
        append(&mut tar, layout, &format!("blobs/sha256/{hex}"))?;
    }
    tar.into_inner()?.flush()?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(temporary.path(), std::fs::Permissions::from_mode(0o644))?;
    temporary.persist(file).map_err(|error| error.error)?;
    Ok(())
}

fn append(tar: &mut tar::Builder<impl Write>, layout: &Path, name: &str) -> io::Result<()> {
    let mut content = File::open(layout.join(name))?;
    let mut header = tar::Header::new_gnu();
    header.set_size(content.metadata()?.len());
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, &mut content)
}
