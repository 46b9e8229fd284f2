//! The image record: the name that keeps everything else.

use anyhow::Context;
use containerd_client::{
    services::v1::{CreateImageRequest, Image, UpdateImageRequest, images_client::ImagesClient},
    types,
};
use oci_spec::image::Descriptor;
use prost_types::FieldMask;
use tonic::Code;

use super::{CALL_DEADLINE, Containerd, unless, within};

impl Containerd {
    /// Makes `name` mean `target`, whatever it meant before.
    pub(crate) async fn tag(&self, name: &str, target: &Descriptor) -> anyhow::Result<()> {
        let image = Image { name: name.to_owned(), target: Some(wire(target)), ..Image::default() };
        let mut client = ImagesClient::with_interceptor(self.channel.clone(), self.headers.clone());
        let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
        let created = within(CALL_DEADLINE, client.create(create)).await;
        if unless(Code::AlreadyExists, created)
            .with_context(|| format!("cannot record image {name}"))?
            .is_some()
        {
            return Ok(());
        }
        let update = UpdateImageRequest {
            image: Some(image),
            update_mask: Some(FieldMask { paths: vec!["target".to_owned()] }),
            source_date_epoch: None,
        };
        within(CALL_DEADLINE, client.update(update))
            .await
            .with_context(|| format!("cannot update image {name}"))?;
        Ok(())
    }
}

/// A descriptor in containerd's form.
pub(super) fn wire(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type().to_string(),
        digest: descriptor.digest().to_string(),
        size: i64::try_from(descriptor.size()).unwrap_or(i64::MAX),
        annotations: descriptor.annotations().clone().unwrap_or_default(),
    }
}
