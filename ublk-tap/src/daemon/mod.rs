//! The life of a tap's process: set up in order, run, leave nothing behind.
//!
//! Set-up goes from what changes nothing to what changes something: settings, identity, lock,
//! state, ring, sockets, threads. The incarnation is on the disk before the ring uses it (P8). A tap
//! that ends well removes everything it made under the run directory; one that is killed leaves it
//! for its successor, which goes on with it, or for `cleanup`.

pub mod left;
mod lock;
mod log;
mod namespace;
mod recover;
mod reopen;
mod returning;
mod spawn;
mod system;

pub use lock::{GroupLock, LockError, is_alive, live_pid};
pub use log::trim as trim_log;
pub use spawn::{Said, Spawned, await_end, spawn, tell_starter};

use crate::control::Server;
use crate::device::become_io_flusher;
use crate::failure::{Exit, Failure};
use crate::group::clerk::{Clerk, Job, of_state};
use crate::group::{Driver, DriverConfig, Fronts, Input, Recovery};
use crate::settings::{Dirs, Enrolment, EnrolmentError, Settings, SettingsError, ShipperMode};
use crate::shipper::{Account, Admission, Port, Program, Supervisor};
use crate::state::{State, StateFile};
use ring::{CreateError, Ring, RingConfig};
use sd_notify::NotifyState;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::AtomicI32;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Once};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wire::{Incarnation, Name};

/// How a tap is run.
pub struct Options {
    /// Where everything lies.
    pub dirs: Dirs,
    /// The group.
    pub group: Name,
    /// Ring size that goes before the settings.
    pub ring_bytes: Option<u64>,
    /// It was started by `add`: in a session of its own, ending when nothing is added.
    pub on_demand: bool,
    /// The process was a tap before, and became this one.
    pub upgraded: bool,
    /// What makes devices.
    pub fronts: Arc<dyn Fronts>,
}

/// Everything a tap owns besides its group.
struct Parts {
    settings: Settings,
    enrolment: Enrolment,
    state: StateFile,
    ring: Arc<Ring>,
    recovery: Option<Recovery>,
}

/// How long a tap started by `add` waits for it.
const ADD_PATIENCE: Duration = Duration::from_secs(60);

/// Runs the tap of a group until it is told to end or its last volume is removed.
pub fn run(options: &Options) -> Result<(), Failure> {
    // First, since every thread of ours and the shipper have it from here: a recovery, too, must not
    // wait for memory that waits for a device nobody serves yet.
    if let Err(error) = become_io_flusher() {
        tracing::warn!(%error, "no I/O flusher: memory may wait for the devices served here");
    }
    if options.on_demand {
        // Not when it leads a process group; then a terminal may reach it, as one started by hand.
        let _ = rustix::process::setsid();
    }
    let signals =
        system::block_signals().map_err(|error| Failure::of_io("block signals", &error))?;
    let settings = settings(options)?;
    let enrolment = Enrolment::load(&options.dirs.identity()).map_err(|e| of_enrolment(&e))?;
    // Before we leave its mount namespace, and while it waits for us.
    let starter = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    make_run_dir(&options.dirs, &options.group)?;
    let lock = GroupLock::take_to_run(&options.dirs, &options.group).map_err(|e| of_lock(&e))?;
    if !options.upgraded {
        isolate(&options.dirs);
    }
    system::stay_in_memory();
    let mut state = open_state(options)?;
    let recovered = recover::recover(options, &settings, &mut state, starter)?;
    let is_recovered = recovered.is_some();
    let made = match recovered {
        Some((ring, recovery)) => Ok((ring, Some(recovery))),
        None => begin_life(options, &settings, &mut state).map(|ring| (ring, None)),
    };
    let (ring, recovery) = match made {
        Ok(made) => made,
        Err(failure) => {
            leave(options, state, lock);
            return Err(failure);
        }
    };
    let parts = Parts {
        settings,
        enrolment,
        state,
        ring: Arc::clone(&ring),
        recovery,
    };
    let (result, state) = serve(options, parts, signals);
    if is_recovered && result.is_err() {
        // It never ran: what there is to recover stays as it was found.
        return result;
    }
    if let Err(error) = ring.remove_file() {
        tracing::debug!(%error, "the ring file is gone already");
    }
    match state {
        Some(state) => leave(options, state, lock),
        None => drop(lock),
    }
    result
}

/// Sets the process apart, for good: also another program it becomes is there. What is missing of it is said in the log; the tap works without.
fn isolate(dirs: &Dirs) {
    let own = std::env::current_exe().ok();
    let shipper = Program::find()
        .ok()
        .map(|program| program.path().to_owned());
    let places = [&dirs.config, &dirs.state, &dirs.run, &dirs.dev]
        .into_iter()
        .cloned();
    let needed: Vec<PathBuf> = places.chain(own).chain(shipper).collect();
    if let Err(error) = namespace::enter(&needed) {
        tracing::warn!(%error, "no mount namespace of our own");
    }
}

