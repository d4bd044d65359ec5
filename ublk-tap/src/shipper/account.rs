//! The user the shipper runs as.

use ring::handoff::user::{self, PASSWORD_FILE};
use std::path::Path;

/// A user and its group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What `nobody` is where it has no entry.
const NOBODY: Account = Account {
    uid: 65534,
    gid: 65534,
};

impl Account {
    /// The user `ublk-tap` if there is one, else `nobody`; ourselves where we are not root and
    /// cannot become anybody else.
    pub fn of_shipper() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self::own();
        }
        // Only the local table: a service that asks the network could wait for our own disk.
        Self::listed(Path::new(PASSWORD_FILE))
    }

    fn listed(password_file: &Path) -> Self {
        let found = user::shipper_user(password_file);
        found.map_or(NOBODY, |user| Self {
            uid: user.uid,
            gid: user.gid,
        })
    }

    /// Ourselves.
    pub fn own() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_for_the_user_the_shipper_becomes_and_never_for_root() {
        let table = tempfile::NamedTempFile::new().unwrap();
        let account = |lines: &str| {
            std::fs::write(table.path(), lines).unwrap();
            let account = Account::listed(table.path());
            let shipper = user::shipper_user(table.path());
            assert!(shipper.is_none_or(|user| (user.uid, user.gid) == (account.uid, account.gid)));
            (account.uid, account.gid)
        };
        let nobody = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
        assert_eq!(account(nobody), (65534, 65533));
        let ours = format!("{nobody}ublk-tap:x:990:980::/:/bin/false\n");
        assert_eq!(account(&ours), (990, 980));
        let root = format!("ublk-tap:x:0:0::/:\n{nobody}");
        assert_eq!(account(&root), (65534, 65533), "as the shipper has it");
        for bad in [
            "",
            "ublk-tap:x:0:0::/:\n",
            "ublk-tap\n",
            "ublk-tap:x:a:b:\n",
        ] {
            assert_eq!(account(bad), (NOBODY.uid, NOBODY.gid), "{bad:?}");
        }
    }
}
