//! Handing over to another program.

use super::world::{Host, PATIENCE, Tap};
use crate::control::{Reply, Request, UpgradeRequest};
use crate::failure::{Exit, Failure};
use std::sync::atomic::Ordering;

const SIZE: usize = 3 << 20;

fn upgrade(tap: &Tap, force: bool) -> Failure {
    let program = "/no/such/program".into();
    match tap.ask(Request::Upgrade(UpgradeRequest { program, force })) {
        Reply::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tap_that_cannot_become_the_other_program_goes_on() {
    let host = Host::new();
    let tap = host.tap();
    let disk = host.disk("data.img", SIZE, 3);
    tap.add(&disk, "data").unwrap();
    tap.wait_mode("async");
    let failure = upgrade(&tap, false);
    assert_eq!(failure.text, "no /no/such/program");
    host.fronts.device("data").write(0, &[9; 4096]);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_copy_that_would_begin_again_is_a_reason_to_refuse_unless_forced() {
    let host = Host::new();
    host.site.stalls.store(true, Ordering::Release);
    let tap = host.tap();
    let disk = host.disk("data.img", SIZE, 3);
    tap.add(&disk, "data").unwrap();
    let refused = upgrade(&tap, false);
    assert_eq!(refused.exit, Exit::Refused);
    assert!(
        refused.text.contains("pg/data is being copied"),
        "{refused}"
    );
    assert_eq!(upgrade(&tap, true).exit, Exit::Failed, "it was tried");
    host.site.stalls.store(false, Ordering::Release);
    tap.wait_mode("async");
    tap.remove(None, false).unwrap();
    tap.end();
}
