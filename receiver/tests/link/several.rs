//! A group over two hosts: its points are states both were in at one time (P4, P7), a source that
//! is silent is named, and the other goes on without it when an operator says so.

use crate::run;
use crate::site::Site;
use crate::source::{BLOCKS, Source};
use crate::talk::{Talk, open};
use link::Identity;
use receiver::control::iso_8601;
use std::time::SystemTime;
use wire::control::{Control, Heartbeat};
use wire::{Stamp, TimeMark};

/// A host of the group: its disk, and its session.
struct Host {
    identity: Identity,
    source: Source,
    talk: Option<Talk>,
    /// What it has sent so far.
    sent: Stamp,
    volume: &'static str,
}

/// The time both hosts go by.
struct Clock(TimeMark);

impl Clock {
    fn begin() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self(TimeMark(now.unwrap().as_millis() as u64 * 1_000_000))
    }

    /// Something happens at a host, after all that happened anywhere before.
    fn at<T>(&mut self, host: &mut Host, act: impl FnOnce(&mut Source) -> T) -> T {
        host.source.synchronise(self.0);
        let done = act(&mut host.source);
        self.0 = TimeMark(host.source.clock().0 - 1);
        done
    }
}

impl Host {
    async fn enrolled(site: &Site, name: &str, volume: &'static str, seed: u64) -> Self {
        Self {
            identity: site.enrol(name).await,
            source: Source::of(seed, name, volume),
            talk: None,
            sent: Stamp::ZERO,
            volume,
        }
    }

    async fn connect(&mut self, site: &Site) {
        let talk = open(site, &self.identity, &self.source).await;
        self.sent = talk.greeted.resume;
        self.talk = Some(talk);
    }

    /// Sends what it has up to `upto`; settled, if it is answered for.
    async fn send(&mut self, upto: Stamp, settled: bool) {
        let talk = self.talk.as_mut().unwrap();
        talk.batch(self.source.records(self.sent, upto)).await;
        if settled {
            talk.settle(self.source.mark(self.sent, upto)).await;
            talk.until(|ack| ack.settled == upto && ack.durable == upto)
                .await;
        } else {
            talk.until(|ack| ack.durable == upto).await;
        }
        self.sent = upto;
    }

    async fn send_all(&mut self) {
        self.send(self.source.last(), true).await;
    }

    /// A sign of life, now.
    async fn beat(&mut self, clock: &mut Clock) {
        clock.0.0 += 1_000_000;
        let (clock, captured) = (clock.0, self.source.last());
        self.source.synchronise(clock);
        let talk = self.talk.as_mut().unwrap();
        let beat = Heartbeat { clock, captured };
        talk.control(&Control::Heartbeat(beat)).await;
    }

    /// The stamp after which the disk was as it is exported at this point.
    fn exported(&self, site: &Site, at: &str) -> Stamp {
        let volume = format!("pg/{}", self.volume);
        site.ok(&["volume", "export", &volume, "exported", "--at", at]);
        let image = site.image("exported");
        std::fs::remove_file(site.path("exported")).unwrap();
        let stamps = (0..=self.source.last().0).rev().map(Stamp);
        let mut found = stamps.filter(|stamp| self.source.image_at(*stamp) == image);
        found.next().expect("a state the disk was in")
    }
}

/// Two hosts, copied, both part of the group's points.
async fn begun(retain: &str) -> (Site, [Host; 2], Clock) {
    let site = Site::retaining(retain);
    site.add("pg/wal", "db2", "wal.img");
    let mut clock = Clock::begin();
    let one = Host::enrolled(&site, "db1", "data", 1).await;
    let other = Host::enrolled(&site, "db2", "wal", 2).await;
    let mut hosts = [one, other];
    for host in &mut hosts {
        clock.at(host, Source::copy);
        host.connect(&site).await;
        host.send_all().await;
    }
    for host in &mut hosts {
        host.beat(&mut clock).await;
    }
    site.eventually("both are part", || standings(&site) == ["part", "part"])
        .await;
    (site, hosts, clock)
}

