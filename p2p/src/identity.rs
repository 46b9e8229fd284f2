//! Who a node is, and how it knows the others.
//!
//! A cluster is a secret ([`ClusterSecret`]); a [`Token`] carries it, with addresses, to a node that joins. From the
//! secret everyone derives the key of one authority, under which each node certifies a key of its own. That key is made at
//! the first start and kept; the hash of its public half is the node's [`NodeId`]. So TLS proves membership and id in one
//! handshake, in both directions. Datagrams are sealed by [`Seal`] with keys of the same secret.
//!
//! Any member can compute the authority's key, and so be as many nodes as it likes.

mod certificate;
mod replay;
mod seal;
mod secret;
mod state;
#[cfg(test)]
mod tests;
mod token;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{
        CryptoProvider,
        ring::{
            self,
            cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256},
        },
    },
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};

pub use seal::{Seal, SealError};
pub use secret::ClusterSecret;
pub(crate) use secret::random;
pub use token::{Token, TokenError};

use crate::NodeId;
use certificate::{Authority, NodeCertificate};
use verify::{MemberVerifier, node_of, node_with_key};

/// What both sides of a connection must speak.
const PROTOCOL: &[u8] = b"shoal-p2p/1";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the state directory.
    #[error("{}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{} is damaged: a node without it is another node; remove it if that may be", .0.display())]
    Damaged(PathBuf),
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random,
    /// A certificate cannot be made.
    #[error("make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}

/// A node of a cluster.
#[derive(Debug)]
pub struct Identity {
    id: NodeId,
    secret: ClusterSecret,
    certificate: Arc<NodeCertificate>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    /// The node whose key is kept in `directory`, made there at the first start.
    ///
    /// # Errors
    /// [`IdentityError`] where the key cannot be kept, read or used.
    pub fn open(directory: &Path, secret: &ClusterSecret) -> Result<Self, IdentityError> {
        let path = directory.join("node.key");
        let failed = |source| IdentityError::State { path: path.clone(), source };
        let kept = match state::read(&path).map_err(failed)? {
            Some(kept) => kept,
            None => state::create(&path, &secret::random::<32>()?).map_err(failed)?,
        };
        let seed = kept.try_into().map_err(|_| IdentityError::Damaged(path))?;
        Self::from_seed(&seed, secret)
    }

    /// A node whose key nobody keeps.
    ///
    /// # Errors
    /// [`IdentityError`] where there are no random numbers.
    pub fn ephemeral(secret: &ClusterSecret) -> Result<Self, IdentityError> {
        Self::from_seed(&secret::random()?, secret)
    }

    fn from_seed(seed: &[u8; 32], secret: &ClusterSecret) -> Result<Self, IdentityError> {
        let provider = Arc::new(provider());
        let authority = Authority::of(secret)?;
        let roots = Arc::new(authority.roots()?);
        // Without the hint a stranger does not learn from the handshake what the authority is called.
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .clear_root_hint_subjects()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let key = certificate::key_pair(seed)?;
        let id = node_with_key(&rcgen::PublicKeyData::subject_public_key_info(&key));
        let certificate = Arc::new(NodeCertificate::new(authority, seed)?);
        Ok(Self { id, secret: secret.clone(), certificate, roots, clients, provider })
    }

    /// The node's name.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Seals and opens the node's datagrams.
    ///
    /// # Errors
    /// [`IdentityError::Random`] where the system has no random numbers.
    pub fn seal(&self) -> Result<Seal, IdentityError> {
        Seal::new(&self.secret, self.id)
    }

    /// For dialing: the other must be a member, and `expected` where that is known.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] where the provider of cryptography lacks TLS 1.3.
    pub fn client_config(&self, expected: Option<NodeId>) -> Result<Arc<ClientConfig>, IdentityError> {
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier = MemberVerifier { roots: self.roots.clone(), algorithms, expected };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.certificate.clone());
        // Connections live long; each proves anew who is there.
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }

    /// For listening: the other must be a member.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] where the provider of cryptography lacks TLS 1.3.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(self.clients.clone())
            .with_cert_resolver(self.certificate.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

/// The token kept in `directory`, if one is.
///
/// # Errors
/// [`IdentityError`] where it cannot be read or is not a token.
pub fn kept_token(directory: &Path) -> Result<Option<Token>, IdentityError> {
    let path = directory.join("token");
    let kept = state::read(&path).map_err(|source| IdentityError::State { path: path.clone(), source })?;
    kept.map(|bytes| token_of(bytes, path)).transpose()
}

/// Keeps a token in `directory`, and gives the one that was kept there before, if one was.
///
/// # Errors
/// [`IdentityError`] where it cannot be kept.
pub fn keep_token(directory: &Path, token: &Token) -> Result<Token, IdentityError> {
    let path = directory.join("token");
    let bytes = state::create(&path, token.to_string().as_bytes())
        .map_err(|source| IdentityError::State { path: path.clone(), source })?;
    token_of(bytes, path)
}

/// Keeps a token in `directory` in place of another.
///
/// # Errors
/// [`IdentityError`] where it cannot be kept.
pub fn replace_token(directory: &Path, token: &Token) -> Result<(), IdentityError> {
    let path = directory.join("token");
    state::replace(&path, token.to_string().as_bytes())
        .map_err(|source| IdentityError::State { path, source })
}

fn token_of(bytes: Vec<u8>, path: PathBuf) -> Result<Token, IdentityError> {
    let text = String::from_utf8(bytes).ok();
    text.and_then(|text| text.parse().ok()).ok_or(IdentityError::Damaged(path))
}

/// Cryptography for bulk: of the ciphers that are all strong enough, the one that costs least goes first.
fn provider() -> CryptoProvider {
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

/// The node at the other end of a connection whose handshake is over.
#[must_use]
pub fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<NodeId> {
    node_of(certificates?.first()?).ok()
}
