//! The unprivileged user the shipper runs as, and the tap gives the ring to.
//!
//! `ublk-tap` when the host has it, else `nobody`. Only local users count: both are looked up in
//! the password file, which needs no network and no C library.

use std::fs;
use std::path::Path;

/// Users in order of preference.
pub const USERS: [&str; 2] = ["ublk-tap", "nobody"];
/// Where local users are listed.
pub const PASSWORD_FILE: &str = "/etc/passwd";

/// A local user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: &'static str,
    /// Its number.
    pub uid: u32,
    /// Number of its first group.
    pub gid: u32,
}

/// The user the shipper runs as, if the host has one; never root under another name.
pub fn shipper_user(password_file: &Path) -> Option<User> {
    let table = fs::read_to_string(password_file).ok()?;
    USERS.iter().find_map(|name| find(&table, name))
}

fn find(table: &str, name: &'static str) -> Option<User> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let mut numbers = fields.skip(1).map(str::parse);
        let (uid, gid) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        // The largest number means "no user" to system calls.
        let is_usable = uid != 0 && uid != u32::MAX && gid != u32::MAX;
        is_usable.then_some(User { name, uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_user_comes_before_nobody_and_neither_may_lack_fields_or_be_root() {
        let nobody = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
        let own = "ublk-tap:x:990:991::/:/bin/false\n";
        let dir = tempfile::tempdir().unwrap();
        let user = |table: &str| {
            let file = dir.path().join("passwd");
            fs::write(&file, table).unwrap();
            shipper_user(&file).map(|user| (user.name, user.uid, user.gid))
        };
        assert_eq!(user(nobody), Some(("nobody", 65534, 65534)));
        assert_eq!(user(&[nobody, own].concat()), Some(("ublk-tap", 990, 991)));
        assert_eq!(user("root:x:0:0::/:/bin/sh\n"), None);
        assert_eq!(user("nobody:x\n"), None);
        assert_eq!(user("nobody:x:4294967295:65534::/:/bin/false\n"), None);
        let root = "ublk-tap:x:0:0::/:/bin/false\n";
        assert_eq!(user(root), None);
        assert_eq!(
            user(&[root, nobody].concat()),
            Some(("nobody", 65534, 65534))
        );
        assert_eq!(shipper_user(&dir.path().join("absent")), None);
    }
}