fn standings(site: &Site) -> [String; 2] {
    let group = site.group();
    [0, 1].map(|at| {
        group["sources"][at]["standing"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    })
}

fn recoverable_to(site: &Site) -> String {
    site.group()["recoverable_to"]
        .as_str()
        .unwrap_or("")
        .to_owned()
}

/// A write at the second host after each one at the first had been answered, so many times; the
/// stamps of both.
fn ping_pong(clock: &mut Clock, hosts: &mut [Host; 2], count: usize) -> Vec<(Stamp, Stamp)> {
    let [one, other] = hosts;
    let pair = |at: usize| {
        let cause = clock.at(one, |source| source.write(at % BLOCKS));
        let effect = clock.at(other, |source| source.write(at % BLOCKS));
        (cause, effect)
    };
    (0..count).map(pair).collect()
}

/// At this point no effect is without its cause; says how many effects are there.
fn effects_at(site: &Site, hosts: &[Host; 2], pairs: &[(Stamp, Stamp)], at: &str) -> usize {
    let [causes, effects] = [0, 1].map(|host: usize| hosts[host].exported(site, at));
    for (cause, effect) in pairs {
        let caused = *effect > effects || *cause <= causes;
        assert!(
            caused,
            "{at}: {effect} is there, {cause} is not: {causes} {effects}"
        );
    }
    pairs
        .iter()
        .filter(|(_, effect)| *effect <= effects)
        .count()
}

#[test]
fn a_point_that_has_an_effect_at_one_host_has_its_cause_at_the_other() {
    run(async {
        let (mut site, mut hosts, mut clock) = begun("1h").await;
        let begin = clock.0;
        let pairs = ping_pong(&mut clock, &mut hosts, 30);
        // All effects are there, of their causes the first half.
        let (half, _) = pairs[14];
        hosts[1].send_all().await;
        hosts[1].beat(&mut clock).await;
        hosts[0].send(half, true).await;
        let there = iso_8601(hosts[0].source.records(half.prev(), half)[0].header.mark);
        site.eventually("half of it is a point", || recoverable_to(&site) == there)
            .await;
        let held = site.group()["held_by"].as_str().unwrap().to_owned();
        assert!(held.contains("source db1"), "{held}");
        assert_eq!(effects_at(&site, &hosts, &pairs, "newest"), 14);

        site.kill();
        site.start();
        site.eventually("the point is there again", || {
            recoverable_to(&site) == there
        })
        .await;
        assert_eq!(effects_at(&site, &hosts, &pairs, "newest"), 14);
        for host in &mut hosts {
            host.connect(&site).await;
        }
        hosts[0].send_all().await;
        hosts[0].beat(&mut clock).await;
        let last = pairs.len() - 1;
        site.eventually("all of it", || {
            recoverable_to(&site)
                >= iso_8601(
                    hosts[1].source.records(pairs[last].1.prev(), pairs[last].1)[0]
                        .header
                        .mark,
                )
        })
        .await;
        assert_eq!(effects_at(&site, &hosts, &pairs, "newest"), pairs.len());
        // Every time in between as well: each write takes a millisecond.
        for after_ms in [1, 2, 17, 30, 45] {
            let at = TimeMark(begin.0 + after_ms * 1_000_000);
            let effects = effects_at(&site, &hosts, &pairs, &iso_8601(at));
            assert_eq!(effects as u64, after_ms / 2);
        }
        let stamp = ["volume", "export", "pg/data", "f", "--at", "5"];
        let refused = site.command(&stamp).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(
            said.contains("name a time") && said.lines().count() == 1,
            "{said}"
        );
    });
}

#[test]
fn a_source_that_died_is_named_and_the_other_goes_on_when_it_is_detached() {
    run(async {
        let (mut site, mut hosts, mut clock) = begun("0s").await;
        ping_pong(&mut clock, &mut hosts, 5);
        for host in &mut hosts {
            host.send_all().await;
        }
        let settled = hosts[0].source.last();
        // Of the last ones the disk has not answered yet when the host is gone.
        clock.at(&mut hosts[0], |source| source.write(3));
        let last = hosts[0].source.last();
        hosts[0].send(last, false).await;
        hosts[0].talk = None;
        clock.at(&mut hosts[1], |source| source.write(7));
        hosts[1].send_all().await;
        hosts[1].beat(&mut clock).await;
        site.eventually("it is named", || {
            let held = site.group()["held_by"].clone();
            let held = held.as_str().unwrap_or_default();
            held.contains("source db1 is not connected") && held.contains("detach pg --source db1")
        })
        .await;
        let before = recoverable_to(&site);

        let detach = ["detach", "pg", "--source", "db1"];
        let asked = site.command(&detach).output().unwrap();
        let said = String::from_utf8(asked.stderr).unwrap();
        assert_eq!(asked.status.code(), Some(2), "{said}");
        assert!(
            said.contains("(data)") && said.contains("--confirm db1"),
            "{said}"
        );
        assert_eq!(recoverable_to(&site), before);
        site.ok(&[&detach[..], &["--confirm", "db1"]].concat());
        site.eventually("the other goes on", || recoverable_to(&site) > before)
            .await;
        let last = hosts[1].source.last();
        assert_eq!(hosts[1].exported(&site, "newest"), last);
        assert_eq!(hosts[0].exported(&site, "newest"), settled);
        let again = site.command(&[&detach[..], &["--confirm", "db1"]].concat());
        assert_eq!({ again }.output().unwrap().status.code(), Some(3));

        site.kill();
        site.start();
        assert_eq!(standings(&site), ["detached", "part"]);
        hosts[1].connect(&site).await;
        clock.at(&mut hosts[1], |source| source.write(8));
        hosts[1].send_all().await;
        let last = hosts[1].source.last();
        assert_eq!(hosts[1].exported(&site, "newest"), last);

        // It is back, and hears of it.
        hosts[0].connect(&site).await;
        let talk = hosts[0].talk.as_mut().unwrap();
        let wanted = |heard: &Control| match heard {
            Control::CopyWanted(wanted) => wanted.reason.contains("was detached"),
            _ => false,
        };
        talk.until_heard(wanted).await;
        clock.at(&mut hosts[0], Source::copy);
        hosts[0].send_all().await;
        for host in hosts.iter_mut().rev() {
            host.beat(&mut clock).await;
        }
        site.eventually("both are part", || standings(&site) == ["part", "part"])
            .await;
        hosts[0].beat(&mut clock).await;
        hosts[1].beat(&mut clock).await;
        let after = hosts[0].source.last();
        site.eventually("they are at one point", || {
            hosts[0].exported(&site, "newest") == after
        })
        .await;
        site.stop();
        assert!(site.image("data.img") == hosts[0].source.truth);
        assert!(site.image("wal.img") == hosts[1].source.truth);
    });
}

#[test]
fn a_source_whose_clock_is_far_off_is_named_and_its_marks_do_not_count() {
    run(async {
        let (site, mut hosts, mut clock) = begun("0s").await;
        for _ in 0..20 {
            // Sixteen heartbeats and more: the fastest of the last ones counts.
            let far = TimeMark(clock.0.0 + 600_000_000_000);
            hosts[1].source.synchronise(far);
            let beat = Heartbeat {
                clock: hosts[1].source.clock(),
                captured: hosts[1].source.last(),
            };
            let talk = hosts[1].talk.as_mut().unwrap();
            talk.control(&Control::Heartbeat(beat)).await;
            clock.0.0 += 1_000_000;
        }
        clock.at(&mut hosts[0], |source| source.write(1));
        hosts[0].send_all().await;
        site.eventually("the clock is named", || {
            let held = site.group()["held_by"].clone();
            let held = held.as_str().unwrap_or_default();
            held.contains("the clock of source db2 is") && held.contains("ahead of")
        })
        .await;
        let last = hosts[0].source.last();
        let written = hosts[0].source.records(last.prev(), last)[0].header.mark;
        assert!(recoverable_to(&site) < iso_8601(written));
    });
}
