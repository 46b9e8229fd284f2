//! What the index page of a directory names.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use html5gum::{DefaultEmitter, Token, Tokenizer};
use percent_encoding::percent_decode_str;
use url::Url;

/// A file or a directory below the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Where it goes, seen from there.
    pub(super) path: PathBuf,
    pub(super) is_dir: bool,
    pub(super) url: Url,
}

/// A name that could lead out of the directory, or to no file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the index names {0:?}, which is no safe name of a file")]
pub(super) struct Unsafe(String);

/// What the index of `dir` names below `root`, in order, each once. Links to elsewhere, to directories above, and with a
/// query (an index in another order) are no part of it.
pub(super) fn entries(page: &[u8], root: &Url, dir: &Url) -> (Vec<Entry>, Vec<Unsafe>) {
    let (mut entries, mut wrong) = (Vec::new(), Vec::new());
    let mut reader = DefaultEmitter::default();
    // What stands in a script is no tag.
    reader.naively_switch_states(true);
    for token in Tokenizer::new_with_emitter(page, reader) {
        let Ok(Token::StartTag(tag)) = token else { continue };
        if tag.name.as_slice() != b"a" {
            continue;
        }
        let Some(href) = tag.attributes.get(&b"href"[..]) else { continue };
        match below(&String::from_utf8_lossy(href), root, dir) {
            Some(Ok(entry)) => entries.push(entry),
            Some(Err(name)) => wrong.push(name),
            None => {}
        }
    }
    entries.sort();
    entries.dedup();
    (entries, wrong)
}

/// What a link leads to, if that is below `root`.
fn below(href: &str, root: &Url, dir: &Url) -> Option<Result<Entry, Unsafe>> {
    let mut url = dir.join(href).ok()?;
    url.set_fragment(None);
    if url.origin() != root.origin() || url.query().is_some() {
        return None;
    }
    // Who we are to the server is what was said for the directory, not what its page says.
    url.set_username(root.username()).and_then(|()| url.set_password(root.password())).ok()?;
    let name = url.path().strip_prefix(root.path()).filter(|name| !name.is_empty())?;
    if dir.path().starts_with(url.path()) {
        return None;
    }
    let (name, is_dir) = name.strip_suffix('/').map_or((name, false), |name| (name, true));
    let path = name.split('/').map(part).collect::<Option<PathBuf>>();
    Some(path.map(|path| Entry { path, is_dir, url: url.clone() }).ok_or_else(|| Unsafe(href.to_owned())))
}

/// The name that a part of a URL stands for.
fn part(text: &str) -> Option<PathBuf> {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    let is_safe =
        !matches!(bytes.as_slice(), b"" | b"." | b"..") && !bytes.iter().any(|byte| matches!(byte, b'/' | 0));
    is_safe.then(|| Path::new(OsStr::from_bytes(&bytes)).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(page: &str, root: &str, dir: &str) -> (Vec<(String, bool)>, usize) {
        let [root, dir] = [root, dir].map(|url| Url::parse(url).unwrap());
        let (entries, wrong) = entries(page.as_bytes(), &root, &dir);
        let entries =
            entries.into_iter().map(|entry| (entry.path.to_str().unwrap().to_owned(), entry.is_dir));
        (entries.collect(), wrong.len())
    }

    fn is(names: &[&str]) -> Vec<(String, bool)> {
        names
            .iter()
            .map(|name| name.strip_suffix('/').map_or((*name, false), |name| (name, true)))
            .map(|(name, is_dir)| (name.to_owned(), is_dir))
            .collect()
    }

    #[test]
    fn indexes_of_ordinary_servers_are_read() {
        let root = "http://h/pub/";
        let nginx = r#"<html><head><title>Index of /pub/</title></head><body><h1>Index of /pub/</h1><hr><pre>
            <a href="../">../</a>
            <a href="sub/">sub/</a>          27-Nov-2026 08:00       -
            <a href="a%20b.bin">a b.bin</a>  27-Nov-2026 08:00    1024
            </pre><hr></body></html>"#;
        assert_eq!(named(nginx, root, root), (is(&["a b.bin", "sub/"]), 0));
        let apache = r#"<table><tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>
            <tr><td><a href="/">Parent Directory</a></td></tr>
            <tr><td><A HREF='sub/'>sub/</A></td></tr><tr><td><a href=r&amp;d.txt>r&amp;d.txt</a></td></tr></table>"#;
        assert_eq!(named(apache, root, root), (is(&["r&d.txt", "sub/"]), 0));
        let python = r#"<ul><li><a href="%C3%A4.txt">ä.txt</a></li><li><a href="link/">link@</a></li></ul>"#;
        assert_eq!(named(python, root, "http://h/pub/sub/"), (is(&["sub/link/", "sub/ä.txt"]), 0));
    }

    #[test]
    fn only_what_is_below_on_the_same_server_is_followed() {
        let page = r##"<a href="http://other/pub/x"></a><a href="https://h/pub/x"></a><a href="http://h:81/pub/x"></a>
            <a href="/public"></a><a href="/other/x"></a><a href="../x"></a><a href="./"></a><a href="#top"></a>
            <a href="x?download"></a><a href="mailto:me@h"></a><a>no link</a><a href="http://[broken"></a>
            <script>"<a href='scripted'>"</script><!-- <a href="comment"> --><a href="/pub/"></a>
            <a href="twice"></a><a href="/pub/twice#part"></a><a href="%2e%2e/%2e%2e/up"></a>
            <a href="//h/pub/sub/deep"></a>"##;
        assert_eq!(named(page, "http://h/pub/", "http://h/pub/"), (is(&["sub/deep", "twice"]), 0));
    }

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        for name in ["..%2f..%2fetc/passwd", "a%2Fb", "%2fetc%2fpasswd", "x/..%2f", "a//b", "nul%00", "..%2F"]
        {
            let page = format!(r#"<a href="{name}">"#);
            assert_eq!(named(&page, "http://h/pub/", "http://h/pub/"), (Vec::new(), 1), "{name}");
        }
        // To a URL these are a directory above and a slash.
        for name in ["/pub/a/../../../etc/passwd", "..\\..\\x"] {
            let page = format!(r#"<a href="{name}">"#);
            assert_eq!(named(&page, "http://h/pub/", "http://h/pub/"), (Vec::new(), 0), "{name}");
        }
    }

    #[test]
    fn who_we_are_is_what_was_said_for_the_directory() {
        let root = Url::parse("http://me:pw@h/pub/").unwrap();
        let (entries, _) =
            entries(br#"<a href="http://h/pub/x"><a href="http://you:no@h/pub/y">"#, &root, &root);
        let urls: Vec<_> = entries.iter().map(|entry| entry.url.as_str()).collect();
        assert_eq!(urls, ["http://me:pw@h/pub/x", "http://me:pw@h/pub/y"]);
    }
}
