//! The binary: what each verb prints, how it ends, and that a refusal changes nothing.

#![allow(clippy::unwrap_used)] // Test helpers fail by panicking.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

struct Site(TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Set up, with nothing registered.
    fn ready() -> Self {
        let site = Self::new();
        site.ok(&["init", "--listen", "127.0.0.1:7800"]);
        site
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("receiver")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ublk-tap-receiver"))
            .args(args)
            .env("UBLK_TAP_RECEIVER_DIR", self.dir())
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Fails with this code and one line, which is returned.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
        if code != 2 {
            assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        }
        text
    }

    fn add(&self) {
        let args = [
            "volume", "add", "db/wal", "--source", "host1", "--size", "4MiB",
        ];
        self.ok(&[&args[..], &["--target", "a.img", "b.img"]].concat());
    }
}

/// Everything below a directory: names and sizes; the catalog's own file breathes.
fn tree(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        let len = fs::metadata(&path).unwrap().len();
        found.push((
            path.clone(),
            if path.ends_with("catalog.redb") {
                0
            } else {
                len
            },
        ));
    }
    found.sort();
    found
}

#[test]
fn init_sets_a_receiver_up_once() {
    let site = Site::new();
    let said = site.ok(&[
        "init",
        "--listen",
        "0.0.0.0",
        "--advertise",
        "backup.example:7800",
    ]);
    assert!(
        said.contains("UDP 0.0.0.0:7800") && said.contains("next:"),
        "{said}"
    );
    for file in [
        "receiver.toml",
        "catalog.redb",
        "identity/key.pem",
        "identity/cert.pem",
    ] {
        assert!(site.dir().join(file).exists(), "{file}");
    }
    let before = tree(&site.dir());
    let text = site.fails(3, &["init", "--listen", "127.0.0.1"]);
    assert!(text.contains("already"), "{text}");
    assert_eq!(tree(&site.dir()), before);
}

#[test]
fn an_init_that_fails_leaves_nothing_behind() {
    let site = Site::new();
    for args in [
        &["init"][..],
        &["init", "--listen", "nowhere"],
        &["init", "--listen", "0.0.0.0:7800"],
        &["init", "--listen", "127.0.0.1", "--advertise", "backup"],
        &["init", "--listen", "127.0.0.1", "--journal-max", "1MiB"],
        &["init", "--listen", "127.0.0.1", "--journal-max", "8GB"],
    ] {
        site.fails(2, args);
    }
    fs::write(site.path("file"), b"").unwrap();
    site.fails(
        1,
        &["init", "--listen", "127.0.0.1", "--journal", "file/journal"],
    );
    assert_eq!(tree(site.0.path()), [(site.path("file"), 0)]);
}

#[test]
fn verbs_want_a_receiver() {
    let site = Site::new();
    for args in [
        &["status"][..],
        &["serve"],
        &["volume", "list"],
        &["token", "--source", "a"],
    ] {
        let text = site.fails(3, args);
        assert!(text.contains("init"), "{text}");
    }
    assert!(tree(site.0.path()).is_empty());
}

#[test]
fn a_token_is_one_string_with_address_and_source() {
    let site = Site::ready();
    let token: wire::Token = site
        .ok(&["token", "--source", "host1"])
        .trim()
        .parse()
        .unwrap();
    assert_eq!(
        (token.address.as_str(), token.source.as_str()),
        ("127.0.0.1:7800", "host1")
    );
    let other = site.ok(&["token", "--source", "host1", "--expires", "5m"]);
    let other: wire::Token = other.trim().parse().unwrap();
    assert_ne!(token.secret, other.secret);
    site.fails(2, &["token", "--source", "../up"]);
    site.fails(2, &["token", "--source", "a", "--expires", "8d"]);
    site.fails(3, &["revoke", "nobody"]);
}

