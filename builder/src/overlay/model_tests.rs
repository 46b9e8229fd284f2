//! Random layers, merged and compared with a model that knows nothing of trees: paths and owners.

use std::collections::BTreeMap;

use super::tests::{layer, list, merge};
use super::{Rules, tests::DIRECTORY};
use crate::source::EntryKind;

/// What a path is in the model: whether a directory, and its owner.
type Model = BTreeMap<String, (bool, u32)>;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn name(&mut self) -> String {
        ["a", "b", "c"][usize::try_from(self.below(3)).unwrap()].to_owned()
    }
}

/// Entries by path: whether a directory. Whiteouts are files.
fn random_layer(random: &mut Random) -> BTreeMap<String, bool> {
    let mut entries = BTreeMap::new();
    for _ in 0..1 + random.below(8) {
        let mut path: Vec<_> = (0..1 + random.below(3)).map(|_| random.name()).collect();
        let is_directory = match random.below(8) {
            0 | 1 => {
                let last = path.last_mut().unwrap();
                *last = format!(".wh.{last}");
                false
            }
            2 => {
                path.push(".wh..wh..opq".into());
                false
            }
            n => n < 5,
        };
        entries.insert(path.join("/"), is_directory);
    }
    // Nothing can stand below a file of the same layer.
    let files: Vec<_> =
        entries.iter().filter(|(_, is_directory)| !**is_directory).map(|(path, _)| path.clone()).collect();
    entries.retain(|path, _| !files.iter().any(|file| path.starts_with(&format!("{file}/"))));
    entries
}

fn remove(model: &mut Model, path: &str, itself: bool) {
    let below = format!("{path}/");
    model.retain(|other, _| !(other.starts_with(&below) || itself && other == path));
}

fn apply(model: &mut Model, entries: &BTreeMap<String, bool>, owner: u32) {
    let split = |path: &str| {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (parent.to_owned(), name.to_owned())
    };
    for path in entries.keys() {
        let (parent, name) = split(path);
        match name.strip_prefix(".wh.") {
            Some(".wh..opq") => remove(model, &parent, false),
            Some(hidden) => remove(model, format!("{parent}/{hidden}").trim_start_matches('/'), true),
            None => {}
        }
    }
    for (path, is_directory) in entries {
        let parts: Vec<_> = path.split('/').collect();
        for end in 1..parts.len() {
            let ancestor = parts[..end].join("/");
            if !model.get(&ancestor).is_some_and(|(is_directory, _)| *is_directory) {
                model.insert(ancestor, (true, 0));
            }
        }
        if split(path).1.starts_with(".wh.") {
            continue;
        }
        if !is_directory {
            remove(model, path, true);
        }
        model.insert(path.clone(), (*is_directory, owner));
    }
}

#[test]
fn random_layers_merge_to_what_a_plain_model_says() {
    let mut random = Random(0x5eed);
    for round in 0..3000 {
        let mut model = Model::new();
        let mut layers = Vec::new();
        let mut shown = Vec::new();
        for number in 1..=1 + u32::try_from(random.below(4)).unwrap() {
            let entries = random_layer(&mut random);
            apply(&mut model, &entries, number);
            let kind = |is_directory: bool| if is_directory { DIRECTORY } else { EntryKind::File(0) };
            let list: Vec<_> = entries.iter().map(|(path, is)| (path.as_str(), kind(*is))).collect();
            layers.push(layer(number, &list));
            shown.push(entries.clone());
        }
        let expected: Vec<_> = {
            let mut all: Vec<_> = model.iter().map(|(path, (_, owner))| format!("/{path} {owner}")).collect();
            all.sort();
            all
        };
        assert_eq!(list(&merge(Rules::Nydus, layers)), expected, "round {round}: {shown:?}");
    }
}
