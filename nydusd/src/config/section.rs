//! One object of a JSON configuration, taken apart key by key; what is left over is unknown.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no JSON object.
    #[error("the configuration is no JSON object")]
    Syntax(#[source] serde_json::Error),
    /// A key has a wrong value.
    #[error("configuration key {key}: {problem}")]
    Key {
        /// The key with those above it.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A key that must be there is not.
    #[error("configuration key {key} is missing")]
    Missing {
        /// The key with those above it.
        key: String,
    },
}

/// An object and its place in the whole.
pub(super) struct Section {
    path: String,
    keys: Map<String, Value>,
}

impl Section {
    pub(super) fn root(text: &str) -> Result<Self, ConfigError> {
        let keys = serde_json::from_str(text).map_err(ConfigError::Syntax)?;
        Ok(Self { path: String::new(), keys })
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn wrong(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Key { key: self.key(key), problem: problem.into() }
    }

    /// The value of `key`; `None` where it is absent or null.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, ConfigError> {
        match self.keys.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| ConfigError::Key { key: self.key(key), problem: error.to_string() }),
        }
    }

    /// The value of a key that must be there.
    pub(super) fn need<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, ConfigError> {
        self.take(key)?.ok_or_else(|| ConfigError::Missing { key: self.key(key) })
    }

    /// The text of `key`; `None` where it is absent, null or empty.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.take::<String>(key)?.filter(|text| !text.is_empty()))
    }

    /// The object of `key`, empty where it is absent.
    pub(super) fn section(&mut self, key: &str) -> Result<Self, ConfigError> {
        let keys = self.take(key)?.unwrap_or_default();
        Ok(Self { path: self.key(key), keys })
    }

    /// Names what is left over, except `accepted`, keys of the original that make no difference here, and keys whose
    /// value says nothing.
    pub(super) fn finish(self, accepted: &[&str], unknown: &mut Vec<String>) {
        let left = self.keys.iter().filter(|(key, value)| !accepted.contains(&key.as_str()) && says(value));
        unknown.extend(left.map(|(key, _)| self.key(key)));
    }
}

/// Whether a value wants something: files that programs write hold every key, most of them empty.
fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => values.iter().any(says),
        Value::Object(keys) => keys.values().any(says),
    }
}
