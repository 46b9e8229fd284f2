//! What a registry asks for in `WWW-Authenticate`.

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// How a registry wants to know us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password in every request.
    Basic,
    /// A token from a token service.
    Bearer {
        /// URL of the token service.
        realm: String,
        service: Option<String>,
        /// What the token must allow; space-separated.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The strongest challenge that we can answer.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let all: Vec<Self> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        let bearer = all.iter().find(|challenge| matches!(challenge, Self::Bearer { .. }));
        bearer.or_else(|| all.first()).cloned()
    }
}

/// All challenges of one header line.
fn parse(line: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c == ',' || c.is_whitespace()).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail;
        if let Some(after) = tail.strip_prefix('=') {
            let (value, tail) = value(after);
            rest = tail;
            if let Some((_, params)) = challenges.last_mut() {
                params.push((word.to_ascii_lowercase(), value));
            }
        } else if !word.is_empty() {
            challenges.push((word.to_ascii_lowercase(), Vec::new()));
        }
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
    }
    challenges.into_iter().filter_map(|(scheme, params)| challenge(&scheme, params)).collect()
}

/// A parameter's value, quoted or not, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

fn challenge(scheme: &str, params: Vec<(String, String)>) -> Option<Challenge> {
    let find = |name: &str| params.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            Some(Challenge::Bearer { realm: find("realm")?, service: find("service"), scope: find("scope") })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, line.parse().unwrap());
        }
        Challenge::read(&headers)
    }

    #[test]
    fn a_bearer_challenge_keeps_commas_inside_quotes() {
        let line =
            r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#;
        assert_eq!(
            read(&[line]),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("reg".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
    }

    #[test]
    fn bearer_is_preferred_to_basic_and_others_are_ignored() {
        let bearer = read(&[r#"Negotiate, Basic realm="x""#, "Bearer realm=r , service=\"s\\\"t\""]);
        assert_eq!(
            bearer,
            Some(Challenge::Bearer { realm: "r".into(), service: Some("s\"t".into()), scope: None })
        );
        assert_eq!(read(&["BASIC realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(read(&["Negotiate abc=="]), None);
        assert_eq!(read(&["Bearer service=x"]), None);
        assert!(read(&["=,=\"", "\"", "Bearer realm=\"unterminated"]).is_some());
    }
}
