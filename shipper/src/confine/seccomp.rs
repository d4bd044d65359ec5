//! The system calls of a shipper: an allow list.
//!
//! Anything else fails with EPERM. It is not killed for it: a C library or a resolver's module that
//! tries something new finds it refused and does without, where a kill would end replication on the
//! day the library is updated. `clone3` alone fails with ENOSYS, upon which threads are started with
//! `clone`, whose flags a filter can see.
//!
//! Lists are in order of purpose. What is not in them, and on purpose: running or tracing a
//! program, writing to a file that is not open, accepting connections, mounts, namespaces, keys,
//! bpf, io_uring, userfaultfd, perf, modules.

use super::ConfineError;
use libc::{c_int, c_long};
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{self, Eq, MaskedEq};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Calls whose arguments do not matter.
const PLAIN: &[c_long] = &[
    // Descriptors that are open.
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // Files by path, without opening them.
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_statx,
    // Readiness.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    // Sockets; which, is decided when one is made.
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    // Signals to ourselves.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time, chance, and who we are.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_nanosleep,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Older calls that only this architecture has, and its C libraries still make.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

/// Flags of an open that does more than read.
const WRITING: c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
/// Flags of a clone that makes a thread and no process.
const THREAD: c_int = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
/// The low bits of a socket's type; the others are flags.
const TYPE_MASK: c_int = 0xf;
/// What an allocator says about its memory. Above all not `MADV_REMOVE`: it takes away the page the
/// tap shares with us, seals and all, and the tap's threads would have to wait for a new one.
const ADVICE: [c_int; 3] = [libc::MADV_DONTNEED, libc::MADV_FREE, libc::MADV_HUGEPAGE];
const FCNTL_COMMANDS: [c_int; 6] = [
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_GETFL,
    libc::F_GET_SEALS,
    libc::F_SETFD,
    libc::F_SETFL,
];

/// Filters what this thread, and all it starts, may call. New privileges must be ruled out.
pub(super) fn install() -> Result<(), ConfineError> {
    for program in programs().map_err(Error::Backend)? {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

/// Both say yes, or the call fails; the list comes last, since it allows no further filter.
fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let refuse = |errno: c_int| SeccompAction::Errno(errno as u32);
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let (allow, arch) = (
        SeccompAction::Allow,
        TargetArch::try_from(std::env::consts::ARCH)?,
    );
    let absent = SeccompFilter::new(clone3, allow.clone(), refuse(libc::ENOSYS), arch)?;
    let listed = SeccompFilter::new(rules()?, refuse(libc::EPERM), allow, arch)?;
    Ok([absent.try_into()?, listed.try_into()?])
}

fn rules() -> Result<Rules, seccompiler::BackendError> {
    let plain = PLAIN.iter().chain(OLD).chain(&[libc::SYS_clone3]);
    let mut rules: Rules = plain.map(|call| (*call, Vec::new())).collect();
    let mut allow = |call: c_long, when: &[(u8, SeccompCmpOp, c_int)]| {
        let conditions = when.iter().map(|(argument, operator, value)| {
            SeccompCondition::new(*argument, Dword, operator.clone(), u64::from(*value as u32))
        });
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        rules.entry(call).or_default().push(rule);
        Ok::<(), seccompiler::BackendError>(())
    };
    let masked = |mask: c_int| MaskedEq(u64::from(mask as u32));

    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_open, &[(1, masked(WRITING), libc::O_RDONLY)])?;
    allow(libc::SYS_openat, &[(2, masked(WRITING), libc::O_RDONLY)])?;
    for command in FCNTL_COMMANDS {
        allow(libc::SYS_fcntl, &[(1, Eq, command)])?;
    }
    for request in [libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX] {
        allow(libc::SYS_ioctl, &[(1, Eq, request as c_int)])?;
    }
    for domain in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_DGRAM, libc::SOCK_STREAM] {
            let kind = (1, masked(TYPE_MASK), kind);
            allow(libc::SYS_socket, &[(0, Eq, domain), kind])?;
        }
    }
    allow(libc::SYS_socket, &[(0, Eq, libc::AF_UNIX)])?;
    allow(libc::SYS_socketpair, &[(0, Eq, libc::AF_UNIX)])?;
    // Which addresses this host has, for the order of those a name has.
    let route = (2, Eq, libc::NETLINK_ROUTE);
    allow(libc::SYS_socket, &[(0, Eq, libc::AF_NETLINK), route])?;
    // Memory is written or run: modules of the resolver are mapped to be run, none is made here.
    let both = || masked(libc::PROT_WRITE | libc::PROT_EXEC);
    for one in [0, libc::PROT_WRITE, libc::PROT_EXEC] {
        allow(libc::SYS_mmap, &[(2, both(), one)])?;
    }
    for advice in ADVICE {
        allow(libc::SYS_madvise, &[(2, Eq, advice)])?;
    }
    allow(libc::SYS_mprotect, &[(2, masked(libc::PROT_EXEC), 0)])?;
    allow(libc::SYS_clone, &[(0, masked(THREAD), THREAD)])?;
    for option in [libc::PR_SET_NAME, libc::PR_GET_NAME] {
        allow(libc::SYS_prctl, &[(0, Eq, option)])?;
    }
    // What an abort does.
    let own = std::process::id() as c_int;
    allow(libc::SYS_tgkill, &[(0, Eq, own)])?;
    // Limits are read, for the size of a thread's stack; the new ones, a pointer, must be none.
    let only_read = SeccompRule::new(vec![SeccompCondition::new(2, Qword, Eq, 0)?])?;
    rules.insert(libc::SYS_prlimit64, vec![only_read]);
    Ok(rules)
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
