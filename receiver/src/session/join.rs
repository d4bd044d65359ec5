//! Joining: a source redeems its token.

use crate::serve::Hub;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wire::{JoinReply, JoinRequest, Pin};

/// How long a joining source may take over it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves one joining source.
pub(super) async fn serve(hub: &Arc<Hub>, connection: &quinn::Connection) {
    match tokio::time::timeout(PATIENCE, converse(hub, connection)).await {
        Ok(Ok(())) => link::close(connection, "done"),
        Ok(Err(error)) => link::close(connection, &error),
        Err(_) => link::close(connection, "joining took too long"),
    }
}

async fn converse(hub: &Arc<Hub>, connection: &quinn::Connection) -> Result<(), String> {
    let text = |error: link::FrameError| error.to_string();
    let (mut say, mut hear) = connection
        .accept_bi()
        .await
        .map_err(|error| error.to_string())?;
    let request = link::read_join_request(&mut hear).await.map_err(text)?;
    let pin = link::peer_pin(connection).ok_or("no certificate was shown")?;
    let reply = redeem(hub, request, pin).await;
    link::write_join_reply(&mut say, &reply).await.map_err(text)
}

async fn redeem(hub: &Arc<Hub>, request: JoinRequest, pin: Pin) -> JoinReply {
    let catalog = hub.catalog.clone();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let source = request.source.clone();
    let redeemed = tokio::task::spawn_blocking(move || {
        catalog.redeem(&request.secret, &request.source, pin, now)
    });
    match redeemed.await {
        Ok(Ok(_)) => {
            tracing::info!(%source, "a source has joined");
            let reason = format!("source {source} was enrolled again, with another certificate");
            hub.dismiss_source(&source, &reason);
            JoinReply::Enrolled
        }
        Ok(Err(error)) => {
            tracing::warn!(%source, %error, "a source was not let in");
            JoinReply::Refused(error.to_string())
        }
        Err(_) => JoinReply::Refused("the receiver failed; see its log".into()),
    }
}
