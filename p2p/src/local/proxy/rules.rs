//! What goes which way through the proxy.
//!
//! ```toml
//! [[proxy_rules]]
//! match = "*.example.com:5000/v2/team/*"      # HOST[:PORT][/PATH]; * is any text, of any length
//! action = "direct"                           # or "p2p", or "deny"
//! ```
//!
//! The first rule that matches decides. A host is matched as the caller writes it, large and small letters alike; without a
//! port the rule is for all ports, without a path for all paths. Of a tunnel nobody knows the path, and nothing of it can be
//! shared: rules with a path, and those that say `p2p`, are not for tunnels.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// What is done with what a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Content of registries comes from the piece network where it may, as without a rule.
    P2p,
    /// It is handed on, and its answer with it.
    Direct,
    /// It is refused.
    Deny,
}

/// All rules, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "match")]
    pattern: String,
    action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    written: Written,
    host: String,
    port: Option<u16>,
    path: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    host: &'a str,
    port: u16,
    /// `None` for a tunnel.
    path: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(super) fn tunnel(host: &'a str, port: u16) -> Self {
        Self { host: name(host), port, path: None }
    }

    pub(super) fn http(host: &'a str, port: Option<u16>, path: &'a str) -> Self {
        Self { host: name(host), port: port.unwrap_or(80), path: Some(path) }
    }
}

/// A host's name without what changes nothing about it: brackets, and the dot of the root.
fn name(host: &str) -> &str {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host)
}

impl Rules {
    /// Reads the rules of a file. Those that make no sense are told by their number and what they match.
    ///
    /// # Errors
    /// What is wrong with each.
    pub fn read(values: Vec<Value>) -> Result<Self, Vec<String>> {
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        for (number, value) in values.into_iter().enumerate() {
            let pattern = value.get("match").map(ToString::to_string).unwrap_or_default();
            let written: Result<Written, _> = value.try_into();
            let rule = written.map_err(|error| error.message().to_owned()).and_then(Rule::new);
            match rule {
                Ok(rule) => rules.push(rule),
                Err(problem) => problems.push(format!("rule {} ({pattern}): {problem}", number + 1)),
            }
        }
        if problems.is_empty() { Ok(Self(rules)) } else { Err(problems) }
    }

    /// As a file says them.
    #[must_use]
    pub fn to_toml(&self) -> Value {
        let tables = self.0.iter().map(|rule| Table::try_from(&rule.written).expect("two texts are a table"));
        tables.collect::<Vec<_>>().into()
    }

    /// What the first rule says that matches, if one does.
    pub(super) fn decide(&self, asked: &Asked<'_>) -> Option<Action> {
        self.0.iter().find(|rule| rule.matches(asked)).map(|rule| rule.written.action)
    }
}

impl Rule {
    fn new(written: Written) -> Result<Self, String> {
        let text = written.pattern.as_str();
        if text.contains("://") {
            return Err("it is HOST[:PORT][/PATH], without a scheme".to_owned());
        }
        let (place, path) = match text.find('/') {
            Some(at) => (&text[..at], Some(text[at..].to_owned())),
            None => (text, None),
        };
        // Colons of an address are within brackets.
        let port = place.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let (host, port) = match port {
            Some((host, port)) => {
                let number = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
                (host, Some(number))
            }
            None => (place, None),
        };
        let host = name(host).to_lowercase();
        let sound = |c: char| c.is_ascii_alphanumeric() || "*.-_:".contains(c);
        if host.is_empty() || !host.chars().all(sound) {
            return Err(format!("{host:?} is not a host, or part of one with *"));
        }
        Ok(Self { host, port, path, written })
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        let goes_there = match (&self.path, asked.path) {
            (None, None) => self.written.action != Action::P2p,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (Some(pattern), Some(path)) => fits(pattern, path),
        };
        goes_there
            && self.port.is_none_or(|port| port == asked.port)
            && fits(&self.host, &asked.host.to_lowercase())
    }
}

/// Whether a text is what a pattern says.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rules: &[(&str, &str)]) -> Result<Rules, Vec<String>> {
        let table = |(pattern, action): &(&str, &str)| {
            let pairs = [("match", *pattern), ("action", *action)];
            Value::Table(pairs.map(|(key, value)| (key.to_owned(), Value::from(value))).into_iter().collect())
        };
        Rules::read(rules.iter().map(table).collect())
    }

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "a/b"),
            ("a*", "a"),
            ("*.b.c", "a.b.c"),
            ("a*b*c", "abc"),
            ("a*b*c", "aXbYbZc"),
            ("**", "x"),
            ("/v2/*/blobs/*", "/v2/a/b/blobs/sha256:0"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("a", "ab"), ("a*", "ba"), ("*.b.c", "b.c"), ("a*a", "a"), ("a*b*b", "ab"), ("", "a")]
        {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = rules(&[
            ("registry.example/v2/open/*", "p2p"),
            ("Registry.Example", "deny"),
            ("*.example:8080", "direct"),
            ("[fd00::*]", "deny"),
            ("*.example", "p2p"),
            ("*.example", "deny"),
        ])
        .unwrap();
        let http = |host, port, path| rules.decide(&Asked::http(host, port, path));
        let tunnel = |host, port| rules.decide(&Asked::tunnel(host, port));
        assert_eq!(http("registry.example", None, "/v2/open/blobs/x"), Some(Action::P2p));
        assert_eq!(http("registry.example", Some(5000), "/v2/other/blobs/x"), Some(Action::Deny));
        assert_eq!(tunnel("REGISTRY.example.", 443), Some(Action::Deny), "a path is not for tunnels");
        assert_eq!(tunnel("a.example", 8080), Some(Action::Direct));
        assert_eq!(http("a.example", None, "/"), Some(Action::P2p));
        assert_eq!(tunnel("a.example", 443), Some(Action::Deny), "p2p is not for tunnels");
        assert_eq!(http("[fd00::1]", None, "/"), Some(Action::Deny));
        assert_eq!((tunnel("example", 443), http("example", None, "/")), (None, None));
    }

    #[test]
    fn rules_that_make_no_sense_are_named() {
        let good = rules(&[("*", "deny")]).unwrap();
        assert_eq!(Rules::read(good.to_toml().as_array().unwrap().clone()), Ok(good));
        for (pattern, action) in [
            ("https://a.example", "deny"),
            ("a.example:x", "deny"),
            ("", "deny"),
            ("/v2/*", "deny"),
            ("a b", "deny"),
            ("a.example", "allow"),
        ] {
            let told = rules(&[("ok.example", "p2p"), (pattern, action)]).unwrap_err();
            assert!(told.len() == 1 && told[0].starts_with(&format!("rule 2 ({pattern:?}): ")), "{told:?}");
        }
        assert!(Rules::read(vec![Value::from(1)]).unwrap_err()[0].starts_with("rule 1 (): "));
    }
}
