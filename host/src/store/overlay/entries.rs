//! Entries by key, of which there is nearly always one or a handful, and sometimes any number.

use std::collections::btree_map::{self, BTreeMap};
use std::ops::Bound;
use std::slice;

/// So many lie in a sorted list; with more it is a tree, whose smallest node has room for eleven.
const FEW: usize = 8;

/// A map from keys in their order.
pub(super) enum Entries<T> {
    Few(Vec<(Box<str>, T)>),
    Many(BTreeMap<Box<str>, T>),
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<T> Entries<T> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&T> {
        match self {
            Self::Few(few) => few.get(place(few, key).ok()?).map(|(_, value)| value),
            Self::Many(many) => many.get(key),
        }
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        match self {
            Self::Few(few) => {
                let place = place(few, key).ok()?;
                few.get_mut(place).map(|(_, value)| value)
            }
            Self::Many(many) => many.get_mut(key),
        }
    }

    /// Gives the value that was there.
    pub(super) fn insert(&mut self, key: Box<str>, value: T) -> Option<T> {
        match self {
            Self::Few(few) => match place(few, &key) {
                Ok(place) => few.get_mut(place).map(|(_, known)| std::mem::replace(known, value)),
                Err(place) if few.len() < FEW => {
                    if few.is_empty() {
                        // One is what most have; a list that grows by itself begins with four.
                        few.reserve_exact(1);
                    }
                    few.insert(place, (key, value));
                    None
                }
                Err(_) => {
                    let mut many: BTreeMap<_, _> = std::mem::take(few).into_iter().collect();
                    many.insert(key, value);
                    *self = Self::Many(many);
                    None
                }
            },
            Self::Many(many) => many.insert(key, value),
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<T> {
        match self {
            Self::Few(few) => place(few, key).ok().map(|place| few.remove(place).1),
            Self::Many(many) => many.remove(key),
        }
    }

    /// In order, from this key on.
    pub(super) fn range(&self, from: Bound<&str>) -> Range<'_, T> {
        match self {
            Self::Few(few) => {
                let before = few.partition_point(|(key, _)| match from {
                    Bound::Included(from) => **key < *from,
                    Bound::Excluded(from) => **key <= *from,
                    Bound::Unbounded => false,
                });
                Range::Few(few.get(before..).unwrap_or_default().iter())
            }
            Self::Many(many) => Range::Many(many.range::<str, _>((from, Bound::Unbounded))),
        }
    }
}

fn place<T>(few: &[(Box<str>, T)], key: &str) -> Result<usize, usize> {
    few.binary_search_by(|(known, _)| (**known).cmp(key))
}

/// See [`Entries::range`].
pub(super) enum Range<'a, T> {
    Few(slice::Iter<'a, (Box<str>, T)>),
    Many(btree_map::Range<'a, Box<str>, T>),
}

impl<'a, T> Iterator for Range<'a, T> {
    type Item = (&'a str, &'a T);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(key, value)| (key.as_ref(), value)),
            Self::Many(many) => many.next().map(|(key, value)| (key.as_ref(), value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_a_plain_map(steps in prop::collection::vec((any::<bool>(), 0_u8..20, any::<u32>()), 0..80)) {
            let (mut entries, mut map) = (Entries::default(), BTreeMap::new());
            for (inserted, key, value) in steps {
                let key: Box<str> = format!("{key:02}").into();
                if inserted {
                    prop_assert_eq!(entries.insert(key.clone(), value), map.insert(key.clone(), value));
                } else {
                    prop_assert_eq!(entries.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(entries.get(&key), map.get(&key));
                prop_assert_eq!(entries.get_mut(&key), map.get_mut(&key));
                prop_assert_eq!(entries.is_empty(), map.is_empty());
                for from in [Bound::Unbounded, Bound::Included(&*key), Bound::Excluded(&*key)] {
                    let wanted = map.range::<str, _>((from, Bound::Unbounded)).map(|(key, value)| (&**key, value));
                    prop_assert!(entries.range(from).eq(wanted), "from {from:?}");
                }
            }
        }
    }
}
