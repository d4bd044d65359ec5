//! Sessions on virtual time, as stories.

mod hostile;
mod model;
mod stories;
mod world;
