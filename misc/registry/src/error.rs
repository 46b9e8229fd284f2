//! What can go wrong with a registry.

/// A failed exchange: which host, which thing, why.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A text that is no image reference.
    #[error("{text:?} is not an image reference: {problem}")]
    Reference {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}
