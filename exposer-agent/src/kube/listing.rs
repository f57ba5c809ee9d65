//! What one watch knows: a list that is renewed whole, and then kept up to date change by change.

use std::collections::BTreeMap;

use ::kube::runtime::watcher::Event;

/// The objects of one watch by key. While a list is being read, the one before it stays in force.
#[derive(Debug)]
pub struct Listing<T> {
    current: Option<BTreeMap<String, T>>,
    incoming: BTreeMap<String, T>,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self {
            current: None,
            incoming: BTreeMap::new(),
        }
    }
}

impl<T> Listing<T> {
    /// Whether a first list is complete.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.current.is_some()
    }

    /// The objects; none before the first list is complete.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.current.iter().flat_map(BTreeMap::values)
    }

    /// Takes one event in. `keep` gives an object's key, and of the object what is kept; nothing for one that does not
    /// matter, which is then treated as absent.
    pub fn apply<K>(&mut self, event: Event<K>, keep: impl Fn(K) -> (String, Option<T>)) {
        match event {
            Event::Init => self.incoming.clear(),
            Event::InitApply(object) => put(&mut self.incoming, keep(object)),
            // Whatever is not in the complete list was deleted while nobody watched.
            Event::InitDone => self.current = Some(std::mem::take(&mut self.incoming)),
            Event::Apply(object) => {
                // Changes follow a complete list; one that came earlier would belong to the list.
                put(self.current.as_mut().unwrap_or(&mut self.incoming), keep(object));
            }
            Event::Delete(object) => {
                let (key, _) = keep(object);
                if let Some(current) = &mut self.current {
                    current.remove(&key);
                }
            }
        }
    }
}

fn put<T>(map: &mut BTreeMap<String, T>, (key, object): (String, Option<T>)) {
    match object {
        Some(object) => map.insert(key, object),
        None => map.remove(&key),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(object: &'static str) -> (String, Option<&'static str>) {
        let (key, value) = object.split_once('=').unwrap();
        (key.to_owned(), (value != "ignored").then_some(value))
    }

    fn play(listing: &mut Listing<&'static str>, events: Vec<Event<&'static str>>) -> Vec<&'static str> {
        for event in events {
            listing.apply(event, keep);
        }
        listing.iter().copied().collect()
    }

    #[test]
    fn a_new_list_replaces_the_old_one_only_when_it_is_complete() {
        let mut listing = Listing::default();
        assert!(play(&mut listing, vec![Event::Init, Event::InitApply("a=1")]).is_empty());
        assert!(!listing.is_complete());
        let first = play(&mut listing, vec![Event::InitApply("b=2"), Event::InitDone]);
        assert_eq!(first, ["1", "2"]);
        // The second list breaks off and begins again: nothing of its first half may remain.
        let broken = vec![
            Event::Init,
            Event::InitApply("c=3"),
            Event::Init,
            Event::InitApply("b=4"),
        ];
        assert_eq!(play(&mut listing, broken), ["1", "2"]);
        assert_eq!(play(&mut listing, vec![Event::InitDone]), ["4"]);
    }

    #[test]
    fn changes_come_one_by_one_after_the_list() {
        let mut listing = Listing::default();
        play(
            &mut listing,
            vec![Event::Init, Event::InitApply("a=1"), Event::InitDone],
        );
        assert_eq!(play(&mut listing, vec![Event::Apply("b=2")]), ["1", "2"]);
        assert_eq!(play(&mut listing, vec![Event::Apply("b=3")]), ["1", "3"]);
        assert_eq!(play(&mut listing, vec![Event::Apply("a=ignored")]), ["3"]);
        assert!(play(&mut listing, vec![Event::Delete("b=3"), Event::Delete("x=9")]).is_empty());
    }
}
