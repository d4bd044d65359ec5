//! Taking the shipper's place at the tap's socket.

use ring::Consumer;
use ring::handoff::{Channel, ChannelError, ToShipper};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Connects, takes the welcome and opens the ring; keep the channel, it is the session.
pub fn attach(socket: &Path) -> (Channel, Consumer) {
    let start = Instant::now();
    loop {
        match try_attach(socket) {
            Ok(pair) => return pair,
            Err(why) if start.elapsed() > PATIENCE => panic!("{}: {why}", socket.display()),
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}

fn try_attach(socket: &Path) -> Result<(Channel, Consumer), String> {
    let channel = Channel::connect(socket).map_err(|error| error.to_string())?;
    let start = Instant::now();
    loop {
        match channel.recv_from_tap() {
            Ok((ToShipper::Welcome(_), Some(fds))) => {
                let consumer = Consumer::open(fds).map_err(|error| error.to_string())?;
                return Ok((channel, consumer));
            }
            Ok(_) => return Err("the tap did not begin with a welcome".into()),
            Err(ChannelError::WouldBlock) if start.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