/// The settings, with what the command line says.
fn settings(options: &Options) -> Result<Settings, Failure> {
    let path = options.dirs.settings(&options.group);
    let mut settings = Settings::load(&path).map_err(|error| of_settings(&error))?;
    settings.ring_bytes = options.ring_bytes.unwrap_or(settings.ring_bytes);
    Ok(settings)
}

fn open_state(options: &Options) -> Result<StateFile, Failure> {
    let path = options.dirs.state_file(&options.group);
    let fresh = State::new(options.group.clone(), clock_seconds());
    StateFile::open_or_create(&path, fresh).map_err(|error| of_state(&error))
}

/// Seconds since the epoch.
fn clock_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// Begins a new incarnation, durable before its ring uses it.
fn begin_life(
    options: &Options,
    settings: &Settings,
    state: &mut StateFile,
) -> Result<Arc<Ring>, Failure> {
    let id = random().map_err(|error| Failure::of_io("read /dev/urandom", &error))?;
    let counter = state.state().next_counter(clock_seconds());
    let incarnation = Incarnation { counter, id };
    state
        .update(|state| state.incarnation = incarnation)
        .map_err(|error| of_state(&error))?;
    let config = RingConfig::for_payload(settings.ring_bytes)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let dir = options.dirs.group_run(&options.group);
    let ring = Ring::create(&dir, state.state().incarnation, config);
    Ok(Arc::new(ring.map_err(|error| of_ring(&error))?))
}

/// Sockets, threads and the group; gives the state back when all of them are gone.
fn serve(
    options: &Options,
    parts: Parts,
    signals: system::Signals,
) -> (Result<(), Failure>, Option<StateFile>) {
    let (post, inbox) = channel();
    let (jobs, job_inbox) = channel();
    let generation = parts.state.state().generation;
    let clerk = match start_clerk(options, parts.state, job_inbox, post.clone()) {
        Ok(clerk) => clerk,
        Err(error) => return (Err(Failure::of_io("start a thread", &error)), None),
    };
    let config = DriverConfigParts {
        jobs,
        generation,
        recovery: parts.recovery,
        post: post.clone(),
        inbox,
    };
    let served = driver(
        options,
        &parts.settings,
        parts.enrolment,
        parts.ring,
        config,
    )
    .and_then(|driver| {
        let control = start_control(options, &signals, post.clone())?;
        returning::start(options, post)?;
        tracing::info!(group = %options.group, "the tap runs");
        let guard = AbortOnPanic;
        driver.run();
        std::mem::forget(guard);
        drop(control);
        Ok(())
    });
    // With the driver gone nobody posts jobs: the clerk finishes what it has and ends.
    (served, clerk.join().ok())
}

/// Ends the process when a panic unwinds through it: taken down with the group, the devices would
/// fail their users' requests; left to the kernel, they can be recovered.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}

struct DriverConfigParts {
    recovery: Option<Recovery>,
    jobs: Sender<Job>,
    generation: wire::Generation,
    post: Sender<Input>,
    inbox: Receiver<Input>,
}

fn driver(
    options: &Options,
    settings: &Settings,
    enrolment: Enrolment,
    ring: Arc<Ring>,
    parts: DriverConfigParts,
) -> Result<Driver, Failure> {
    let (port, supervisor) = start_shipper(options, settings)?;
    Ok(Driver::new(DriverConfig {
        group: options.group.clone(),
        source: enrolment.source,
        dirs: options.dirs.clone(),
        settings: settings.clone(),
        ring,
        generation: parts.generation,
        port,
        supervisor,
        clerk: parts.jobs,
        inbox: parts.inbox,
        post: parts.post,
        on_demand: options.on_demand.then_some(ADD_PATIENCE),
        recovery: parts.recovery,
        becomes: spawn::successor(options),
    }))
}

fn start_clerk(
    options: &Options,
    state: StateFile,
    jobs: Receiver<Job>,
    post: Sender<Input>,
) -> io::Result<JoinHandle<StateFile>> {
    let clerk = Clerk::new(options.dirs.clone(), Arc::clone(&options.fronts), state);
    let tell = move |done| {
        // A group that is over needs to hear nothing.
        let _ = post.send(Input::Clerk(done));
    };
    Builder::new()
        .name("clerk".into())
        .spawn(move || clerk.run(&jobs, tell))
}

