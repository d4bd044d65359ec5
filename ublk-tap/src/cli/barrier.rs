//! `ublk-tap barrier`.

use super::args::BarrierArgs;
use super::{look, say, to_json};
use crate::control::{BarrierRequest, Reply, Request, Settling};
use crate::failure::Failure;
use crate::settings::Dirs;
use serde_json::json;
use std::time::Duration;

/// What the answer may take beyond the time the operator gives.
const GRACE: Duration = Duration::from_secs(10);

/// Waits until everything completed so far is safe, and prints the stamp that covers it.
pub(super) fn barrier(dirs: &Dirs, args: &BarrierArgs) -> Result<(), Failure> {
    let timeout_ms = u64::try_from(args.timeout.0.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Barrier(BarrierRequest {
        wait: args.wait,
        timeout_ms,
    });
    let within = args.timeout.0 + GRACE;
    let reached = match look::ask_running(dirs, &args.group, &request, within)? {
        Reply::Barrier(reached) => reached,
        other => return Err(look::unexpected(other)),
    };
    let wait = match args.wait {
        Settling::Durable => "durable",
        Settling::Applied => "applied",
    };
    let (stamp, seconds) = (reached.stamp, reached.seconds);
    if args.json {
        return say(&to_json(
            &json!({ "stamp": stamp, "wait": wait, "seconds": seconds }),
        )?);
    }
    say(&format!("stamp {stamp} is {wait} after {seconds:.1} s"))
}
