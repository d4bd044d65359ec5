//! The daemon: groups, sessions and the control socket, from start to clean stop.

use crate::catalog::Catalog;
use crate::config::Settings;
use crate::control::{Operator, Server};
use crate::failure::Failure;
use crate::serve::{self, Hub, Live};
use crate::session;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until told to stop.
pub fn run(settings: Settings, catalog: Arc<Catalog>) -> Result<(), Failure> {
    let identity = link::Identity::load(&settings.identity_dir())
        .map_err(|error| Failure::refused(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let hub = serve::start(&settings, &catalog)?;
    let operator = Operator::new(settings.clone(), catalog, Arc::new(Live(hub.clone())));
    let control = Server::start(operator, &settings.control_path())
        .map_err(|error| Failure::failed(format!("cannot serve the control socket: {error}")))?;
    let served = runtime.block_on(serve_until_told(&settings, &identity, &hub));
    drop(control);
    hub.stop();
    served
}

async fn serve_until_told(
    settings: &Settings,
    identity: &link::Identity,
    hub: &Arc<Hub>,
) -> Result<(), Failure> {
    let endpoint = link::server_endpoint(settings.listen, identity)
        .map_err(|error| Failure::failed(error.to_string()))?;
    tracing::info!(address = %settings.listen, "serving");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
    let failed = |error| Failure::failed(format!("cannot watch signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        () = session::accept(&endpoint, hub) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    hub.dismiss_all("the receiver is stopping");
    // Sessions say goodbye in their own time, which is bounded.
    let _ = tokio::time::timeout(link::GOODBYE_PATIENCE, endpoint.wait_idle()).await;
    link_closed(&endpoint);
    Ok(())
}

fn link_closed(endpoint: &quinn::Endpoint) {
    endpoint.close(quinn::VarInt::from_u32(0), b"the receiver is stopping");
}
