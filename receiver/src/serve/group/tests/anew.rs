//! A volume that was removed and is registered again: what was before is none of its own.

use super::World;
use super::site::{BLOCKS, Kept, name};
use super::window::windowed;
use crate::serve::group::Event;

/// The points of many records are retained; the second volume was copied after the first, and is
/// registered anew.
fn registered_anew() -> World {
    let mut world = windowed(7, 1000);
    world.dial();
    for volume in [1, 0] {
        for _ in 0..BLOCKS + 2 {
            world.source.copy(volume);
            world.flow();
        }
    }
    assert!(world.site.group.points.counts(&name(0)));
    world.site.tell(Event::Removing(name(0)));
    world.rest();
    world.exchange();
    world
}

#[test]
fn a_volume_that_is_registered_anew_takes_nothing_of_the_one_before() {
    let mut world = registered_anew();
    let nothing = |world: &World| {
        let group = &world.site.group;
        let point = group.points.point().unwrap();
        assert!(!group.points.counts(&name(0)) && !group.is_in(&name(0), point));
        let empty = Kept::fresh().base[0];
        assert_eq!(world.site.image_at(point)[0], empty);
    };
    nothing(&world);
    world.restart();
    nothing(&world);
    world.dial();
    nothing(&world);
    // It is copied again, while the points of the other one go on.
    world.source.copy(0);
    world.source.write(1, 1, false);
    world.flow();
    let before = world.site.group.points.point();
    world.restart();
    assert_eq!(world.site.group.points.point(), before, "none goes back");
    nothing(&world);
    world.dial();
    world.copy_all();
    assert!(world.site.group.points.counts(&name(0)));
    world.check("copied again");
}
