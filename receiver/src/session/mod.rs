//! Sessions: what comes in over QUIC, checked, handed to the group's actor.
//!
//! One task per connection, one per batch stream. Who the peer is was proved in the handshake and
//! is looked up at the hello (P14); what it may touch is checked against the catalog before the
//! group hears of it (P13); records are verified before they are handed on (P9).
//!
//! Promises: a fault of a peer ends its connection, in words, and nothing else; what a peer can
//! make us hold is bounded by the link's windows and by [`crate::serve::INTAKE_BYTES_MAX`] (P11).

mod admission;
mod batch;
mod join;
mod talk;

use crate::serve::Hub;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most connections at a time, those still shaking hands included.
const CONNECTIONS_MAX: usize = 256;

/// Accepts connections until the endpoint is closed.
pub async fn accept(endpoint: &quinn::Endpoint, hub: &Arc<Hub>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(place) = places.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let hub = hub.clone();
        tokio::spawn(async move {
            let from = incoming.remote_address();
            match incoming.await {
                Ok(connection) => serve(&hub, connection).await,
                Err(error) => tracing::debug!(%from, %error, "handshake failed"),
            }
            drop(place);
        });
    }
}

async fn serve(hub: &Arc<Hub>, connection: quinn::Connection) {
    match link::protocol(&connection) {
        Some(link::Protocol::Session) => talk::serve(hub, connection).await,
        Some(link::Protocol::Join) => join::serve(hub, &connection).await,
        None => link::close(&connection, "no protocol was agreed"),
    }
}
