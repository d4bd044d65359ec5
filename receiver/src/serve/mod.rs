//! Serve: the receiver as one process. Drivers only; what is decided is decided in [`group`].
//!
//! ```text
//! QUIC sessions --told--> actor thread per group --append--> journal thread
//!       ^                   |  ^                                  |
//!       +------ say --------+  +---- durable, jobs done <---------+
//!                           +-- job --> worker thread per group --> targets, catalog
//! ```
//!
//! Promises: whatever comes in over a socket at worst ends that session; a clean stop applies what
//! may be applied, then rests; bytes on their way from a session to the journal are bounded by
//! [`INTAKE_BYTES_MAX`] (P11).
//!
//! Does not: keep any state of its own beyond the handles of threads and sessions.

mod actor;
mod daemon;
pub mod group;
mod hub;
mod line;
mod restore;
mod room;
mod worker;

pub use hub::{Hub, Told};
pub use line::{Line, Next, SAID_MAX};
pub use room::{Room, Rooms, Share};

use crate::catalog::Catalog;
use crate::cli::Failure;
use crate::config::Settings;
use crate::control::{Operator, Server};
use crate::session;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use wire::TimeMark;

/// Most bytes received and not yet durable, over all sessions; less where the journal is small.
pub const INTAKE_BYTES_MAX: usize = 64 << 20;

/// Serves until told to stop.
pub fn run(settings: Settings, catalog: Arc<Catalog>) -> Result<(), Failure> {
    let identity = link::Identity::load(&settings.identity_dir())
        .map_err(|error| Failure::refused(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let hub = restore::start(&settings, &catalog)?;
    let operator = Operator::new(
        settings.clone(),
        catalog,
        Arc::new(daemon::Live(hub.clone())),
    );
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

/// The wall clock as a time mark.
pub(crate) fn wall_clock() -> TimeMark {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    TimeMark(since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }))
}
