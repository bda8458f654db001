//! The graph of steps; the only file that knows the graph library.

use std::collections::{BTreeSet, HashMap, HashSet};

use petgraph::Direction;
use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

/// A graph over step ids, edges from a needed step to the step that needs it.
#[derive(Debug)]
pub struct Graph {
    nodes: DiGraph<String, ()>,
    index: HashMap<String, NodeIndex>,
    order: Option<HashMap<NodeIndex, usize>>,
}

impl Graph {
    /// Builds the graph; edges with unknown ends are left out.
    pub fn new<'a>(ids: impl Iterator<Item = &'a str>, edges: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut graph = DiGraph::new();
        let mut index = HashMap::new();
        for id in ids {
            index.entry(id.to_owned()).or_insert_with(|| graph.add_node(id.to_owned()));
        }
        for (needed, needing) in edges {
            if let (Some(&from), Some(&to)) = (index.get(needed), index.get(needing)) {
                graph.update_edge(from, to, ());
            }
        }
        let order =
            toposort(&graph, None).ok().map(|order| order.into_iter().enumerate().map(|(i, n)| (n, i)).collect());
        Self { nodes: graph, index, order }
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
        path.into_iter().map(|node| self.nodes[node].clone()).collect()
    }

    /// Whether `ancestor` always comes before `id`.
    pub fn is_upstream(&self, ancestor: &str, id: &str) -> bool {
        let (Some(&target), Some(&start), Some(order)) = (self.index.get(ancestor), self.index.get(id), &self.order)
        else {
            return true;
        };
        let mut stack = vec![start];
        let mut seen = HashSet::new();
        while let Some(node) = stack.pop() {
            if self.nodes.find_edge(target, node).is_some() {
                return true;
            }
            let incoming = self.nodes.edges_directed(node, Direction::Incoming).map(|edge| edge.source());
            stack.extend(incoming.filter(|n| order[n] > order[&target] && seen.insert(*n)));
        }
        false
    }

    /// All ids, each behind everything it needs, else in the order of the file; empty when there is a circle.
    pub fn sorted(&self) -> Vec<&str> {
        if self.order.is_none() {
            return Vec::new();
        }
        let mut unmet: Vec<usize> =
            self.nodes.node_indices().map(|n| self.nodes.edges_directed(n, Direction::Incoming).count()).collect();
        let mut free: BTreeSet<NodeIndex> = self.nodes.node_indices().filter(|n| unmet[n.index()] == 0).collect();
        let mut sorted = Vec::with_capacity(unmet.len());
        while let Some(node) = free.pop_first() {
            sorted.push(self.nodes[node].as_str());
            for edge in self.nodes.edges(node) {
                let count = &mut unmet[edge.target().index()];
                *count -= 1;
                if *count == 0 {
                    free.insert(edge.target());
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
    fn upstream_is_transitive() {
        let graph = Graph::new(["a", "b", "c", "d"].into_iter(), [("a", "b"), ("b", "c")].into_iter());
        assert!(graph.is_upstream("a", "c"));
        assert!(!graph.is_upstream("c", "a"));
        assert!(!graph.is_upstream("d", "c"));
    }
}
