//! Errors in logs and answers, where only text goes.

/// An error with its causes, in one line.
#[must_use]
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_what_they_caused() {
        let error = anyhow::anyhow!("the disk is full").context("write the map").context("keep a piece");
        assert_eq!(in_one_line(error.as_ref()), "keep a piece: write the map: the disk is full");
    }
}
