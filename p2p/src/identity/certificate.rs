//! The cluster's authority, and the certificate that a node gives itself under it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use rustls::{
    RootCertStore, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};

use super::{ClusterSecret, IdentityError};

/// How far the clocks of two nodes may differ.
const SKEW: Duration = Duration::from_hours(24);
/// How long a certificate is good for.
const LIFE: Duration = Duration::from_hours(24);

/// The key pair that has this seed.
pub(super) fn key_pair(seed: &[u8; 32]) -> Result<KeyPair, IdentityError> {
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8(seed), &PKCS_ED25519)?)
}

/// An Ed25519 key as RFC 8410 writes it.
fn pkcs8(seed: &[u8; 32]) -> PrivatePkcs8KeyDer<'static> {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend_from_slice(seed);
    der.into()
}

/// Who vouches for members: a key that whoever knows the cluster's secret computes.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn of(secret: &ClusterSecret) -> Result<Self, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Shoal cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = key_pair(&secret.keys().derive(&[b"authority"]))?;
        Ok(Self(CertifiedIssuer::self_signed(params, key)?))
    }

    /// What a member's certificate must lead to.
    pub(super) fn roots(&self) -> Result<RootCertStore, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        Ok(roots)
    }

    fn issue(&self, key: &KeyPair, now: SystemTime) -> Result<CertificateDer<'static>, IdentityError> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Shoal node");
        params.not_before = epoch + since.saturating_sub(SKEW);
        params.not_after = epoch + (since + LIFE + SKEW);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(key, &self.0)?.der().clone())
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// The node's certificate: made when it is first needed, and again before it ends.
pub(super) struct NodeCertificate {
    authority: Authority,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    current: Mutex<Option<Issued>>,
}

struct Issued {
    at: SystemTime,
    certified: Arc<CertifiedKey>,
}

impl NodeCertificate {
    pub(super) fn new(authority: Authority, seed: &[u8; 32]) -> Result<Self, IdentityError> {
        let signing = rustls::crypto::ring::sign::any_eddsa_type(&pkcs8(seed))?;
        Ok(Self { authority, key: key_pair(seed)?, signing, current: Mutex::new(None) })
    }

    /// A certificate that is good for a while after `now`.
    pub(super) fn at(&self, now: SystemTime) -> Result<Arc<CertifiedKey>, IdentityError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back makes a new one as well.
        let fresh = |issued: &&Issued| now.duration_since(issued.at).is_ok_and(|age| age < LIFE / 2);
        if let Some(issued) = current.as_ref().filter(fresh) {
            return Ok(issued.certified.clone());
        }
        let chain = vec![self.authority.issue(&self.key, now)?];
        let certified = Arc::new(CertifiedKey::new(chain, self.signing.clone()));
        *current = Some(Issued { at: now, certified: certified.clone() });
        Ok(certified)
    }

    fn now(&self) -> Option<Arc<CertifiedKey>> {
        self.at(SystemTime::now())
            .inspect_err(|error| tracing::error!(%error, "cannot make the node's certificate"))
            .ok()
    }
}

impl fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCertificate").finish_non_exhaustive()
    }
}

impl ResolvesClientCert for NodeCertificate {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.now()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for NodeCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> NodeCertificate {
        let authority = Authority::of(&ClusterSecret::from_bytes([1; 32])).unwrap();
        NodeCertificate::new(authority, &[2; 32]).unwrap()
    }

    #[test]
    fn every_node_computes_the_same_authority() {
        let der = |secret| Authority::of(&ClusterSecret::from_bytes(secret)).unwrap().0.der().to_vec();
        assert_eq!(der([1; 32]), der([1; 32]));
        assert_ne!(der([1; 32]), der([2; 32]));
    }

    #[test]
    fn a_certificate_is_made_anew_before_it_ends_and_kept_until_then() {
        let (certificate, begin) = (certificate(), SystemTime::now());
        let first = certificate.at(begin).unwrap();
        assert!(Arc::ptr_eq(&first, &certificate.at(begin + LIFE / 3).unwrap()));
        let second = certificate.at(begin + LIFE / 2).unwrap();
        assert_ne!(first.cert, second.cert);
        assert!(!Arc::ptr_eq(&second, &certificate.at(begin).unwrap()), "the clock was set back");
    }
}
