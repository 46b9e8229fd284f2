//! Credentials, and how a request carries them.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;

/// How to prove who we are. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token for the token service (docker's `identitytoken`).
    Identity(String),
    /// A ready bearer token for the registry itself.
    Bearer(String),
}

impl Credential {
    /// The header `Authorization` that carries it. `None` for what only a token service understands, and for what is no
    /// header value.
    #[must_use]
    pub fn to_authorization(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic { user, password } => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            Self::Bearer(token) => format!("Bearer {token}"),
            Self::Identity(_) => return None,
        };
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The credential that such a header carries.
    #[must_use]
    pub fn from_authorization(value: &HeaderValue) -> Option<Self> {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(rest.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self::Basic { user: user.to_owned(), password: password.to_owned() })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_and_bearer_travel_in_a_header_and_nothing_of_them_is_shown() {
        let basic = Credential::Basic { user: "user".into(), password: "pass:word".into() };
        for credential in [basic, Credential::Bearer("abc".into())] {
            let header = credential.to_authorization().unwrap();
            assert!(Credential::from_authorization(&header) == Some(credential.clone()));
            assert_eq!(format!("{credential:?} {header:?}"), "Credential(hidden) Sensitive");
        }
        assert!(Credential::Identity("abc".into()).to_authorization().is_none());
        for wrong in ["Digest abc", "Basic !", "Basic dXNlcg==", "secret"] {
            assert!(Credential::from_authorization(&HeaderValue::from_static(wrong)).is_none(), "{wrong}");
        }
    }
}
