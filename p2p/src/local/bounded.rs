//! What programs have open, so much at a time and no more.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, time::Duration};

/// What may be read.
pub(super) trait Readable {
    /// How long nobody has read it; `None` while somebody does.
    fn idle(&self) -> Option<Duration>;
}

/// What is open, by its name. Where there is no room for more, what nobody has read for the longest time is closed: who
/// comes back to it opens it again.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    open: HashMap<K, V>,
    most: usize,
}

/// All is being read: there is no room for more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<K: Eq + Hash + Clone, V: Readable> Bounded<K, V> {
    /// Nothing yet, and never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { open: HashMap::new(), most }
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, name: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.open.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.open.iter()
    }

    /// Opens something, in place of what had its name.
    pub(super) fn insert(&mut self, name: K, what: V) -> Result<(), Full> {
        if self.open.len() >= self.most && !self.open.contains_key(&name) {
            let unread = self.open.iter().filter_map(|(name, open)| Some((open.idle()?, name)));
            let (_, longest) = unread.max_by_key(|(idle, _)| *idle).ok_or(Full)?;
            let longest = longest.clone();
            self.open.remove(&longest);
        }
        self.open.insert(name, what);
        Ok(())
    }

    /// Closes what this is said of; gives how many.
    pub(super) fn close(&mut self, mut goes: impl FnMut(&K, &V) -> bool) -> usize {
        let before = self.open.len();
        self.open.retain(|name, open| !goes(name, open));
        before - self.open.len()
    }

    /// Closes what nobody has read for so long.
    pub(super) fn close_idle(&mut self, idle: Duration) {
        self.close(|_, open| open.idle().is_some_and(|for_so_long| for_so_long >= idle));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Idle for so many seconds, or being read.
    struct Open(Option<u64>);

    impl Readable for Open {
        fn idle(&self) -> Option<Duration> {
            self.0.map(Duration::from_secs)
        }
    }

    fn full_of(idle: [Option<u64>; 3]) -> Bounded<usize, Open> {
        let mut open = Bounded::new(3);
        for (name, idle) in idle.into_iter().enumerate() {
            open.insert(name, Open(idle)).unwrap();
        }
        open
    }

    fn names(open: &Bounded<usize, Open>) -> Vec<usize> {
        let mut names: Vec<_> = open.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn where_it_is_full_what_is_idle_longest_goes_and_never_what_is_read() {
        let mut open = full_of([None, Some(1), Some(2)]);
        open.insert(1, Open(Some(0))).unwrap();
        assert_eq!(names(&open), [0, 1, 2], "in place of itself it needs no room");
        open.insert(3, Open(None)).unwrap();
        assert_eq!(names(&open), [0, 1, 3]);
        open.insert(4, Open(None)).unwrap();
        assert_eq!(names(&open), [0, 3, 4]);
        assert_eq!(open.insert(5, Open(Some(0))), Err(Full));
        assert_eq!((names(&open), open.len()), (vec![0, 3, 4], 3));
    }

    #[test]
    fn what_is_idle_for_long_is_closed_though_there_is_room() {
        let mut open = full_of([None, Some(1), Some(2)]);
        open.close_idle(Duration::from_secs(2));
        assert_eq!(names(&open), [0, 1]);
    }
}
