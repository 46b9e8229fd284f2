//! The calls that nerdctl's converter makes of `nydus-image`.
