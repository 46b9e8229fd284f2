//! Errors in logs and answers, where only text goes.

/// An error with its causes, in one line. A cause that says the same as what it caused is told once.
#[must_use]
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |cause| cause.source());
    let mut told: Vec<String> = all.map(ToString::to_string).collect();
    told.dedup();
    told.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_is_told_once() {
        let error = anyhow::anyhow!("no such file").context("no such file").context("connect");
        assert_eq!(in_one_line(error.as_ref()), "connect: no such file");
    }

    #[test]
    fn causes_follow_what_they_caused() {
        let error = anyhow::anyhow!("the disk is full").context("write the map").context("keep a piece");
        assert_eq!(in_one_line(error.as_ref()), "keep a piece: write the map: the disk is full");
    }
}