#[test]
fn a_volume_is_added_listed_and_removed() {
    let site = Site::ready();
    assert!(site.ok(&["volume", "list"]).contains("no volumes"));
    site.add();
    let sizes = ["a.img", "b.img"].map(|file| fs::metadata(site.path(file)).unwrap().len());
    assert_eq!(sizes, [2 << 20, 2 << 20]);
    let list = site.ok(&["volume", "list"]);
    assert!(list.contains("db/wal") && list.contains("4 MiB"), "{list}");
    let json: serde_json::Value =
        serde_json::from_str(&site.ok(&["volume", "list", "--json"])).unwrap();
    assert_eq!(
        json[0]["targets"][1]["path"],
        site.path("b.img").to_str().unwrap()
    );

    let asked = site.fails(2, &["volume", "remove", "db/wal"]);
    assert!(
        asked.contains("--confirm db/wal") && asked.contains("4 MiB"),
        "{asked}"
    );
    site.fails(2, &["volume", "remove", "db/wal", "--confirm", "db/data"]);
    site.ok(&["volume", "remove", "db/wal", "--confirm", "db/wal"]);
    site.fails(3, &["volume", "remove", "db/wal", "--confirm", "db/wal"]);
    assert!(
        site.path("a.img").exists(),
        "the targets keep their content"
    );
}

#[test]
fn a_refused_volume_changes_nothing() {
    let site = Site::ready();
    site.add();
    fs::write(site.path("full.img"), b"someone's").unwrap();
    let before = tree(site.0.path());
    let with = |name: &'static str, size: &'static str, more: &[&'static str]| {
        let args = ["volume", "add", name, "--source", "host1", "--size", size];
        [&args[..], more].concat()
    };
    for (code, args) in [
        (3, with("db/wal", "4MiB", &["--target", "c.img"])),
        (3, with("db/two", "2MiB", &["--target", "a.img"])),
        (3, with("db/two", "4MiB", &["--target", "full.img"])),
        (3, with("db/two", "4MiB", &["--target", "none/c.img"])),
        (3, with("db/two", "4MiB", &["--target", "/dev/null"])),
        (
            3,
            with("db/two", "4MiB", &["--target", "receiver/journal/c.img"]),
        ),
        (2, with("db/two", "4MiB", &["--target", "c.img", "c.img"])),
        (2, with("db/two", "4MB", &["--target", "c.img"])),
        (2, with("db/two", "1000", &["--target", "c.img"])),
        (
            2,
            with("db/two", "4MiB", &["--sector", "520", "--target", "c.img"]),
        ),
        (2, with("db", "4MiB", &["--target", "c.img"])),
        (2, with("db/two", "4MiB", &[])),
    ] {
        site.fails(code, &args);
        assert_eq!(tree(site.0.path()), before, "{args:?}");
    }
}

#[test]
fn status_says_first_what_matters_and_has_json() {
    let site = Site::ready();
    site.add();
    let output = site.run(&["status"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("db: not recoverable yet"), "{said}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("not running"), "{error}");
    assert_eq!(output.status.code(), Some(4));
    let json = site.run(&["status", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["groups"][0]["mode"], "stopped");
    assert_eq!(json["running"], false);
}

#[test]
fn a_verb_waits_for_another_to_let_go_of_the_catalog() {
    let site = Site::ready();
    let path = site.dir().join("catalog.redb");
    let catalog = receiver::catalog::Catalog::open(&path).unwrap();
    std::thread::scope(|scope| {
        let verb = scope.spawn(|| site.ok(&["volume", "list"]));
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(catalog);
        assert!(verb.join().unwrap().contains("no volumes"));
    });
}

#[test]
fn a_volume_without_a_point_is_not_exported() {
    let site = Site::ready();
    site.add();
    let text = site.fails(3, &["volume", "export", "db/wal", "out.img"]);
    assert!(text.contains("no complete point"), "{text}");
    assert!(!site.path("out.img").exists());
    site.fails(3, &["volume", "export", "db/none", "out.img"]);
    site.fails(3, &["volume", "export", "db/wal", "a.img"]);
}
