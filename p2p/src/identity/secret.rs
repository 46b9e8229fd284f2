//! What the nodes of a cluster share, and the keys that come of it.

use std::fmt;

use ring::{
    hkdf,
    rand::{SecureRandom as _, SystemRandom},
};

use super::IdentityError;

/// What makes a node a member: 256 bits at random. Whoever knows it can be any member.
#[derive(Clone)]
pub struct ClusterSecret([u8; Self::LEN]);

impl ClusterSecret {
    pub(super) const LEN: usize = 32;

    /// Draws the secret of a new cluster.
    ///
    /// # Errors
    /// [`IdentityError::Random`] where the system has no random numbers.
    pub fn generate() -> Result<Self, IdentityError> {
        random().map(Self)
    }

    pub(super) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// What keys for one use are expanded from; other uses tell nothing about it.
    pub(super) fn keys(&self) -> Keys {
        Keys(hkdf::Salt::new(hkdf::HKDF_SHA256, b"shoal cluster 1").extract(&self.0))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(…)")
    }
}

/// Derives keys by HKDF-SHA256.
#[derive(Clone)]
pub(super) struct Keys(hkdf::Prk);

impl Keys {
    /// The key for `parts`, of which the first names the use; all but the last are of fixed length.
    pub(super) fn derive(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut key = [0; 32];
        let expanded = self.0.expand(parts, hkdf::HKDF_SHA256).expect("32 bytes are within HKDF's bound");
        expanded.fill(&mut key).expect("the length asked for");
        key
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| IdentityError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_use_and_each_secret_has_keys_of_its_own() {
        let (one, two) = (ClusterSecret::from_bytes([1; 32]), ClusterSecret::from_bytes([2; 32]));
        let keys = [
            one.keys().derive(&[b"a"]),
            one.keys().derive(&[b"b"]),
            one.keys().derive(&[b"b", b"1"]),
            two.keys().derive(&[b"a"]),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key) && *key != [1; 32]);
        }
        assert_eq!(one.keys().derive(&[b"a"]), keys[0]);
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = ClusterSecret::from_bytes([0xab; 32]);
        let shown = format!("{secret:?} {secret:#?}");
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }
}
