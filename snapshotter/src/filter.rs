//! containerd's filter language, for List: `parent==a,kind!=view` matches where both hold, several filters where one
//! does. Fields: `name`, `parent`, `kind`, `labels.KEY`; operators `==`, `!=`, `~=` (regular expression); a field alone
//! asks whether it is there.

use std::{iter::Peekable, str::Chars};

use regex::Regex;

use crate::meta::Record;

/// A filter that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("filter {filter:?}: {problem}")]
pub struct FilterError {
    /// The filter.
    pub filter: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Any number of filters; a snapshot passes when one of them lets it, or when there is none.
#[derive(Debug)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    field: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Parses filters as they come with a List request.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn parse(filters: &[String]) -> Result<Self, FilterError> {
        filters
            .iter()
            .map(|filter| {
                let parser = Parser { rest: filter.chars().peekable() };
                parser.selectors().map_err(|problem| FilterError { filter: filter.clone(), problem })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a snapshot passes.
    #[must_use]
    pub fn pass(&self, record: &Record) -> bool {
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(|selector| selector.pass(record)))
    }
}

impl Selector {
    fn pass(&self, record: &Record) -> bool {
        let value = self.value(record);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value == Some(wanted),
            Test::NotEqual(unwanted) => value.unwrap_or_default() != unwanted,
            Test::Matches(regex) => regex.is_match(value.unwrap_or_default()),
        }
    }

    /// A parent is always there, if empty: containerd asks for the lowest layers with `parent==""`.
    fn value<'a>(&self, record: &'a Record) -> Option<&'a str> {
        match self.field.first()?.as_str() {
            "name" => Some(&record.name),
            "parent" => Some(record.parent.as_deref().unwrap_or_default()),
            "kind" => Some(record.kind.name()),
            // Dots may be part of a key that was not quoted.
            "labels" => record.labels.get(&self.field.get(1..)?.join(".")),
            _ => None,
        }
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    fn selectors(mut self) -> Result<Vec<Selector>, String> {
        if self.rest.peek().is_none() {
            return Ok(Vec::new());
        }
        let mut selectors = vec![self.selector()?];
        while let Some(next) = self.rest.next() {
            match next {
                ',' => selectors.push(self.selector()?),
                other => return Err(format!("expected a comma before {other:?}")),
            }
        }
        Ok(selectors)
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let mut field = vec![self.field()?];
        while self.rest.next_if_eq(&'.').is_some() {
            field.push(self.field()?);
        }
        let test = match self.rest.peek() {
            None | Some(',') => Test::Present,
            Some('=') => Test::Equal(self.operand("==", &['"'])?),
            Some('!') => Test::NotEqual(self.operand("!=", &['"'])?),
            Some('~') => {
                let text = self.operand("~=", &['"', '/', '|'])?;
                Test::Matches(Regex::new(&text).map_err(|error| error.to_string())?)
            }
            Some(other) => return Err(format!("unexpected {other:?} after field {:?}", field.join("."))),
        };
        Ok(Selector { field, test })
    }

    fn field(&mut self) -> Result<String, String> {
        if let Some(quote) = self.rest.next_if_eq(&'"') {
            return self.quoted(quote);
        }
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        match name.chars().next() {
            Some(first) if !first.is_ascii_digit() => Ok(name),
            _ => Err("expected a field".into()),
        }
    }

    fn operand(&mut self, operator: &str, quotes: &[char]) -> Result<String, String> {
        if operator.chars().any(|c| self.rest.next() != Some(c)) {
            return Err(format!("expected {operator}"));
        }
        if let Some(quote) = self.rest.next_if(|c| quotes.contains(c)) {
            return self.quoted(quote);
        }
        let mut value = String::new();
        while let Some(c) = self.rest.next_if(|c| !c.is_whitespace() && *c != ',') {
            value.push(c);
        }
        if value.is_empty() { Err(format!("expected a value after {operator}")) } else { Ok(value) }
    }

    /// The rest of a quoted string, with the escapes of Go's `%q`.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.rest.next().ok_or("quote is not closed")? {
                c if c == quote => return Ok(text),
                '\\' => self.escape(quote, &mut text)?,
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self, quote: char, text: &mut String) -> Result<(), String> {
        let c = self.rest.next().ok_or("quote is not closed")?;
        // Between slashes or bars stands a regular expression, whose escapes are its own.
        if quote != '"' && c != quote {
            text.extend(['\\', c]);
            return Ok(());
        }
        text.push(match c {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            c if c == quote || c == '\\' => c,
            other => return Err(format!("unknown escape \\{other}")),
        });
        Ok(())
    }

    fn code(&mut self, digits: usize) -> Result<char, String> {
        let hex: String = self.rest.by_ref().take(digits).collect();
        let code = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits);
        code.and_then(char::from_u32).ok_or_else(|| format!("{hex:?} is no character code"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::testing::record;

    fn passes(filter: &str) -> bool {
        let mut layer = record(7, "ns/1/layer");
        layer.parent = Some("below".into());
        layer.labels = [("containerd.io/snapshot.ref", "sha256:abc"), ("empty", ""), ("a.b", "c,d")].into();
        Filters::parse(&[filter.to_owned()]).unwrap().pass(&layer)
    }

    #[test]
    fn no_filter_lets_everything_pass() {
        assert!(Filters::parse(&[]).unwrap().pass(&record(1, "a")));
        assert!(passes(""));
    }

    #[test]
    fn the_question_containerd_asks_after_a_remote_layer_finds_it() {
        assert!(passes(r#"labels."containerd.io/snapshot.ref"==sha256:abc,parent=="below""#));
        assert!(!passes(r#"labels."containerd.io/snapshot.ref"==sha256:abc,parent=="other""#));
        assert!(!passes(r#"labels."containerd.io/snapshot.ref"==sha256:abd"#));
        let lowest = Filters::parse(&[r#"parent=="""#.to_owned()]).unwrap();
        assert!(lowest.pass(&record(1, "lowest")));
        assert!(!passes(r#"parent=="""#));
    }

    #[test]
    fn operators_compare_as_containerd_does() {
        assert!(passes("name==ns/1/layer"));
        assert!(passes("kind==committed,kind!=view"));
        assert!(passes("labels.missing!=x"));
        assert!(!passes("labels.missing!=\"\""), "what is missing is compared as if it were empty");
        assert!(!passes("labels.missing==\"\""), "but it equals nothing");
        assert!(passes("name~=^ns/[0-9]+/"));
        assert!(passes(r"name~=/ns\/\d\/layer/"));
        assert!(passes(r"name~=|^ns/\d|"));
        assert!(!passes("name~=^layer"));
        assert!(passes(r#"labels.a.b=="c,d""#));
        assert!(passes(r#"labels.a.b=="\x63,\u0064""#));
    }

    #[test]
    fn a_bare_field_asks_for_presence() {
        assert!(passes("parent"));
        assert!(passes("labels.empty"), "an empty label is there");
        assert!(!passes("labels.missing"));
        assert!(!passes("nonsense"));
    }

    #[test]
    fn several_filters_are_alternatives() {
        let filters = Filters::parse(&["name==a".into(), "name==b".into()]).unwrap();
        assert!(filters.pass(&record(1, "b")));
        assert!(!filters.pass(&record(1, "c")));
    }

    #[test]
    fn bad_filters_are_refused() {
        for bad in [
            "=",
            "name=x",
            "name==",
            "name==a b",
            "name==\"a",
            "name~=(",
            "labels.",
            ",",
            "1a==b",
            "name==\"\\q\"",
        ] {
            assert!(Filters::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
