//! Lines on the sockets of this host: what is understood is written so that it is understood again.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request to either daemon, and what shipper and tap say to each other.
pub fn control_socket(data: &[u8]) {
    again::<receiver::control::Request>(data);
    again::<receiver::control::Response>(data);
    again::<tap::control::Request>(data);
    again::<ring::handoff::ToTap>(data);
    again::<ring::handoff::ToShipper>(data);
}

fn again<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(data) else {
        return;
    };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let reread: T = serde_json::from_slice(&written).expect("what we write is read");
    let rewritten = serde_json::to_vec(&reread).expect("and written");
    assert_eq!(rewritten, written, "read and written differ");
}
