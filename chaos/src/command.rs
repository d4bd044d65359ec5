//! Commands that end in time, or are ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its exit code; 124 if it was out of time.
    pub code: i32,
    /// What it printed.
    pub said: String,
    /// What it printed as an error.
    pub complained: String,
}

/// It did not end in time.
pub const OUT_OF_TIME: i32 = 124;
/// Ended by SIGTERM itself.
pub(crate) const TERMINATED: i32 = 128 + 15;

impl Done {
    /// It has ended well, or else what it said is the error.
    pub fn well(self) -> Result<Self, String> {
        match self.code {
            0 => Ok(self),
            code => Err(format!("exit code {code}: {}", self.complained.trim())),
        }
    }
}

/// Runs a command to its end. What it prints fits a pipe.
pub fn run(mut command: Command, patience: Duration) -> Done {
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            return Done {
                code: 127,
                said: String::new(),
                complained: error.to_string(),
            };
        }
    };
    let code = wait(&mut child, patience);
    let text = |pipe: &mut dyn io::Read| {
        let mut text = Vec::new();
        let _ = pipe.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    let out = child.stdout.take().filter(|_| code != OUT_OF_TIME);
    let err = child.stderr.take().filter(|_| code != OUT_OF_TIME);
    Done {
        code,
        said: out.map(|mut pipe| text(&mut pipe)).unwrap_or_default(),
        complained: err.map_or_else(|| "(out of time)".into(), |mut pipe| text(&mut pipe)),
    }
}

/// Its exit code. Time is counted in our own steps: a machine that stands still does not make it late.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> i32 {
    const STEP: Duration = Duration::from_millis(2);
    let steps = patience.as_millis() / STEP.as_millis();
    for _ in 0..steps {
        match child.try_wait() {
            Ok(Some(status)) => {
                let signal = status.signal().map_or(-1, |signal| 128 + signal);
                return status.code().unwrap_or(signal);
            }
            Ok(None) => thread::sleep(STEP),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    OUT_OF_TIME
}
