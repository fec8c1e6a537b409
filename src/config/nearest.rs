//! "Did you mean": the known word that a mistyped one is nearest to.

use crate::config::problems::quote;

/// The known word that is nearest to `word`, if any is near enough to be a slip: one edit for short
/// words, a third of the letters for long ones (the figure that rustc uses for its suggestions).
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= near)
        .min()
        .map(|(_, candidate)| candidate)
}

pub(super) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(candidate) = nearest(word, known.clone()) {
        return format!("did you mean {}?", quote(candidate));
    }
    let all: Vec<_> = known.into_iter().map(quote).collect();
    format!("known here: {}.", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let keys = ["listen", "upstream", "allow"];
        assert_eq!(nearest("lisetn", keys), Some("listen"));
        assert_eq!(nearest("Upstreams", keys), Some("upstream"));
        assert_eq!(nearest("certificate", keys), None);
    }
}
