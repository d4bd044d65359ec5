//! What is wrong with an image, in words.

use super::{Asked, Bounds, History, Images, Moment, NEVER};
use sim::oracle::{GARBAGE, INITIAL, ZERO};

impl History {
    /// What is wrong, by the moment the images come closest to.
    pub(super) fn words(&self, images: &Images, agreeing: &[u32], bounds: Bounds) -> String {
        let high = bounds.high.min(self.now) as usize;
        let within = bounds.low as usize..(high + 1).max(bounds.low as usize);
        let best = within.max_by_key(|moment| agreeing.get(*moment).copied());
        let Some(best) = best else {
            return format!("P4: no moment from {} to {}", bounds.low, bounds.high);
        };
        let overall = agreeing.iter().max().copied().unwrap_or(0);
        let nearest = agreeing.iter().rposition(|count| *count == overall);
        let mut lines = vec![format!(
            "P4: no moment from {} to {} (now {}); closest is {best} with {} sectors agreeing, of all \
             moments {} with {overall}",
            bounds.low,
            bounds.high,
            self.now,
            agreeing.get(best).copied().unwrap_or(0),
            nearest.unwrap_or(0)
        )];
        lines.extend(self.differences(images, best as Moment).take(12));
        if let Some(torn) = self.torn_at(images, best as Moment) {
            let Asked { extent, at, .. } = &self.asked[torn];
            let words = format!("change {torn} of {extent:?}, asked at {at}, is there in part");
            lines.push(words);
        }
        lines.join("\n  ")
    }

    /// The sectors that do not agree with a moment, in words.
    fn differences(&self, images: &Images, moment: Moment) -> impl Iterator<Item = String> {
        let sectors = images.iter().flat_map(|(volume, image)| {
            let sectors = image.iter().enumerate();
            sectors.map(|(sector, content)| (*volume, sector, *content))
        });
        sectors.filter_map(move |(volume, sector, content)| {
            let changes = &self.volumes[volume].changes[sector];
            let nth = changes
                .partition_point(|change| self.asked[*change as usize].at <= moment)
                .saturating_sub(1);
            let older = (0..=nth).rev();
            let mut legal = older.take_while(|nth| self.until(changes, *nth) >= moment);
            let is_legal =
                legal.any(|nth| self.asked[changes[nth] as usize].content == content);
            (!is_legal).then(|| {
                let change = changes[nth] as usize;
                let Asked { at, answered, .. } = &self.asked[change];
                let answered = match *answered {
                    NEVER => "never".into(),
                    answered => answered.to_string(),
                };
                format!(
                    "{volume}/{sector} has {}, last was change {change} ({}), asked at {at}, answered {answered}",
                    self.told(content),
                    shown(self.asked[change].content),
                )
            })
        })
    }

    /// A content in words, with its times if it is a change's.
    fn told(&self, content: u64) -> String {
        let known = usize::try_from(content).ok();
        match known.filter(|change| (2..self.asked.len()).contains(change)) {
            Some(change) => format!("{} asked at {}", shown(content), self.asked[change].at),
            None => shown(content),
        }
    }
}

pub(super) fn shown(content: u64) -> String {
    match content {
        ZERO => "zeroes".into(),
        INITIAL => "what was there before".into(),
        GARBAGE => "garbage".into(),
        change => format!("change {change}"),
    }
}
