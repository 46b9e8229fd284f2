//! A lease keeps what a pull has brought until the image record holds it.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use containerd_client::services::v1::{CreateRequest, DeleteRequest, leases_client::LeasesClient};
use prost_types::Timestamp;

use super::{CALL_DEADLINE, Containerd, within};

/// A pull that was killed leaves its lease; containerd drops it after this time.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// An open lease. Ends with [`Lease::end`], or by itself after a day.
#[derive(Debug)]
pub(crate) struct Lease {
    containerd: Containerd,
    id: String,
}

impl Containerd {
    /// Opens a lease; the connection that comes with it does everything under it.
    pub(crate) async fn lease(&self) -> anyhow::Result<(Self, Lease)> {
        let expires = Timestamp::from(SystemTime::now() + LIFETIME).to_string();
        let request = CreateRequest {
            id: String::new(),
            labels: [("containerd.io/gc.expire".to_owned(), expires)].into(),
        };
        let mut client = LeasesClient::with_interceptor(self.channel.clone(), self.headers.clone());
        let answer = within(CALL_DEADLINE, client.create(request)).await.context("cannot open a lease")?;
        let id = answer.lease.context("containerd opened a lease without a name")?.id;
        let mut leased = self.clone();
        leased.headers.lease = Some(id.parse().context("containerd's lease has an odd name")?);
        Ok((leased, Lease { containerd: self.clone(), id }))
    }
}

impl Lease {
    /// Gives up the lease. Where it is asked to `collect`, what nothing else holds is gone when this returns: a failed
    /// pull leaves nothing, and one that worked need not wait for it.
    pub(crate) async fn end(self, collect: bool) -> anyhow::Result<()> {
        let Containerd { channel, headers, .. } = self.containerd;
        let request = DeleteRequest { id: self.id, sync: collect };
        let mut client = LeasesClient::with_interceptor(channel, headers);
        within(CALL_DEADLINE, client.delete(request)).await.context("cannot end the lease")?;
        Ok(())
    }
}
