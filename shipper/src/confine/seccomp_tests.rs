//! What is refused, tried on a thread that is thrown away: a filter is its thread's.

use super::*;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketType, netlink, socket};
use std::fs::File;
use std::io;
use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn filtered(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        rustix::thread::set_no_new_privs(true).unwrap();
        install().unwrap();
        test();
    });
    thread.join().unwrap();
}

fn is_refused<T>(done: io::Result<T>) -> bool {
    done.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

#[test]
fn files_are_opened_to_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "text").unwrap();
    filtered(move || {
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
        assert!(is_refused(File::options().write(true).open(&path)));
        assert!(is_refused(File::options().append(true).open(&path)));
        assert!(is_refused(File::create(path.with_extension("new"))));
        assert!(is_refused(std::fs::remove_file(&path)));
        assert!(is_refused(std::fs::rename(
            &path,
            path.with_extension("new")
        )));
        assert!(is_refused(std::fs::create_dir(path.with_extension("new"))));
        assert!(is_refused(std::fs::set_permissions(
            &path,
            std::os::unix::fs::PermissionsExt::from_mode(0o777)
        )));
        let file = File::open(&path).unwrap();
        assert!(is_refused(file.set_len(0)));
    });
}

#[test]
fn no_program_is_run_and_no_process_made() {
    filtered(|| {
        // Were it not refused, this test would end here as a program that fails.
        let error = Command::new("/bin/false").exec();
        assert!(is_refused(Err::<(), _>(error)));
        assert!(Command::new("/bin/true").spawn().is_err());
        let thread = std::thread::Builder::new().spawn(|| 7);
        assert_eq!(thread.unwrap().join().unwrap(), 7, "threads are");
    });
}

#[test]
fn only_sockets_of_the_network_the_tap_and_the_resolver_are_made() {
    filtered(|| {
        let raw = |family, kind, protocol| socket(family, kind, protocol).map(drop);
        let refused = Err(Errno::PERM);
        assert_eq!(raw(AddressFamily::PACKET, SocketType::DGRAM, None), refused);
        assert_eq!(raw(AddressFamily::INET, SocketType::RAW, None), refused);
        assert_eq!(raw(AddressFamily::VSOCK, SocketType::STREAM, None), refused);
        let kernel_crypto = AddressFamily::from_raw(libc::AF_ALG as u16);
        assert_eq!(raw(kernel_crypto, SocketType::SEQPACKET, None), refused);
        let netfilter: Option<Protocol> = Some(netlink::NETFILTER);
        let netlink = AddressFamily::NETLINK;
        assert_eq!(raw(netlink, SocketType::RAW, netfilter), refused);
        assert_eq!(raw(netlink, SocketType::RAW, None), Ok(()));
        assert_eq!(
            raw(AddressFamily::UNIX, SocketType::SEQPACKET, None),
            Ok(())
        );
        let own = UdpSocket::bind("127.0.0.1:0").unwrap();
        own.send_to(b"to myself", own.local_addr().unwrap())
            .unwrap();
        assert!(
            is_refused(TcpListener::bind("127.0.0.1:0")),
            "nobody is listened to"
        );
    });
}

#[test]
fn names_are_resolved() {
    filtered(|| {
        let mut found = ("localhost", 7800).to_socket_addrs().unwrap();
        assert!(found.any(|address| address.ip().is_loopback()));
    });
}

#[test]
fn the_rest_of_the_kernel_is_out_of_reach() {
    filtered(|| {
        let own = rustix::process::getpid();
        let stop = rustix::process::Signal::CONT;
        let init = rustix::process::Pid::INIT;
        assert_eq!(rustix::process::kill_process(init, stop), Err(Errno::PERM));
        assert_eq!(rustix::process::kill_process(own, stop), Err(Errno::PERM));
        let memfd = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC);
        assert_eq!(memfd.map(drop), Err(Errno::PERM));
        assert_eq!(rustix::process::chroot("/"), Err(Errno::PERM));
        assert_eq!(
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable),
            Err(Errno::PERM)
        );
        let core = rustix::process::Resource::Core;
        let limit = rustix::process::getrlimit(core);
        assert_eq!(rustix::process::setrlimit(core, limit), Err(Errno::PERM));
    });
}

#[test]
fn memory_that_was_written_is_not_run() {
    filtered(|| {
        let memory = memmap2::MmapMut::map_anon(4096).unwrap();
        assert!(is_refused(memory.make_exec()));
        let memory = memmap2::MmapMut::map_anon(4096).unwrap();
        assert!(memory.make_read_only().is_ok());
    });
}

#[test]
fn memory_shared_with_the_tap_is_not_taken_away() {
    filtered(|| {
        let memory = memmap2::MmapMut::map_anon(1 << 20).unwrap();
        assert!(memory.advise(memmap2::Advice::HugePage).is_ok());
        // Any advice but the allocator's, hence also that one, which only unsafe code can give.
        for advice in [memmap2::Advice::WillNeed, memmap2::Advice::DontDump] {
            assert!(is_refused(memory.advise(advice)), "{advice:?}");
        }
        assert!(!ADVICE.contains(&libc::MADV_REMOVE));
        let large = |bytes: usize| vec![1_u8; bytes].iter().map(|byte| u64::from(*byte)).sum();
        let sums = (1..20).map(|n| std::thread::spawn(move || large(n << 20)));
        let sums: Vec<u64> = sums.map(|thread| thread.join().unwrap()).collect();
        assert_eq!(sums[18], 19 << 20, "what the allocator asks for is allowed");
    });
}

/// Calls that have no safe wrapper here, or that nobody has, are not in the list under any condition.
#[test]
fn what_would_lead_out_is_not_in_the_list() {
    let listed = rules().unwrap();
    for call in [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_openat2,
        libc::SYS_open_by_handle_at,
        libc::SYS_mount,
        libc::SYS_fsopen,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_keyctl,
        libc::SYS_init_module,
        libc::SYS_kill,
        libc::SYS_setuid,
        libc::SYS_capset,
        libc::SYS_seccomp,
        libc::SYS_accept4,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        libc::SYS_memfd_create,
        libc::SYS_personality,
    ] {
        assert!(!listed.contains_key(&call), "{call}");
    }
}

#[test]
fn both_filters_are_made_for_this_machine() {
    for program in programs().unwrap() {
        assert!(
            !program.is_empty() && program.len() < 4096,
            "the kernel's limit"
        );
    }
}
