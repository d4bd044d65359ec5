//! Commands with a time limit, whose failure tells the whole story.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take unless told otherwise; emulated machines are slow, hangs are longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// A command about to be run.
#[derive(Debug)]
pub struct Run {
    command: Command,
    patience: Duration,
}

/// What a command did.
#[derive(Clone)]
pub struct Done {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; 124 if it ran out of time, 128 + signal if it was killed.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Run {
    /// `program` with nothing else yet.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            command: Command::new(program),
            patience: PATIENCE,
        }
    }

    /// `sh -c script`.
    pub fn sh(script: &str) -> Self {
        Self::new("sh").args(["-c", script])
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// The same, by a shell that has run `script` before.
    #[must_use]
    pub fn after(self, script: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]);
        command.arg(self.command.get_program());
        command.args(self.command.get_args());
        for (key, value) in self.command.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        Self { command, ..self }
    }

    /// Another time limit.
    #[must_use]
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs to the end, whatever the end is.
    pub fn done(mut self) -> Done {
        let line = format!("{:?}", self.command).replace('"', "");
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start `{line}`: {error}"),
        };
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        let code = wait(&mut child, self.patience);
        let text = |handle: Option<thread::JoinHandle<String>>| {
            handle
                .and_then(|handle| handle.join().ok())
                .unwrap_or_default()
        };
        // A daemon left behind may hold the pipes open: after a time-out nobody waits for them.
        if code == 124 {
            return Done {
                line,
                code,
                stdout: String::new(),
                stderr: "(out of time)".into(),
            };
        }
        Done {
            line,
            code,
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    /// Runs to a successful end; anything else fails the test with all that was printed.
    pub fn ok(self) -> Done {
        let done = self.done();
        assert!(done.code == 0, "{done}");
        done
    }

    /// Runs to the documented failure `code`, with exactly one line on standard error.
    pub fn refused(self, code: i32) -> Done {
        let done = self.done();
        assert!(done.code == code, "expected exit code {code}: {done}");
        let lines = done
            .stderr
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count();
        assert!(lines == 1, "expected one clear line: {done}");
        done
    }
}

impl Done {
    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {self}"),
        }
    }

    /// Fails unless standard error has `needle` in it.
    #[track_caller]
    pub fn says(&self, needle: &str) -> &Self {
        assert!(
            self.stderr.contains(needle),
            "expected {needle:?} on standard error: {self}"
        );
        self
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Polls `probe` until it holds; `what` names what never came.
#[track_caller]
pub fn eventually(what: &str, patience: Duration, mut probe: impl FnMut() -> bool) {
    let start = Instant::now();
    while !probe() {
        assert!(
            start.elapsed() < patience,
            "{what}: not within {patience:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe only cuts what is shown.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, patience: Duration) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let signal = status.signal().map(|signal| 128 + signal);
                return status.code().or(signal).unwrap_or(-1);
            }
            Ok(None) if start.elapsed() > patience => {
                let _ = child.kill();
                return 124;
            }
            Ok(None) => thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("wait: {error}"),
        }
    }
}
