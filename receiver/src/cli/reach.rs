//! Reaching the receiver: the daemon if it runs, else its catalog.

use crate::catalog::{Catalog, CatalogError};
use crate::config::Settings;
use crate::control::{Client, ClientError, Hold, Operator, Request, Response, Stopped};
use crate::failure::Failure;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The receiver, one way or the other. A hold lasts as long as this.
pub(super) enum Reach {
    /// The daemon runs.
    Live(Client),
    /// It does not; the catalog is held open, so that it cannot start meanwhile.
    Stopped(Box<Operator>, Option<Box<dyn Hold>>),
}

/// How long a daemon may take from opening the catalog to answering, or a verb to let go of it.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(5);
const TRY_INTERVAL: Duration = Duration::from_millis(50);

impl Reach {
    pub(super) fn new(settings: Settings) -> Result<Self, Failure> {
        let until = Instant::now() + CATALOG_TIMEOUT;
        loop {
            match Client::connect(&settings.control_path()) {
                Ok(client) => return Ok(Self::Live(client)),
                Err(ClientError::NotRunning) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(catalog) = try_open(&settings, until)? {
                return Ok(Self::stopped(settings, Arc::new(catalog)));
            }
        }
    }

    fn stopped(settings: Settings, catalog: Arc<Catalog>) -> Self {
        let stopped = Arc::new(Stopped::new(settings.clone(), catalog.clone()));
        Self::Stopped(Box::new(Operator::new(settings, catalog, stopped)), None)
    }

    /// Carries out a verb; a refusal is a failure.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Response, Failure> {
        let response = match self {
            Self::Live(client) => client.ask(request)?,
            Self::Stopped(operator, hold) => operator.answer(request, hold),
        };
        match response {
            Response::Refused { exit, text } => Err(Failure { exit, text }),
            other => Ok(other),
        }
    }
}

/// Opens the catalog for the daemon. A verb may hold it for a moment; another daemon is refused.
pub(super) fn open_alone(settings: &Settings) -> Result<Catalog, Failure> {
    let until = Instant::now() + CATALOG_TIMEOUT;
    loop {
        if Client::connect(&settings.control_path()).is_ok() {
            return Err(CatalogError::InUse.into());
        }
        if let Some(catalog) = try_open(settings, until)? {
            return Ok(catalog);
        }
    }
}

/// The catalog, or `None` after a pause if someone has it and there is time left.
fn try_open(settings: &Settings, until: Instant) -> Result<Option<Catalog>, Failure> {
    match Catalog::open(&settings.catalog_path()) {
        Ok(catalog) => Ok(Some(catalog)),
        Err(CatalogError::InUse) if Instant::now() < until => {
            std::thread::sleep(TRY_INTERVAL);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
