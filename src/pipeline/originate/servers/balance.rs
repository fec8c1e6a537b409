//! Chooses the endpoint of a stream. Pure: the candidates and the random numbers are passed in.

use fastrand::Rng;

use crate::config::values::Strategy;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Index in the set; [`RoundRobin`] keeps its credit under it.
    pub(crate) place: usize,
    /// Only candidates of the lowest tier are chosen.
    pub(crate) tier: (u32, u16),
    /// At least 1.
    pub(crate) weight: u32,
    pub(crate) load: usize,
}

/// `None` if there is no candidate.
pub(crate) fn choose(
    strategy: Strategy,
    candidates: &[Candidate],
    round_robin: &mut RoundRobin,
    chance: &mut Rng,
) -> Option<Candidate> {
    let tier = candidates.iter().map(|candidate| candidate.tier).min()?;
    let within: Vec<_> = candidates.iter().filter(|candidate| candidate.tier == tier).copied().collect();
    match strategy {
        Strategy::RoundRobin => round_robin.next(&within),
        // Under `priority` a tier is one server; its addresses share the streams as those of any other.
        Strategy::LeastConnections | Strategy::Priority => less_loaded_of_two(&within, chance),
    }
}

/// Two are drawn in proportion to their weights; the one with fewer streams for its weight wins, the first of
/// equals. To compare two of many is nearly as even as to compare all, and streams that choose at the same moment
/// do not all choose the same (Mitzenmacher, "The power of two choices in randomized load balancing"). While there
/// are no streams, the draw alone gives each its share.
fn less_loaded_of_two(candidates: &[Candidate], chance: &mut Rng) -> Option<Candidate> {
    let first = draw(candidates, chance)?;
    let others: Vec<_> = candidates.iter().filter(|other| other.place != first.place).copied().collect();
    let Some(second) = draw(&others, chance) else { return Some(first) };
    // load / weight, without the division.
    let burden = |of: Candidate, against: Candidate| of.load as u128 * u128::from(against.weight);
    Some(if burden(second, first) < burden(first, second) { second } else { first })
}

fn draw(candidates: &[Candidate], chance: &mut Rng) -> Option<Candidate> {
    let total: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
    if total == 0 {
        return candidates.first().copied();
    }
    let mut ticket = chance.u64(..total);
    for candidate in candidates {
        match ticket.checked_sub(candidate.weight.into()) {
            Some(rest) => ticket = rest,
            None => return Some(*candidate),
        }
    }
    None
}

/// Choices in proportion to weights, spread evenly: each time every candidate gains its weight as credit; the one with
/// the most credit is chosen and pays the sum (nginx's smooth weighted round robin).
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    credit: Vec<i64>,
}

impl RoundRobin {
    fn next(&mut self, candidates: &[Candidate]) -> Option<Candidate> {
        let places = candidates.iter().map(|candidate| candidate.place + 1).max()?;
        self.credit.resize(self.credit.len().max(places), 0);
        let mut total = 0;
        for candidate in candidates {
            self.credit[candidate.place] += i64::from(candidate.weight);
            total += i64::from(candidate.weight);
        }
        // Of equals the first in the list, so that a cycle begins with it.
        let first = candidates.iter().rev().max_by_key(|candidate| self.credit[candidate.place])?;
        self.credit[first.place] -= total;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy as Generator, any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const STRATEGIES: [Strategy; 3] = [Strategy::LeastConnections, Strategy::RoundRobin, Strategy::Priority];

    fn candidates() -> impl Generator<Value = Vec<Candidate>> {
        let one = (0..3u32, 1..20u32, 0..50usize);
        vec(one, 1..12).prop_map(|parts| {
            let one = |(place, (tier, weight, load))| Candidate { place, tier: (tier, 0), weight, load };
            parts.into_iter().enumerate().map(one).collect()
        })
    }

    proptest! {
        #[test]
        fn one_of_the_lowest_tier_is_chosen(candidates in candidates(), seed in any::<u64>()) {
            let lowest = candidates.iter().map(|candidate| candidate.tier).min().unwrap();
            for strategy in STRATEGIES {
                let chosen = choose(strategy, &candidates, &mut RoundRobin::default(), &mut Rng::with_seed(seed)).unwrap();
                prop_assert!(candidates.contains(&chosen));
                prop_assert_eq!(chosen.tier, lowest);
            }
        }

        #[test]
        fn turns_are_exactly_in_proportion_to_weights(weights in vec(1..9u32, 1..8)) {
            let one = |(place, weight): (usize, &u32)| Candidate { place, tier: (0, 0), weight: *weight, load: 0 };
            let candidates: Vec<_> = weights.iter().enumerate().map(one).collect();
            let mut round_robin = RoundRobin::default();
            let mut turns = vec![0; weights.len()];
            for _ in 0..weights.iter().sum::<u32>() {
                turns[round_robin.next(&candidates).unwrap().place] += 1;
            }
            prop_assert_eq!(turns, weights);
        }

        #[test]
        fn of_two_the_one_with_fewer_streams_for_its_weight_is_chosen(
            weights in (1..9u32, 1..9u32), loads in (0..99usize, 0..99usize), seed in any::<u64>(),
        ) {
            let a = Candidate { place: 0, tier: (0, 0), weight: weights.0, load: loads.0 };
            let b = Candidate { place: 1, tier: (0, 0), weight: weights.1, load: loads.1 };
            let chosen = less_loaded_of_two(&[a, b], &mut Rng::with_seed(seed)).unwrap();
            let burden = |candidate: Candidate| candidate.load as f64 / f64::from(candidate.weight);
            prop_assert!(burden(chosen) <= burden(a).min(burden(b)) + 1e-9);
        }
    }

    #[test]
    fn nobody_is_chosen_of_nobody() {
        for strategy in STRATEGIES {
            assert_eq!(choose(strategy, &[], &mut RoundRobin::default(), &mut Rng::new()), None);
        }
    }

    #[test]
    fn streams_that_stay_end_up_in_proportion_to_weights() {
        let mut loads = [0usize; 3];
        let weights = [1, 2, 5];
        let mut chance = Rng::with_seed(7);
        for _ in 0..800 {
            let one = |place| Candidate { place, tier: (0, 0), weight: weights[place], load: loads[place] };
            let candidates: Vec<_> = (0..3).map(one).collect();
            loads[less_loaded_of_two(&candidates, &mut chance).unwrap().place] += 1;
        }
        for (load, wanted) in loads.iter().zip([100, 200, 500]) {
            assert!(load.abs_diff(wanted) <= wanted / 10, "{loads:?}");
        }
    }
}
