//! The user the shipper runs as.

use std::fs;

/// A user and its group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The user of our own, and the one every system has.
const NAMES: [&str; 2] = ["ublk-tap", "nobody"];
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
        let table = fs::read_to_string("/etc/passwd").unwrap_or_default();
        find(&table)
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

fn find(table: &str) -> Account {
    let found = NAMES
        .iter()
        .find_map(|name| table.lines().find_map(|line| entry(line, name)));
    found.filter(|account| account.uid != 0).unwrap_or(NOBODY)
}

fn entry(line: &str, name: &str) -> Option<Account> {
    let mut fields = line.split(':');
    if fields.next() != Some(name) {
        return None;
    }
    let mut numbers = fields.skip(1).map(|field| field.parse::<u32>().ok());
    let (uid, gid) = (numbers.next()??, numbers.next()??);
    Some(Account { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_user_comes_before_nobody_and_root_is_never_taken() {
        let nobody = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
        assert_eq!(
            find(nobody),
            Account {
                uid: 65534,
                gid: 65533
            }
        );
        let ours = format!("{nobody}ublk-tap:x:990:980::/:/bin/false\n");
        assert_eq!(find(&ours), Account { uid: 990, gid: 980 });
        for bad in [
            "",
            "ublk-tap:x:0:0::/:\n",
            "ublk-tap\n",
            "ublk-tap:x:a:b:\n",
        ] {
            assert_eq!(find(bad), NOBODY, "{bad:?}");
        }
    }
}
