//! Bounds the handshakes under way. A client takes milliseconds for one; when there
//! are too many, the oldest is the one that dawdles, and gives its place to the newest.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Handshakes at a time. Each may hold one option, 64 KiB, and a descriptor.
const HANDSHAKES_MAX: usize = 256;

/// The handshakes under way. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshakes {
    shared: Arc<Mutex<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    entered: u64,
    /// In the order of arrival. Dropping one takes it away.
    held: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A handshake's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    taken: oneshot::Receiver<()>,
    all: Handshakes,
}

impl Handshakes {
    /// A place, if need be that of the oldest.
    pub(crate) fn enter(&self) -> Place {
        let (keep, taken) = oneshot::channel();
        let mut places = self.places();
        while places.held.len() >= HANDSHAKES_MAX {
            places.held.pop_first();
        }
        let number = places.entered;
        places.entered += 1;
        places.held.insert(number, keep);
        Place { number, taken, all: self.clone() }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves when a newer handshake has taken the place.
    pub(crate) async fn lost(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.taken).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.places().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn is_lost(place: &mut Place) -> bool {
        tokio::time::timeout(Duration::from_millis(1), place.lost()).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_gives_its_place_to_the_newest() {
        let handshakes = Handshakes::default();
        let mut places: Vec<Place> = (0..HANDSHAKES_MAX).map(|_| handshakes.enter()).collect();
        assert!(!is_lost(&mut places[0]).await, "there was room");
        drop(places.remove(7));
        let _seventh = handshakes.enter();
        assert!(!is_lost(&mut places[0]).await, "one had left");
        let _newest = handshakes.enter();
        assert!(is_lost(&mut places[0]).await);
        assert!(!is_lost(&mut places[1]).await);
        drop(places);
        assert_eq!(handshakes.places().held.len(), 2);
    }
}
