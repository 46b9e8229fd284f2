//! Those who dial this node: few of them at a time until they have proven that they are members.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{super::tcp, Shared};

/// Most that prove themselves at a time.
const MOST: usize = 256;
/// Most from one address: one that only holds places does not keep the others out.
const MOST_FROM_ONE: usize = 16;
/// How long to wait when the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until it is dropped.
pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let places = Places::default();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Beyond the bound a connection is closed at once, and the other comes again.
                if let Some(place) = places.take(address.ip()) {
                    shared.clone().spawn(welcome(shared.clone(), stream, place));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn welcome(shared: Arc<Shared>, stream: TcpStream, place: Place) {
    let proving = tcp::accept(shared.server.clone(), stream);
    let met = match timeout(tcp::PROVE, proving).await {
        Ok(Ok(met)) => met,
        Ok(Err(error)) => return tracing::debug!(%error, address = %place.address, "not a member"),
        Err(_) => return tracing::debug!(address = %place.address, "has not proven itself in time"),
    };
    drop(place);
    let opened = shared.slots().arrived(shared.now(), met.node, met.hello.boot);
    if let Some(opened) = opened {
        let answer = shared.greeting.clone();
        shared.serve(met, opened, Some(answer)).await;
    }
}

#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One place among those that prove themselves.
#[derive(Debug)]
struct Place {
    address: IpAddr,
    places: Places,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= MOST {
            return None;
        }
        let here = taken.entry(address).or_default();
        if *here >= MOST_FROM_ONE {
            return None;
        }
        *here += 1;
        Some(Place { address, places: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(here) = taken.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places_and_gives_back_what_it_took() {
        let places = Places::default();
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let mut held: Vec<_> = (0..MOST_FROM_ONE).map(|_| places.take(address(1)).unwrap()).collect();
        assert!(places.take(address(1)).is_none());
        held.extend(
            (2..=16)
                .flat_map(|last| (0..MOST_FROM_ONE).map(move |_| last))
                .map(|last| places.take(address(last)).unwrap()),
        );
        assert!(places.take(address(200)).is_none());
        drop(held);
        assert!(places.take(address(1)).is_some() && places.lock().is_empty());
    }
}
