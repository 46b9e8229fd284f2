//! What a node needs in order to join: one string that a person can copy.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::ClusterSecret;

const PREFIX: &str = "shoal1-";
const CHECKSUM: usize = 4;
/// Longest token that is looked at.
const LONGEST: usize = 4096;

/// Where a cluster is found, and its secret. `Display` shows both: a token is for those who may join.
#[derive(Clone)]
pub struct Token {
    addresses: Vec<String>,
    secret: ClusterSecret,
}

/// A string that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one.
    #[error("not a join token: one begins with {PREFIX}")]
    Foreign,
    /// It is of a version that this build does not know.
    #[error("a join token of another version of Shoal: this one reads {PREFIX}…")]
    Version,
    /// Some of it is missing or was changed.
    #[error("the join token is damaged: copy it again, whole")]
    Damaged,
    /// More addresses than a person would copy.
    #[error("more addresses than fit into a join token")]
    TooMany,
    /// An address is not one.
    #[error("{0:?} is not an address: write host:port")]
    Address(String),
}

impl Token {
    /// A token for `secret` of a cluster that is found at `addresses`, each a host or IP address and a port.
    ///
    /// # Errors
    /// [`TokenError::Address`] for what is not an address, [`TokenError::TooMany`] for more than fit.
    pub fn new(addresses: Vec<String>, secret: ClusterSecret) -> Result<Self, TokenError> {
        if let Some(wrong) = addresses.iter().find(|address| !is_address(address)) {
            return Err(TokenError::Address(wrong.clone()));
        }
        let token = Self { addresses, secret };
        if token.to_string().len() > LONGEST { Err(TokenError::TooMany) } else { Ok(token) }
    }

    /// Where members are found, the best first.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Whether both have one secret.
    #[must_use]
    pub fn is_of_the_cluster_of(&self, other: &Self) -> bool {
        // By hash, so that the time it takes tells nothing.
        blake3::hash(self.secret.as_bytes()) == blake3::hash(other.secret.as_bytes())
    }

    /// The cluster's secret.
    #[must_use]
    pub const fn secret(&self) -> &ClusterSecret {
        &self.secret
    }
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let sound = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)),
    };
    sound && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM] {
    let hash = blake3::derive_key("shoal p2p token 1", payload);
    let (sum, _) = hash.split_first_chunk().expect("a hash is longer");
    *sum
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut payload = self.secret.as_bytes().to_vec();
        payload.extend_from_slice(self.addresses.join(",").as_bytes());
        let sum = checksum(&payload);
        payload.extend_from_slice(&sum);
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(payload))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Err(if text.starts_with("shoal") { TokenError::Version } else { TokenError::Foreign });
        };
        if text.len() > LONGEST {
            return Err(TokenError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Damaged)?;
        let (payload, sum) = bytes.split_last_chunk().ok_or(TokenError::Damaged)?;
        if checksum(payload) != *sum {
            return Err(TokenError::Damaged);
        }
        let (secret, addresses) = payload.split_first_chunk().ok_or(TokenError::Damaged)?;
        let addresses = std::str::from_utf8(addresses).map_err(|_| TokenError::Damaged)?;
        let addresses = addresses.split(',').filter(|address| !address.is_empty()).map(str::to_owned);
        Self::new(addresses.collect(), ClusterSecret::from_bytes(*secret))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        let addresses = ["10.0.0.1:4100", "seed.example.com:1", "[fd00::1]:65535"].map(str::to_owned);
        Token::new(addresses.into(), ClusterSecret::from_bytes([0x5a; 32])).unwrap()
    }

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let text = format!(" {}\n", token());
        let read: Token = text.parse().unwrap();
        assert_eq!(read.addresses(), token().addresses());
        assert_eq!(read.secret().as_bytes(), token().secret().as_bytes());
        assert!(text.trim().chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{text}");
    }

    #[test]
    fn every_typing_error_is_noticed() {
        let text = token().to_string();
        for at in PREFIX.len()..text.len() {
            for wrong in [b'A', b'z', b'-', b'=', b' '] {
                let mut typed = text.clone().into_bytes();
                if std::mem::replace(&mut typed[at], wrong) == wrong {
                    continue;
                }
                let typed = String::from_utf8(typed).unwrap();
                assert_eq!(typed.parse::<Token>().unwrap_err(), TokenError::Damaged, "{typed}");
            }
            assert_eq!(text[..at].parse::<Token>().unwrap_err(), TokenError::Damaged);
        }
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        assert_eq!("hello".parse::<Token>().unwrap_err(), TokenError::Foreign);
        assert_eq!("shoal2-abc".parse::<Token>().unwrap_err(), TokenError::Version);
        for address in ["", "host", "host:0", "host:70000", ":1", "a,b:1", "[::g]:1", "ho st:1"] {
            let error = Token::new(vec![address.to_owned()], ClusterSecret::from_bytes([0; 32])).unwrap_err();
            assert_eq!(error, TokenError::Address(address.to_owned()));
        }
        let many = vec!["host:1".to_owned(); 1000];
        assert_eq!(Token::new(many, ClusterSecret::from_bytes([0; 32])).unwrap_err(), TokenError::TooMany);
    }

    #[test]
    fn the_secret_is_shown_only_on_purpose() {
        let shown = format!("{:?}", token());
        assert!(shown.contains("10.0.0.1:4100") && !shown.contains("WlpaWlpa") && !shown.contains("90, 90"));
    }

    proptest! {
        #[test]
        fn foreign_text_is_an_error(text in "(shoal1-)?[A-Za-z0-9_-]{0,200}") {
            prop_assert!(text.parse::<Token>().is_err());
        }
    }
}
