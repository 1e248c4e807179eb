//! Maglev hashing (Eisenbud and others, NSDI 2016, section 3.4): a table whose slots the endpoints take in turn, each in an order of
//! its own. All have the same share to a slot; an endpoint that comes or goes moves its own keys and few others.

use super::hash::{hash, hash_seeded};

/// The table.
#[derive(Debug, PartialEq, Eq)]
pub struct Maglev(Slots);

/// Slots as narrow as the number of members allows.
#[derive(Debug, PartialEq, Eq)]
enum Slots {
    Narrow(Box<[u8]>),
    Wide(Box<[u16]>),
    Widest(Box<[u32]>),
}

/// A size that is not a prime number: orders would not reach every slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} slots: a Maglev table has a prime number of slots")]
pub struct NotPrime(pub u32);

/// The order in which a member asks for slots.
struct Order {
    next: u64,
    skip: u64,
    /// The turn in which it may take a slot again, in units of its weight.
    due: u64,
    weight: u64,
}

impl Maglev {
    /// A table of members with names and weights: the heaviest takes a slot in every turn, others as often as they weigh.
    ///
    /// # Errors
    /// [`NotPrime`].
    pub fn build<'a>(members: impl ExactSizeIterator<Item = (&'a str, u32)>, size: u32) -> Result<Self, NotPrime> {
        if !is_prime(size) {
            return Err(NotPrime(size));
        }
        let slots = u64::from(size);
        let orders = members.map(|(name, weight)| Order {
            next: hash(name.as_bytes()) % slots,
            skip: hash_seeded(name.as_bytes(), 1) % (slots - 1).max(1) + 1,
            due: 0,
            weight: u64::from(weight.max(1)),
        });
        let mut orders: Vec<Order> = orders.collect();
        let heaviest = orders.iter().map(|order| order.weight).max().unwrap_or(1);
        let free = u32::MAX;
        let mut taken = vec![free; size as usize];
        let mut left = if orders.is_empty() { 0 } else { taken.len() };
        for turn in 1u64.. {
            for (member, order) in orders.iter_mut().enumerate() {
                if left == 0 {
                    return Ok(Maglev(Slots::new(taken, orders.len())));
                }
                if turn * order.weight < order.due {
                    continue;
                }
                order.due += heaviest;
                while taken[order.next as usize] != free {
                    order.next = (order.next + order.skip) % slots;
                }
                taken[order.next as usize] = member as u32;
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        Ok(Maglev(Slots::new(taken, orders.len())))
    }

    /// The members from a place on, once around.
    pub fn from(&self, place: u64) -> impl Iterator<Item = usize> {
        let size = self.0.len();
        let first = (place % size as u64) as usize;
        (first..size).chain(0..first).map(|slot| self.0.at(slot))
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        let each = match self.0 {
            Slots::Narrow(_) => 1,
            Slots::Wide(_) => 2,
            Slots::Widest(_) => 4,
        };
        size_of::<Self>() + self.0.len() * each
    }
}

impl Slots {
    fn new(taken: Vec<u32>, members: usize) -> Self {
        if members <= 1 << u8::BITS {
            Slots::Narrow(taken.iter().map(|member| *member as u8).collect())
        } else if members <= 1 << u16::BITS {
            Slots::Wide(taken.iter().map(|member| *member as u16).collect())
        } else {
            Slots::Widest(taken.into())
        }
    }

    fn len(&self) -> usize {
        match self {
            Slots::Narrow(slots) => slots.len(),
            Slots::Wide(slots) => slots.len(),
            Slots::Widest(slots) => slots.len(),
        }
    }

    fn at(&self, slot: usize) -> usize {
        match self {
            Slots::Narrow(slots) => usize::from(slots[slot]),
            Slots::Wide(slots) => usize::from(slots[slot]),
            Slots::Widest(slots) => slots[slot] as usize,
        }
    }
}

fn is_prime(number: u32) -> bool {
    let divides = |divisor: u32| number.is_multiple_of(divisor);
    number >= 2 && !(2..).take_while(|divisor| divisor * divisor <= number).any(divides)
}
