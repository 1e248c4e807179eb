//! Consistent hashing on a ring (Karger and others, 1997): every endpoint has points on it, and a request goes to the next point.
//! How many points an endpoint has does not depend on how many endpoints there are, so that one which comes or goes takes or gives
//! its own keys only.

use super::hash::hash;

/// Points per endpoint, on average, that weights may ask for: what bounds the memory of a ring.
const MOST_POINTS: u64 = 128;

/// Points in the order of the ring. Hashes are even, so that the upper bits of one say nearly where it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Ring {
    hashes: Box<[u64]>,
    members: Box<[u32]>,
    /// For each value of the upper bits the first point that has it or more.
    starts: Box<[u32]>,
    shift: u32,
}

impl Ring {
    /// A ring of members with names and weights; the lightest gets `points`, others more by their weights.
    pub fn build<'a>(members: impl ExactSizeIterator<Item = (&'a str, u32)> + Clone, points: u32) -> Self {
        let lightest = members.clone().map(|(_, weight)| weight.max(1)).min().unwrap_or(1);
        let total: u64 = members.clone().map(|(_, weight)| u64::from(weight.max(1))).sum();
        // Where weights differ by much, points of all are fewer.
        let least = u64::from(points.max(1));
        let asked = (u128::from(total) * u128::from(least)).div_ceil(u128::from(lightest));
        let most = u128::from(MOST_POINTS.max(least)) * members.len() as u128;
        let mut placed: Vec<(u64, u32)> = Vec::with_capacity(asked.min(most) as usize + members.len());
        let mut key = String::new();
        for (member, (name, weight)) in members.enumerate() {
            let wanted = u128::from(weight.max(1)) * u128::from(least);
            let wanted = match asked > most {
                true => wanted * most / asked / u128::from(lightest),
                false => wanted / u128::from(lightest),
            };
            for point in 0..wanted.max(1) {
                key.clear();
                key.push_str(name);
                key.push('_');
                key.push_str(itoa::Buffer::new().format(point));
                placed.push((hash(key.as_bytes()), member as u32));
            }
        }
        let buckets = (placed.len() / 4).max(1).next_power_of_two();
        let shift = u64::BITS - buckets.trailing_zeros();
        let (starts, sorted) = sorted(&placed, buckets, |hash| bucket(hash, shift));
        let (hashes, members): (Vec<_>, Vec<_>) = sorted.into_iter().unzip();
        Ring { hashes: hashes.into(), members: members.into(), starts: starts.into(), shift }
    }

    /// The members from a place on, once around, again and again as they have points.
    pub fn from(&self, place: u64) -> impl Iterator<Item = usize> {
        let mut at = self.starts[bucket(place, self.shift)] as usize;
        while self.hashes.get(at).is_some_and(|hash| *hash < place) {
            at += 1;
        }
        let (before, after) = self.members.split_at(at);
        after.iter().chain(before).map(|member| *member as usize)
    }

    /// Points with their members.
    #[cfg(test)]
    pub(super) fn points(&self) -> impl Iterator<Item = (u64, usize)> {
        self.hashes.iter().zip(&self.members).map(|(hash, member)| (*hash, *member as usize))
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.hashes.len() * (size_of::<u64>() + size_of::<u32>()) + self.starts.len() * 4
    }
}

/// With one bucket everything is shifted out.
fn bucket(hash: u64, shift: u32) -> usize {
    hash.checked_shr(shift).unwrap_or(0) as usize
}

/// Where each bucket begins, and the points in order. Hashes are even, so that a bucket has a few: this makes building a ring
/// of a thousand endpoints take 6 ms, where sorting all points at once makes it 10.
fn sorted(points: &[(u64, u32)], buckets: usize, bucket: impl Fn(u64) -> usize) -> (Vec<u32>, Vec<(u64, u32)>) {
    let mut ends = vec![0_u32; buckets];
    points.iter().for_each(|(hash, _)| ends[bucket(*hash)] += 1);
    let mut sum = 0;
    for end in &mut ends {
        sum += *end;
        *end = sum;
    }
    let mut sorted = vec![(0, 0); points.len()];
    let mut starts = ends.clone();
    for point in points {
        let start = &mut starts[bucket(point.0)];
        *start -= 1;
        sorted[*start as usize] = *point;
    }
    for (start, end) in starts.iter().zip(&ends) {
        sorted[*start as usize..*end as usize].sort_unstable();
    }
    (starts, sorted)
}
