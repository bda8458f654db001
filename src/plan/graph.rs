//! The graph of steps; the only file that knows the graph library.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use petgraph::Direction;
use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::upstream::Upstream;

/// A graph over step ids, edges from a needed step to the step that needs it.
#[derive(Debug)]
pub struct Graph<'a> {
    ids: Vec<&'a str>,
    index: HashMap<&'a str, NodeIndex>,
    nodes: DiGraph<(), ()>,
    order: Option<Vec<NodeIndex>>,
}

impl<'a> Graph<'a> {
    /// Builds the graph; edges with unknown ends are left out.
    pub fn new(ids: impl Iterator<Item = &'a str>, edges: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut ids: Vec<&str> = ids.collect();
        let mut nodes = DiGraph::with_capacity(ids.len(), ids.len());
        let mut index = HashMap::with_capacity(ids.len());
        ids.retain(|id| {
            let before = nodes.node_count();
            index.entry(*id).or_insert_with(|| nodes.add_node(()));
            nodes.node_count() > before
        });
        let known = edges.filter_map(|(needed, needing)| Some((*index.get(needing)?, *index.get(needed)?)));
        let mut edges: Vec<(NodeIndex, NodeIndex)> = known.collect();
        // Looking for an edge in the graph would walk all edges of its end: quadratic for a step that all others need.
        edges.sort_unstable();
        edges.dedup();
        for (needing, needed) in edges {
            nodes.add_edge(needed, needing, ());
        }
        let order = toposort(&nodes, None).ok();
        Self { ids, index, nodes, order }
    }

    /// Every circle, each as the ids in the order in which they need each other.
    pub fn cycles(&self) -> Vec<Vec<String>> {
        if self.order.is_some() {
            return Vec::new();
        }
        let circular = |component: &Vec<NodeIndex>| {
            component.len() > 1 || self.nodes.find_edge(component[0], component[0]).is_some()
        };
        kosaraju_scc(&self.nodes).iter().filter(|c| circular(c)).map(|component| self.one_cycle(component)).collect()
    }

    /// One circle inside a strongly connected component, starting at its first id in file order.
    fn one_cycle(&self, component: &[NodeIndex]) -> Vec<String> {
        let inside: HashSet<NodeIndex> = component.iter().copied().collect();
        let start = component.iter().copied().min().expect("a component has a node");
        let needs = |node: NodeIndex| -> Vec<NodeIndex> {
            let edges = self.nodes.edges_directed(node, Direction::Incoming);
            edges.map(|edge| edge.source()).filter(|source| inside.contains(source)).collect()
        };
        let mut path = vec![start];
        let mut seen = HashSet::from([start]);
        let mut stack = vec![needs(start)];
        while let Some(choices) = stack.last_mut() {
            match choices.pop() {
                Some(next) if next == start => break,
                Some(next) if seen.insert(next) => {
                    path.push(next);
                    stack.push(needs(next));
                }
                Some(_) => {}
                None => {
                    stack.pop();
                    path.pop();
                }
            }
        }
        path.into_iter().map(|node| self.ids[node.index()].to_owned()).collect()
    }

    /// For each pair of ids whether the first always comes before the second. Where nobody can say, because an id is
    /// unknown or the steps need each other in a circle, it does.
    pub fn come_before(&self, pairs: &[(&str, &str)]) -> Vec<bool> {
        let mut answers = vec![true; pairs.len()];
        let Some(order) = &self.order else { return answers };
        let order: Vec<usize> = order.iter().map(|node| node.index()).collect();
        let edges = self.nodes.raw_edges().iter().map(|edge| (edge.target().index(), edge.source().index()));
        let upstream = Upstream::new(&order, edges);
        let place = |id: &str| self.index.get(id).map(|node| node.index());
        let (asked, known): (Vec<usize>, Vec<(usize, usize)>) = pairs
            .iter()
            .enumerate()
            .filter_map(|(at, (before, after))| Some((at, (place(before)?, place(after)?))))
            .unzip();
        let (found, _) = upstream.answer(&known);
        for (at, answer) in asked.into_iter().zip(found) {
            answers[at] = answer;
        }
        answers
    }

    /// All ids, each behind everything it needs, else in the order of the file; empty when there is a circle.
    pub fn sorted(&self) -> Vec<&'a str> {
        if self.order.is_none() {
            return Vec::new();
        }
        let mut unmet = vec![0_usize; self.ids.len()];
        for edge in self.nodes.raw_edges() {
            unmet[edge.target().index()] += 1;
        }
        let nodes = self.nodes.node_indices();
        let mut free: BinaryHeap<_> = nodes.filter(|node| unmet[node.index()] == 0).map(Reverse).collect();
        let mut sorted = Vec::with_capacity(unmet.len());
        while let Some(Reverse(node)) = free.pop() {
            sorted.push(self.ids[node.index()]);
            for next in self.nodes.neighbors(node) {
                let count = &mut unmet[next.index()];
                *count -= 1;
                if *count == 0 {
                    free.push(Reverse(next));
                }
            }
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_named_in_order() {
        let graph =
            Graph::new(["a", "b", "c", "d"].into_iter(), [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")].into_iter());
        assert_eq!(graph.cycles(), [["a", "c", "b"]]);
    }

    #[test]
    fn what_comes_before_is_transitive() {
        let graph = Graph::new(["a", "b", "c", "d"].into_iter(), [("a", "b"), ("b", "c"), ("a", "b")].into_iter());
        let pairs = [("a", "c"), ("c", "a"), ("d", "c"), ("a", "a"), ("a", "nobody")];
        assert_eq!(graph.come_before(&pairs), [true, false, false, false, true]);
        assert_eq!(graph.sorted(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn in_a_circle_nobody_can_say_what_comes_first() {
        let graph = Graph::new(["a", "b"].into_iter(), [("a", "b"), ("b", "a")].into_iter());
        assert_eq!(graph.come_before(&[("a", "b"), ("b", "a")]), [true, true]);
        assert!(graph.sorted().is_empty());
    }
}
