//! Sessions: what comes in over QUIC, checked, handed to the group's actor.
//!
//! One task per connection, one per batch stream. Who the peer is was proved in the handshake and
//! is looked up at the hello (P14); what it may touch is checked against the catalog before the
//! group hears of it (P13); records are verified before they are handed on (P9).
//!
//! Promises: a fault of a peer ends its connection, in words, and nothing else; what a peer can
//! make us hold is bounded by the link's windows, one batch per session, and by
//! [`crate::serve::INTAKE_BYTES_MAX`] (P11).

mod admission;
mod batch;
mod doors;
mod join;
mod talk;

pub use batch::split;

use crate::serve::Hub;
use doors::{DoorId, Doors, Entry};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use wire::Pin;

/// How long a handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

/// The doors, and how those behind them are shown out.
#[derive(Default)]
struct Hall {
    doors: Doors,
    leave: BTreeMap<DoorId, oneshot::Sender<()>>,
}

/// A place behind the doors; given back when dropped.
struct Place {
    hall: Arc<Mutex<Hall>>,
    id: DoorId,
}

/// Accepts connections until the endpoint is closed.
pub async fn accept(endpoint: &quinn::Endpoint, hub: &Arc<Hub>) {
    let hall = Arc::new(Mutex::new(Hall::default()));
    while let Some(incoming) = endpoint.accept().await {
        let from = incoming.remote_address();
        if lock(&hall).doors.want_proof() && !incoming.remote_address_validated() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%from, %error, "no retry");
            }
            continue;
        }
        let (place, evicted) = Place::take(&hall, from.ip());
        let hub = hub.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = handshake(&hub, incoming, &place) => {}
                Ok(()) = evicted => {
                    tracing::info!(%from, "a stranger was shown out for another");
                }
            }
        });
    }
}

/// Serves a connection; dropped in the middle, it is closed without a word.
async fn handshake(hub: &Arc<Hub>, incoming: quinn::Incoming, place: &Place) {
    let from = incoming.remote_address();
    let shaken = tokio::time::timeout(HANDSHAKE_PATIENCE, incoming).await;
    let connection = match shaken {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "handshake failed"),
        Err(_) => return tracing::debug!(%from, "handshake took too long"),
    };
    if let Some(pin) = link::peer_pin(&connection)
        && is_enrolled(hub, pin).await
        && !place.know(pin)
    {
        return link::close(&connection, "this source has too many connections");
    }
    serve(hub, connection).await;
}

async fn is_enrolled(hub: &Arc<Hub>, pin: Pin) -> bool {
    let catalog = hub.catalog.clone();
    let found = tokio::task::spawn_blocking(move || catalog.source_by_pin(pin)).await;
    let record = found.ok().and_then(Result::ok).flatten();
    record.is_some_and(|record| record.revoked_unix_s.is_none())
}

impl Place {
    /// A place for a stranger, and word when it has to go.
    fn take(hall: &Arc<Mutex<Hall>>, from: IpAddr) -> (Self, oneshot::Receiver<()>) {
        let mut inside = lock(hall);
        let id = match inside.doors.enter(from) {
            Entry::Taken(id) => id,
            Entry::Instead(id, oldest) => {
                if let Some(leave) = inside.leave.remove(&oldest) {
                    // It may have gone by itself.
                    let _ = leave.send(());
                }
                id
            }
        };
        let (leave, evicted) = oneshot::channel();
        inside.leave.insert(id, leave);
        let hall = hall.clone();
        (Self { hall, id }, evicted)
    }

    /// It is a source's from now on; false if that has too many.
    fn know(&self, pin: Pin) -> bool {
        let mut inside = lock(&self.hall);
        // Kept, so that what waits on it does not take its end for a word.
        inside.doors.know(self.id, pin).is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = lock(&self.hall);
        inside.doors.leave(self.id);
        inside.leave.remove(&self.id);
    }
}

fn lock(hall: &Mutex<Hall>) -> MutexGuard<'_, Hall> {
    // Held for look-ups only: a panic elsewhere cannot have left half a change.
    hall.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(hub: &Arc<Hub>, connection: quinn::Connection) {
    match link::protocol(&connection) {
        Some(link::Protocol::Session) => talk::serve(hub, connection).await,
        Some(link::Protocol::Join) => join::serve(hub, &connection).await,
        None => link::close(&connection, "no protocol was agreed"),
    }
}
