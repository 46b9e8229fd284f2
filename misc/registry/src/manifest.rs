//! Manifests and indexes.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use oci_spec::image::{Descriptor, DescriptorBuilder, Digest as OciDigest, MediaType};
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha512};

use crate::{
    Reference, RegistryError,
    client::Inner,
    exchange::{Request, malformed},
    hosts::Capability,
    mirror::Endpoint,
    reference::is_digest,
    response,
};

/// Largest manifest; twice what registries promise to take.
const MAX_MANIFEST: usize = 8 << 20;
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, */*;q=0.1";

/// A manifest or index as the registry gave it, its digest checked.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

impl Inner {
    pub(crate) async fn manifest(&self, image: &Reference) -> Result<Manifest, RegistryError> {
        if let Some(digest) = image.digest.as_ref().filter(|digest| !is_digest(digest)) {
            return Err(RegistryError::MalformedDigest { text: digest.clone() });
        }
        let capability = if image.digest.is_some() { Capability::Pull } else { Capability::Resolve };
        let work = |endpoint: Arc<Endpoint>| async move { self.manifest_at(&endpoint, image).await };
        self.at_any_host(&image.repository.host, capability, work).await
    }

    async fn manifest_at(&self, endpoint: &Endpoint, image: &Reference) -> Result<Manifest, RegistryError> {
        let asked = endpoint.asked(&image.repository, format!("manifest {}", image.identifier()));
        let scopes = [format!("repository:{}:pull", image.repository.path)];
        let request = Request {
            method: Method::GET,
            url: endpoint.url(&image.repository, &format!("manifests/{}", image.identifier())),
            headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]),
            body: None,
            scopes: &scopes,
            asked: &asked,
        };
        let answer = self.exchange(endpoint, &request).await?.response;
        if answer.status() != StatusCode::OK {
            return Err(response::refusal(answer, self.options.read_timeout, Box::new(asked)).await);
        }
        let text_of = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let expected =
            image.digest.clone().or_else(|| text_of("docker-content-digest").filter(|d| is_digest(d)));
        let content_type = text_of(CONTENT_TYPE.as_str());
        let bytes = response::body(answer, MAX_MANIFEST, self.options.read_timeout, &asked).await?;
        let digest = digest_like(expected.as_deref(), &bytes);
        if expected.is_some_and(|expected| expected != digest) {
            return Err(RegistryError::Digest { asked: Box::new(asked), got: digest });
        }
        // The bytes are covered by the digest, a header is not.
        let media_type = serde_json::from_slice::<Typed>(&bytes)
            .map_err(|_| malformed(&asked, "not a manifest"))?
            .media_type
            .or_else(|| content_type.map(|line| line.split(';').next().unwrap_or_default().trim().to_owned()))
            .map_or(MediaType::ImageManifest, |text| MediaType::from(text.as_str()));
        let descriptor = DescriptorBuilder::default()
            .media_type(media_type)
            .digest(digest.parse::<OciDigest>().map_err(|_| malformed(&asked, "digest"))?)
            .size(bytes.len() as u64)
            .build()
            .map_err(|_| malformed(&asked, "descriptor"))?;
        Ok(Manifest { descriptor, bytes })
    }

    pub(crate) async fn push_manifest(
        &self,
        image: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let digest = digest_like(image.digest.as_deref(), &bytes);
        let name = image.tag.as_deref().or(image.digest.as_deref()).unwrap_or("latest");
        let work = |endpoint: Arc<Endpoint>| {
            let bytes = bytes.clone();
            let digest = &digest;
            async move {
                let asked = endpoint.asked(&image.repository, format!("upload of manifest {name}"));
                if image.digest.as_ref().is_some_and(|named| named != digest) {
                    return Err(RegistryError::Digest { asked: Box::new(asked), got: digest.clone() });
                }
                let value = HeaderValue::try_from(media_type).map_err(|_| malformed(&asked, "media type"))?;
                let scopes = [format!("repository:{}:pull,push", image.repository.path)];
                let request = Request {
                    method: Method::PUT,
                    url: endpoint.push_url(&image.repository, &format!("manifests/{name}")),
                    headers: HeaderMap::from_iter([(CONTENT_TYPE, value)]),
                    body: Some(bytes),
                    scopes: &scopes,
                    asked: &asked,
                };
                let answer = self.exchange(&endpoint, &request).await?.response;
                match answer.status().is_success() {
                    true => Ok(()),
                    false => Err(response::refusal(answer, self.options.read_timeout, Box::new(asked)).await),
                }
            }
        };
        self.at_push_host(&image.repository.host, work).await
    }
}

/// The digest of `bytes`, by the algorithm of another digest.
fn digest_like(other: Option<&str>, bytes: &[u8]) -> String {
    match other.is_some_and(|other| other.starts_with("sha512:")) {
        true => format!("sha512:{}", hex::encode(Sha512::digest(bytes))),
        false => format!("sha256:{}", hex::encode(Sha256::digest(bytes))),
    }
}
