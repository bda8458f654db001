//! Which steps come before which others: many questions over one graph without circles, answered together.
//!
//! Nearly all are answered at once: a step needs another directly, or stands below it in a tree that takes the last
//! need of every step. What is left takes one pass over the steps for every 128 sources, never a walk for each
//! question. Only `graph` uses it.

/// Sources that one pass follows: the bits of a mark.
const SOURCES_PER_PASS: usize = 128;

/// A graph without circles, numbered so that every step has a higher rank than all that it needs.
#[derive(Debug)]
pub struct Upstream {
    /// The rank of every step.
    rank: Vec<usize>,
    /// Where the needs of each rank begin in `needs`; one more at the end.
    starts: Vec<usize>,
    /// Ranks of needed steps, ascending for each needing step.
    needs: Vec<usize>,
    /// The numbers that belong to the part of the tree below each rank, itself first: start and length.
    below: Vec<(usize, usize)>,
}

/// A question that the tree cannot answer: two ranks, and where the answer goes.
type Open = (usize, usize, usize);

impl Upstream {
    /// From all steps in an order in which they could run, and the edges as (needing, needed).
    pub fn new(order: &[usize], edges: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut rank = vec![0; order.len()];
        for (at, &step) in order.iter().enumerate() {
            rank[step] = at;
        }
        let mut ranked: Vec<(usize, usize)> = edges.map(|(needing, needed)| (rank[needing], rank[needed])).collect();
        ranked.sort_unstable();
        let mut starts = vec![0; order.len() + 1];
        for (needing, _) in &ranked {
            starts[needing + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let needs = ranked.into_iter().map(|(_, needed)| needed).collect();
        let mut graph = Self { rank, starts, needs, below: Vec::new() };
        graph.below = graph.tree();
        graph
    }

    /// Numbers the tree in which each step hangs below the last of its needs, so that a part of it is a range.
    fn tree(&self) -> Vec<(usize, usize)> {
        let parent = |at: usize| self.needs_of(at).last().copied();
        let mut below = vec![(0, 1); self.rank.len()];
        for at in (0..below.len()).rev() {
            if let Some(parent) = parent(at) {
                below[parent].1 += below[at].1;
            }
        }
        let mut free_root = 0;
        let mut free = vec![0; below.len()];
        for at in 0..below.len() {
            let place = parent(at).map_or(&mut free_root, |parent| &mut free[parent]);
            below[at].0 = *place;
            *place += below[at].1;
            free[at] = below[at].0 + 1;
        }
        below
    }

    fn needs_of(&self, at: usize) -> &[usize] {
        &self.needs[self.starts[at]..self.starts[at + 1]]
    }

    /// For each pair of steps whether the first always comes before the second, and how many steps were visited.
    pub fn answer(&self, pairs: &[(usize, usize)]) -> (Vec<bool>, usize) {
        let mut answers = vec![false; pairs.len()];
        let mut open: Vec<Open> = Vec::new();
        for (place, &(before, after)) in pairs.iter().enumerate() {
            let (before, after) = (self.rank[before], self.rank[after]);
            match self.at_once(before, after) {
                Some(answer) => answers[place] = answer,
                None => open.push((before, after, place)),
            }
        }
        open.sort_unstable();
        let mut marks = vec![0; if open.is_empty() { 0 } else { self.rank.len() }];
        let mut visited = 0;
        let mut rest = open.as_slice();
        while !rest.is_empty() {
            let (sources, length) = first_sources(rest);
            let (group, behind) = rest.split_at(length);
            visited += self.pass(&sources, group, &mut marks, &mut answers);
            rest = behind;
        }
        (answers, visited)
    }

    /// The answer, where it takes no walk.
    fn at_once(&self, before: usize, after: usize) -> Option<bool> {
        let needs = self.needs_of(after);
        if before >= after || needs.is_empty() {
            return Some(false);
        }
        let (start, length) = self.below[before];
        let is_below = (start..start + length).contains(&self.below[after].0);
        (is_below || needs.binary_search(&before).is_ok()).then_some(true)
    }

    /// Follows up to 128 sources to the last step that `group` asks about.
    fn pass(&self, sources: &[usize], group: &[Open], marks: &mut [u128], answers: &mut [bool]) -> usize {
        let first = sources[0];
        let last = group.iter().map(|(_, after, _)| *after).max().unwrap_or(first);
        marks[first..=last].fill(0);
        for (bit, &source) in sources.iter().enumerate() {
            if source <= last {
                marks[source] = 1 << bit;
            }
        }
        for at in first..=last {
            let above = self.needs_of(at).iter().filter(|need| **need >= first);
            marks[at] |= above.fold(0, |mark, &need| mark | marks[need]);
        }
        for (before, after, place) in group {
            let bit = sources.partition_point(|source| source < before);
            answers[*place] = marks[*after] >> bit & 1 == 1;
        }
        last - first + 1
    }
}

/// The first sources of sorted questions, as many as one pass follows, and the number of questions about them.
fn first_sources(open: &[Open]) -> (Vec<usize>, usize) {
    let mut sources = Vec::with_capacity(SOURCES_PER_PASS);
    for (place, (before, ..)) in open.iter().enumerate() {
        if sources.last() != Some(before) {
            if sources.len() == SOURCES_PER_PASS {
                return (sources, place);
            }
            sources.push(*before);
        }
    }
    (sources, open.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of `count` steps in file order, in which `needs` says what each one needs.
    fn graph(count: usize, needs: impl Fn(usize) -> Vec<usize>) -> Upstream {
        let order: Vec<usize> = (0..count).collect();
        let needs = &needs;
        Upstream::new(&order, (0..count).flat_map(move |step| needs(step).into_iter().map(move |need| (step, need))))
    }

    fn layers(step: usize) -> Vec<usize> {
        if step < 100 { Vec::new() } else { vec![step - 100, step - step % 100 - 1] }
    }

    #[test]
    fn ordinary_uses_take_no_walk() {
        const COUNT: usize = 100_000;
        let chain = graph(COUNT, |step| step.checked_sub(1).into_iter().collect());
        let fan = graph(COUNT, |step| if step == 0 { Vec::new() } else { vec![0] });
        let gathered = graph(COUNT, |step| if step == COUNT - 1 { (0..step).collect() } else { Vec::new() });
        let next: Vec<_> = (1..COUNT).map(|step| (step - 1, step)).collect();
        let far: Vec<_> = (1..COUNT).map(|step| (7919 * (step / 2 + 1) % step, step)).collect();
        let first: Vec<_> = (1..COUNT).map(|step| (0, step)).collect();
        let all: Vec<_> = (0..COUNT - 1).map(|step| (step, COUNT - 1)).collect();
        let direct: Vec<_> = (100..COUNT).flat_map(|step| layers(step).into_iter().map(move |n| (n, step))).collect();
        for (graph, uses) in [(&chain, &next), (&chain, &far), (&fan, &first), (&gathered, &all)] {
            assert_eq!(graph.answer(uses), (vec![true; uses.len()], 0));
        }
        assert_eq!(graph(COUNT, layers).answer(&direct), (vec![true; direct.len()], 0));
    }

    #[test]
    fn far_uses_across_layers_share_their_passes() {
        let visited = |count: usize| {
            let uses: Vec<_> = (300..count).map(|step| (step - 300, step)).collect();
            let (answers, visited) = graph(count, layers).answer(&uses);
            assert!(answers.iter().all(|answer| *answer));
            visited
        };
        // 128 sources that lie together take a pass over themselves and the three layers behind them.
        assert!(visited(10_000) <= 10_000 / 128 * 500 + 500, "{}", visited(10_000));
        assert!(visited(100_000) <= 11 * visited(10_000), "{}", visited(100_000));
    }

    /// Against a walk for each question, on random graphs numbered at random.
    #[test]
    fn answers_are_those_of_a_walk() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..60 {
            let count = random.usize(1..300);
            let mut order: Vec<usize> = (0..count).collect();
            random.shuffle(&mut order);
            let mut edges = Vec::new();
            for at in 1..count {
                let needs: std::collections::BTreeSet<usize> =
                    (0..random.usize(0..4)).map(|_| order[random.usize(0..at)]).collect();
                edges.extend(needs.into_iter().map(|need| (order[at], need)));
            }
            let graph = Upstream::new(&order, edges.iter().copied());
            let mut before = vec![vec![false; count]; count];
            for &step in &order {
                for &(_, need) in edges.iter().filter(|(needing, _)| *needing == step) {
                    let above = before[need].clone();
                    before[step].iter_mut().zip(above).for_each(|(mark, above)| *mark |= above);
                    before[step][need] = true;
                }
            }
            let pairs: Vec<_> = (0..1_000).map(|_| (random.usize(0..count), random.usize(0..count))).collect();
            let expected: Vec<bool> = pairs.iter().map(|&(first, second)| before[second][first]).collect();
            assert_eq!(graph.answer(&pairs).0, expected);
        }
    }
}