fn start_control(
    options: &Options,
    signals: &system::Signals,
    post: Sender<Input>,
) -> Result<Server, Failure> {
    let socket = options.dirs.control_socket(&options.group);
    let (signals, stop) = (*signals, post.clone());
    let wait = move || {
        while signals.wait().is_ok() {
            returning::tell_manager(NotifyState::Stopping);
            if stop.send(Input::Stop).is_err() {
                break;
            }
        }
    };
    let waiting = Builder::new().name("signals".into()).spawn(wait);
    waiting.map_err(|error| Failure::of_io("start a thread", &error))?;
    write_pid(options).map_err(|error| Failure::of_io("write the pid file", &error))?;
    let what = format!("listen at {}", socket.display());
    Server::start(&socket, post).map_err(|error| Failure::of_io(&what, &error))
}

fn start_shipper(
    options: &Options,
    settings: &Settings,
) -> Result<(Port, Option<Supervisor>), Failure> {
    let (dirs, group) = (options.dirs.clone(), options.group.clone());
    let account = Account::of_shipper();
    let pid = Arc::new(AtomicI32::new(0));
    let admission = match settings.shipper {
        ShipperMode::Child => Admission::Child(Arc::clone(&pid)),
        ShipperMode::External => Admission::Anybody(account),
    };
    let socket = dirs.shipper_socket(&group);
    let what = format!("listen at {}", socket.display());
    let port = Port::bind(&socket, admission, account);
    let port = port.map_err(|error| Failure::of_io(&what, &error))?;
    if settings.shipper == ShipperMode::External {
        return Ok((port, None));
    }
    let program = Program::find().map_err(|error| Failure::failed(error.to_string()))?;
    let (upgraded, reaped) = (options.upgraded, Once::new());
    let command = move || {
        if upgraded {
            // Before there is a child of ours.
            reaped.call_once(system::reap_children);
        }
        let mut command = program.command(&dirs, account);
        command.args(["run", "--group", group.as_str()]);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(dirs.shipper_log(&group))?;
        command.stdout(log.try_clone()?).stderr(log);
        system::die_with_parent(&mut command);
        Ok(command)
    };
    let supervisor = Supervisor::start(pid, command);
    let supervisor = supervisor.map_err(|error| Failure::of_io("start a thread", &error))?;
    Ok((port, Some(supervisor)))
}

/// Makes the group's run directory: others may pass through it to the shipper's socket, not look.
fn make_run_dir(dirs: &Dirs, group: &Name) -> Result<(), Failure> {
    let dir = dirs.group_run(group);
    let made = DirBuilder::new().recursive(true).mode(0o755).create(&dir);
    let set = made.and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)));
    set.map_err(|error| Failure::of_io(&format!("make {}", dir.display()), &error))
}

fn write_pid(options: &Options) -> io::Result<()> {
    let path = options.dirs.pid(&options.group);
    fs::write(path, format!("{}\n", std::process::id()))
}

/// Leaves nothing behind. The lock goes last.
fn leave(options: &Options, state: StateFile, lock: GroupLock) {
    if let Err(error) = state.remove_if_empty() {
        tracing::debug!(%error, "an empty state file stays");
    }
    clear_run_dir(&options.dirs, &options.group);
    drop(lock);
}

/// Removes what a tap makes in its run directory, and the directory if it is empty then.
pub fn clear_run_dir(dirs: &Dirs, group: &Name) {
    let dir = dirs.group_run(group);
    let names = ["ring", "roster", "control.sock", "shipper.sock", "tap.pid"];
    let logs = [
        "tap.log",
        "tap.log.old",
        "shipper.log",
        "shipper.log.old",
        "lock",
    ];
    for name in names.into_iter().chain(logs) {
        // What is not there needs no removal.
        let _ = fs::remove_file(dir.join(name));
    }
    for socket in dirs.nbd_sockets(group) {
        let _ = fs::remove_file(socket);
    }
    if let Err(error) = fs::remove_dir(&dir) {
        tracing::debug!(%error, dir = %dir.display(), "the run directory stays");
    }
}

fn random() -> io::Result<u128> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}

/// A settings error as a failure.
pub fn of_settings(error: &SettingsError) -> Failure {
    match error {
        SettingsError::Read { source, .. } => Failure::new(Exit::of_io(source), error.to_string()),
        SettingsError::Bad { .. } => Failure::usage(error.to_string()),
    }
}

/// A missing enrolment as a failure.
pub fn of_enrolment(error: &EnrolmentError) -> Failure {
    Failure::refused(error.to_string())
}

fn of_lock(error: &LockError) -> Failure {
    match error {
        LockError::Held { .. } => Failure::refused(error.to_string()),
        LockError::Io { source, .. } => Failure::new(Exit::of_io(source), error.to_string()),
    }
}

fn of_ring(error: &CreateError) -> Failure {
    let exit = match error {
        error if error.is_no_space() => Exit::NoSpace,
        CreateError::Config(_) => Exit::Usage,
        CreateError::NotTmpfs { .. } => Exit::Refused,
        CreateError::Io { source, .. } => Exit::of_io(source),
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}
