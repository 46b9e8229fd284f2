//! The caller's credential for the registry.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use registry::Credential;

/// What `Authorization` says: `Basic` with user and password, `Bearer` with a token for the registry. What is wrong with
/// it is told without a word of it.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<Credential>, &'static str> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let told = value.to_str().ok().and_then(|value| value.split_once(' '));
    let credential = told.and_then(|(scheme, rest)| match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(Credential::Bearer(rest.trim().to_owned())),
        "basic" => {
            let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            let (user, password) = text.split_once(':')?;
            Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() })
        }
        _ => None,
    });
    credential.map(Some).ok_or("the credential is neither basic nor bearer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn basic_and_bearer_are_read_and_nothing_of_them_is_shown() {
        assert!(read(&HeaderMap::new()).unwrap().is_none());
        let basic = read(&header("Basic dXNlcjpwYXNzOndvcmQ=")).unwrap();
        let expected = Credential::Basic { user: "user".into(), password: "pass:word".into() };
        assert!(basic == Some(expected) && !format!("{basic:?}").contains("user"));
        assert!(read(&header("bearer abc")).unwrap() == Some(Credential::Bearer("abc".into())));
        for wrong in ["Digest abc", "Basic !", "Basic dXNlcg==", "secret"] {
            assert!(!read(&header(wrong)).unwrap_err().contains("secret"), "{wrong}");
        }
    }
}
