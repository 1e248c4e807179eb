//! Turns and draws by weight.

/// Smooth weighted round robin, as nginx has it (its commit 52327e0627f4): in every turn each member gains its weight, and the
/// one that has most is chosen and loses the weight of all. `5, 1, 1` gives `a a b a c a a`.
///
/// Members of one weight gain alike, so that among them it is always the turn of the one that was chosen least: a turn costs
/// as much as there are different weights, not members.
#[derive(Debug)]
pub struct SmoothTurns {
    classes: Vec<Class>,
    total: i64,
}

#[derive(Debug)]
struct Class {
    weight: i64,
    members: Box<[u32]>,
    /// Whose turn it is among the members.
    next: usize,
    /// What each member has gained, those chosen in this round aside, who have lost `total` since.
    gained: i64,
}

impl SmoothTurns {
    /// Turns of members with these weights, by their index.
    pub fn new(weights: impl Iterator<Item = (usize, u32)>) -> Self {
        let mut weights: Vec<(i64, u32)> =
            weights.map(|(member, weight)| (i64::from(weight.max(1)), member as u32)).collect();
        let total = weights.iter().map(|(weight, _)| weight).sum();
        weights.sort_unstable();
        let classes = weights.chunk_by(|(one, _), (other, _)| one == other).map(|class| Class {
            weight: class[0].0,
            members: class.iter().map(|(_, member)| *member).collect(),
            next: 0,
            gained: 0,
        });
        SmoothTurns { classes: classes.collect(), total }
    }

    /// Whose turn it is; `None` of nobody.
    pub fn turn(&mut self) -> Option<usize> {
        let mut best: Option<usize> = None;
        for at in 0..self.classes.len() {
            self.classes[at].gained += self.classes[at].weight;
            let (class, before) = (&self.classes[at], best.map(|best| &self.classes[best]));
            // Of those who have as much, the first in the list.
            let better = before.is_none_or(|before| {
                class.gained > before.gained || class.gained == before.gained && class.head() < before.head()
            });
            if better {
                best = Some(at);
            }
        }
        let class = &mut self.classes[best?];
        let chosen = class.head();
        class.next += 1;
        if class.next == class.members.len() {
            class.next = 0;
            class.gained -= self.total;
        }
        Some(chosen as usize)
    }
}

impl SmoothTurns {
    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let members: usize = self.classes.iter().map(|class| class.members.len()).sum();
        self.classes.capacity() * size_of::<Class>() + members * size_of::<u32>()
    }
}

impl Class {
    fn head(&self) -> u32 {
        self.members[self.next]
    }
}

/// Draws by weight in constant time (Vose, "A linear algorithm for generating random numbers with a given distribution").
#[derive(Debug)]
pub struct Draws {
    /// For each slot who it is, from which number on it is the other, and who that is.
    slots: Box<[(u32, u32, u32)]>,
}

impl Draws {
    /// Draws of members with these weights, by their index.
    pub fn new(weights: &[(u32, u32)]) -> Self {
        let total: u64 = weights.iter().map(|(_, weight)| u64::from((*weight).max(1))).sum();
        let count = weights.len() as u64;
        // Shares as multiples of 1/count of all: exact in integers.
        let mut shares: Vec<u64> = weights.iter().map(|(_, weight)| u64::from((*weight).max(1)) * count).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|at| shares[*at] < total);
        let whole = |at: usize| (weights[at].0, u32::MAX, weights[at].0);
        let mut slots: Vec<_> = (0..weights.len()).map(whole).collect();
        while let (Some(less), Some(more)) = (poor.pop(), rich.pop()) {
            let until = (u128::from(shares[less]) << 32) / u128::from(total);
            slots[less] = (weights[less].0, until as u32, weights[more].0);
            shares[more] -= total - shares[less];
            if shares[more] < total { poor.push(more) } else { rich.push(more) }
        }
        Draws { slots: slots.into() }
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<(u32, u32, u32)>()
    }

    /// Who is drawn; there must be somebody.
    pub fn draw(&self, random: u64) -> usize {
        let slot = (u128::from(random) * self.slots.len() as u128) >> 64;
        let (member, until, other) = self.slots[slot as usize];
        // The lower bits are as good as independent of the upper ones that chose the slot.
        (if (random as u32) < until { member } else { other }) as usize
    }
}
