//! Steps and progress on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

/// Numbered steps with the time since the start.
#[derive(Debug)]
pub(super) struct Steps {
    start: Instant,
    last: Instant,
    at: u32,
    all: u32,
    terminal: bool,
}

impl Steps {
    pub(super) fn new(all: u32) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            last: now,
            at: 0,
            all,
            terminal: std::io::stdout().is_terminal(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn begin(&mut self, what: &str) {
        self.at += 1;
        println!(
            "[{}/{}] {:5.1} s  {what}",
            self.at,
            self.all,
            self.elapsed().as_secs_f64()
        );
    }

    pub(super) fn note(&mut self, what: &str) {
        self.clear();
        println!("               {what}");
    }

    /// A line that is overwritten by the next on a terminal, and shown every two seconds elsewhere.
    pub(super) fn progress(&mut self, what: &str) {
        if self.terminal {
            print!("\r\x1b[K               {what}");
        } else if self.last.elapsed() >= Duration::from_secs(2) {
            self.last = Instant::now();
            println!("               {what}");
        }
        let _ = std::io::stdout().flush();
    }

    pub(super) fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        mut probe: impl FnMut() -> (bool, String),
    ) {
        let start = Instant::now();
        loop {
            let (done, state) = probe();
            self.progress(&format!("{what}: {state}"));
            if done {
                self.note(&format!(
                    "{what}: done in {:.1} s",
                    start.elapsed().as_secs_f64()
                ));
                return;
            }
            assert!(
                start.elapsed() < patience,
                "{what}: not within {patience:?}, {state}"
            );
            thread::sleep(Duration::from_millis(300));
        }
    }

    fn clear(&self) {
        if self.terminal {
            print!("\r\x1b[K");
        }
    }
}
