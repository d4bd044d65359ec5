//! Which journals a start goes on with, and what it removes before it reads.

use super::survey::{self, Survey, SurveyError};
use crate::journal::error::JournalError;
use crate::journal::store::Store;
use crate::recovery::{self, Files, Known, Start};
use std::io;
use std::path::Path;
use wire::journal::JournalId;

/// The survey, if the journal is one to start with.
pub(super) fn admit<S: Store>(
    store: &S,
    path: &Path,
    expected: Option<JournalId>,
) -> Result<Survey, JournalError> {
    let surveyed = look(store, path, expected);
    let files = match &surveyed {
        Ok(survey) if survey.kind.is_none() && survey.unreadable => Files::Unreadable,
        Ok(survey) if survey.kind.is_none() => Files::None,
        Ok(_) => Files::One,
        Err(JournalError::Foreign { .. }) => Files::Mixed,
        Err(JournalError::Version { .. }) => Files::Newer,
        Err(_) => return surveyed,
    };
    // One of another id than is expected has been found foreign.
    let known = expected.map_or(Known::None, |_| Known::This);
    match recovery::start(files, known) {
        Start::Begin | Start::Adopt | Start::Read | Start::Foreign | Start::Version => surveyed,
        Start::Missing => Err(JournalError::Missing(path.to_owned())),
        Start::Unreadable => Err(JournalError::Unreadable(path.to_owned())),
    }
}

pub(super) fn look<S: Store>(
    store: &S,
    path: &Path,
    expected: Option<JournalId>,
) -> Result<Survey, JournalError> {
    survey::survey(store, expected).map_err(|error| match error {
        SurveyError::System(source) => JournalError::Io {
            what: "read",
            path: path.to_owned(),
            source,
        },
        SurveyError::Journal(error) => error,
    })
}

pub(super) fn remove<S: Store>(store: &mut S, survey: &Survey) -> io::Result<()> {
    for segment in &survey.remove {
        store.remove(*segment)?;
    }
    if !survey.remove.is_empty() {
        store.sync()?;
    }
    Ok(())
}
